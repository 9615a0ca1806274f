"""An S3 endpoint, and the identities that may talk to it."""

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import boto3
from botocore.config import Config


@dataclass(frozen=True)
class Identity:
    access_key: str
    secret_key: str


@dataclass(frozen=True)
class Endpoint:
    url: str
    identity: Identity
    region: str = "us-east-1"
    domain: str | None = None  # suffix of virtual hosts: bucket.DOMAIN
    website_domain: str | None = None  # suffix of websites' hosts, under the same address

    @property
    def netloc(self):
        return urlsplit(self.url).netloc

    @property
    def address(self):
        parts = urlsplit(self.url)
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def secure(self):
        return urlsplit(self.url).scheme == "https"

    def as_identity(self, identity):
        return replace(self, identity=identity)

    def at(self, url):
        return replace(self, url=url)

    def client(self, **config):
        """A boto3 client that never retries: a retry would hide what the server answered first."""
        settings = {
            "s3": {"addressing_style": "path"},
            "signature_version": "s3v4",
            "retries": {"total_max_attempts": 1},
            "max_pool_connections": 32,
            "read_timeout": 120,
        } | config
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=self.identity.access_key,
            aws_secret_access_key=self.identity.secret_key,
            config=Config(**settings),
        )
