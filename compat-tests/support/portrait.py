"""An install as its clients see it: everything that S3 answers, as one value that can be compared.

`furnish` fills an install with a bit of everything, `portrait` asks for all of it. Two portraits are equal when no client could
tell the installs apart.
"""

import base64
import datetime
import hashlib
import json

from botocore.exceptions import ClientError

from .multipart import Upload

MIB = 1024 * 1024
CUSTOMER_KEY = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"k" * 32}
# botocore encodes the key in all calls but this one's.
ENCODED_KEY = {
    "SSECustomerAlgorithm": "AES256",
    "SSECustomerKey": base64.b64encode(b"k" * 32).decode(),
    "SSECustomerKeyMD5": base64.b64encode(hashlib.md5(b"k" * 32).digest()).decode(),
}
SETTINGS = [
    "get_bucket_acl",
    "get_bucket_cors",
    "get_bucket_encryption",
    "get_bucket_lifecycle_configuration",
    "get_bucket_location",
    "get_bucket_logging",
    "get_bucket_notification_configuration",
    "get_bucket_ownership_controls",
    "get_bucket_policy",
    "get_bucket_policy_status",
    "get_bucket_tagging",
    "get_bucket_versioning",
    "get_bucket_website",
    "get_object_lock_configuration",
    "get_public_access_block",
]
ATTRIBUTES = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]


