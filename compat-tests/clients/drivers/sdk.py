"""Carries out steps with a Python SDK, boto3 or minio, whichever version its interpreter has.

Usage: sdk.py boto3|minio < {"endpoint": {...}, "steps": [...]} > results as a JSON list.
"""

import json
import sys
from datetime import timedelta
from urllib.parse import urlsplit

PART = 8 * 1024 * 1024


class Boto3:
    def __init__(self, endpoint):
        import boto3

        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint["url"],
            region_name=endpoint["region"],
            aws_access_key_id=endpoint["access_key"],
            aws_secret_access_key=endpoint["secret_key"],
        )

    def make_bucket(self, bucket):
        self.client.create_bucket(Bucket=bucket)

    def remove_bucket(self, bucket):
        self.client.delete_bucket(Bucket=bucket)

    def buckets(self):
        return [entry["Name"] for entry in self.client.list_buckets()["Buckets"]]

    def upload(self, bucket, key, path):
        self.client.upload_file(path, bucket, key)

    def download(self, bucket, key, path):
        self.client.download_file(bucket, key, path)

    def keys(self, bucket, prefix):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def remove_all(self, bucket, prefix):
        keys = self.keys(bucket, prefix)
        for at in range(0, len(keys), 1000):
            answer = self.client.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys[at : at + 1000]]}
            )
            assert not answer.get("Errors"), answer["Errors"]

    def presign(self, bucket, key, method):
        operation = {"GET": "get_object", "PUT": "put_object"}[method]
        return self.client.generate_presigned_url(operation, {"Bucket": bucket, "Key": key}, ExpiresIn=600)


class Minio:
    def __init__(self, endpoint):
        import minio

        parts = urlsplit(endpoint["url"])
        self.client = minio.Minio(
            parts.netloc,
            access_key=endpoint["access_key"],
            secret_key=endpoint["secret_key"],
            secure=parts.scheme == "https",
            region=endpoint["region"],
        )

    def make_bucket(self, bucket):
        self.client.make_bucket(bucket)

    def remove_bucket(self, bucket):
        self.client.remove_bucket(bucket)

    def buckets(self):
        return [bucket.name for bucket in self.client.list_buckets()]

    def upload(self, bucket, key, path):
        self.client.fput_object(bucket, key, path, part_size=PART)

    def download(self, bucket, key, path):
        self.client.fget_object(bucket, key, path)

    def keys(self, bucket, prefix):
        return [entry.object_name for entry in self.client.list_objects(bucket, prefix=prefix, recursive=True)]

    def remove_all(self, bucket, prefix):
        from minio.deleteobjects import DeleteObject

        errors = list(self.client.remove_objects(bucket, [DeleteObject(key) for key in self.keys(bucket, prefix)]))
        assert not errors, errors

    def presign(self, bucket, key, method):
        return self.client.get_presigned_url(method, bucket, key, expires=timedelta(minutes=10))


if __name__ == "__main__":
    job = json.load(sys.stdin)
    sdk = {"boto3": Boto3, "minio": Minio}[sys.argv[1]](job["endpoint"])
    json.dump([getattr(sdk, name)(*arguments) for name, *arguments in job["steps"]], sys.stdout)
