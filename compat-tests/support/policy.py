"""Policy documents, and the ways to be somebody else."""

import json

import boto3
from botocore import UNSIGNED
from botocore.config import Config


def statement(bucket, action, *resources, effect="Allow", principal="*", condition=None, **more):
    """A statement about a bucket; resources are what follows its name: "" for itself, "/*" for its keys."""
    made = {
        "Effect": effect,
        "Principal": principal,
        "Action": action,
        "Resource": [f"arn:aws:s3:::{bucket}{rest}" for rest in resources or ("/*",)],
    }
    if condition:
        made["Condition"] = condition
    return made | more


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def put(client, bucket, *statements):
    client.put_bucket_policy(Bucket=bucket, Policy=document(*statements))


def anonymous(endpoint):
    """A client that signs nothing."""
    config = Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    return boto3.session.Session().client(
        "s3", endpoint_url=endpoint.url, region_name=endpoint.region, config=config
    )


def client_of(endpoint, service, credentials=None, **config):
    """A client of a service, with the endpoint's own key or with temporary credentials."""
    settings = {"retries": {"total_max_attempts": 1}} | config
    if service == "s3":
        settings = {"s3": {"addressing_style": "path"}, "signature_version": "s3v4"} | settings
    keys = {
        "aws_access_key_id": endpoint.identity.access_key,
        "aws_secret_access_key": endpoint.identity.secret_key,
    }
    if credentials:
        keys = {
            "aws_access_key_id": credentials["AccessKeyId"],
            "aws_secret_access_key": credentials["SecretAccessKey"],
            "aws_session_token": credentials["SessionToken"],
        }
    return boto3.session.Session().client(
        service, endpoint_url=endpoint.url, region_name=endpoint.region, config=Config(**settings), **keys
    )