def furnish(s3, other, rng, queue_arn):
    """Fills an install through two tenants' clients."""
    s3.create_bucket(Bucket="plain")
    s3.create_bucket(Bucket="versioned", ObjectLockEnabledForBucket=True)
    s3.create_bucket(Bucket="settled")
    other.create_bucket(Bucket="other")

    shared = rng.randbytes(300_000)
    for client, bucket, key in [(s3, "plain", "large"), (s3, "plain", "dir/same"), (other, "other", "same")]:
        client.put_object(Bucket=bucket, Key=key, Body=shared)
    s3.put_object(
        Bucket="plain",
        Key="kéy with ✓ and\n lines",
        Body=b"small",
        Metadata={"colour": "blue"},
        ContentType="text/plain",
        CacheControl="no-cache",
        Tagging="a=1&b=%C3%A9",
        ChecksumAlgorithm="SHA256",
    )
    s3.put_object(Bucket="plain", Key="empty", Body=b"")
    for number in range(60):
        s3.put_object(Bucket="plain", Key=f"many/{number % 7}/{number}", Body=b"m%d" % (number % 9))
    s3.copy_object(Bucket="plain", Key="copied", CopySource="plain/large", MetadataDirective="COPY")
    s3.delete_object(Bucket="plain", Key="many/0/0")

    upload = Upload(s3, "plain", "multipart", Metadata={"in": "parts"}, ChecksumAlgorithm="CRC32C")
    parts = [rng.randbytes(5 * MIB), rng.randbytes(1000)]
    sums = [s3.upload_part(**upload._upload, PartNumber=n, Body=p, ChecksumAlgorithm="CRC32C") for n, p in enumerate(parts, 1)]
    upload.complete([{"PartNumber": n, "ETag": s["ETag"], "ChecksumCRC32C": s["ChecksumCRC32C"]} for n, s in enumerate(sums, 1)])
    under_way = Upload(s3, "plain", "under way")
    under_way.put(1, rng.randbytes(5 * MIB))
    under_way.put(3, b"tail")

    soon = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=1)
    for body in (b"one", b"two", rng.randbytes(200_000)):
        s3.put_object(Bucket="versioned", Key="key", Body=body)
    s3.delete_object(Bucket="versioned", Key="key")
    s3.put_object(Bucket="versioned", Key="gone", Body=b"x")
    s3.delete_object(Bucket="versioned", Key="gone")
    s3.put_object(Bucket="versioned", Key="kept", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon)
    s3.put_object(Bucket="versioned", Key="held", Body=b"x", ObjectLockLegalHoldStatus="ON")

    s3.put_object(Bucket="plain", Key="sse/s3", Body=shared, ServerSideEncryption="AES256")
    s3.put_object(Bucket="plain", Key="sse/kms", Body=b"secret", ServerSideEncryption="aws:kms")
    s3.put_object(Bucket="plain", Key="sse/customer", Body=rng.randbytes(100_000), **CUSTOMER_KEY)

    bucket = {"Bucket": "settled"}
    s3.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(**bucket, Key="before", Body=b"versioned")
    s3.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(**bucket, Key="before", Body=b"null")
    s3.put_bucket_tagging(**bucket, Tagging={"TagSet": [{"Key": "team", "Value": "storage"}]})
    s3.put_bucket_cors(
        **bucket, CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://a.example"]}]}
    )
    rule = {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}
    s3.put_bucket_lifecycle_configuration(**bucket, LifecycleConfiguration={"Rules": [rule]})
    s3.put_bucket_encryption(
        **bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
        },
    )
    s3.put_bucket_website(**bucket, WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}})
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::settled/public/*",
    }
    s3.put_bucket_policy(**bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    s3.put_bucket_notification_configuration(
        **bucket,
        NotificationConfiguration={"QueueConfigurations": [{"Id": "q", "QueueArn": queue_arn, "Events": ["s3:ObjectCreated:*"]}]},
    )
    s3.put_object(**bucket, Key="public/told", Body=b"of this an event tells")
    other.put_bucket_acl(Bucket="other", ACL="public-read")


def portrait(*clients):
    """What these clients see."""
    return [seen_by(client) for client in clients]


def seen_by(client):
    listed = client.list_buckets()
    seen = {"owner": listed["Owner"], "buckets": [(b["Name"], b["CreationDate"]) for b in listed["Buckets"]]}
    for name, _ in seen["buckets"]:
        seen[name] = bucket_seen(client, name)
    return seen


def bucket_seen(client, name):
    bucket = {"Bucket": name}
    seen = {setting: answer(getattr(client, setting), **bucket) for setting in SETTINGS}
    pages = client.get_paginator("list_object_versions").paginate(**bucket, PaginationConfig={"PageSize": 50})
    entries = [(kind, entry) for page in pages for kind in ("Versions", "DeleteMarkers") for entry in page.get(kind, [])]
    seen["versions"] = entries
    seen["listing"] = [
        {key: value for key, value in page.items() if key in ("Contents", "CommonPrefixes")}
        for page in client.get_paginator("list_objects_v2").paginate(**bucket, Delimiter="/", PaginationConfig={"PageSize": 3})
    ]
    seen["objects"] = {
        (entry["Key"], entry["VersionId"]): object_seen(client, name, entry) for kind, entry in entries if kind == "Versions"
    }
    uploads = client.list_multipart_uploads(**bucket).get("Uploads", [])
    seen["uploads"] = [
        (upload, answer(client.list_parts, **bucket, Key=upload["Key"], UploadId=upload["UploadId"])) for upload in uploads
    ]
    return seen


def object_seen(client, bucket, entry):
    place = {"Bucket": bucket, "Key": entry["Key"], "VersionId": entry["VersionId"]}
    secret = CUSTOMER_KEY if entry["Key"].endswith("customer") else {}
    seen = {"head": answer(client.head_object, **place, **secret, ChecksumMode="ENABLED")}
    body = client.get_object(**place, **secret)["Body"].read()
    seen["body"] = (len(body), hashlib.sha256(body).hexdigest())
    if entry["Size"] > 10:
        seen["range"] = client.get_object(**place, **secret, Range="bytes=3-9")["Body"].read()
    seen["tags"] = answer(client.get_object_tagging, **place)
    seen["acl"] = answer(client.get_object_acl, **place)
    seen["attributes"] = answer(
        client.get_object_attributes, **place, **(ENCODED_KEY if secret else {}), ObjectAttributes=ATTRIBUTES
    )
    seen["retention"] = answer(client.get_object_retention, **place)
    seen["hold"] = answer(client.get_object_legal_hold, **place)
    return seen


def answer(call, **arguments):
    """What a call answers, without what differs from request to request; the code of a refusal."""
    try:
        found = call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    headers = found.pop("ResponseMetadata")["HTTPHeaders"]
    kept = {name: value for name, value in headers.items() if name.startswith("x-amz") and "request-id" not in name}
    kept |= {name: value for name, value in headers.items() if name in ("x-osproxy-uid", "last-modified", "etag")}
    found.pop("Body", None)
    return found, kept
