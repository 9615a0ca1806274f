"""Requests that nobody signed: denied, unless everybody is let in, and then as good as any other."""

import pytest

from support.multipart import Upload
from support.policy import anonymous, put, statement
from support.raw import assert_refused
from support.refusal import refused


@pytest.fixture(scope="session")
def nobody(endpoint):
    return anonymous(endpoint)


CALLS = {
    "ListBuckets": lambda c, b: c.list_buckets(),
    "CreateBucket": lambda c, b: c.create_bucket(Bucket=f"{b}-new"),
    "DeleteBucket": lambda c, b: c.delete_bucket(Bucket=b),
    "ListObjectsV2": lambda c, b: c.list_objects_v2(Bucket=b),
    "GetObject": lambda c, b: c.get_object(Bucket=b, Key="k"),
    "PutObject": lambda c, b: c.put_object(Bucket=b, Key="k", Body=b"x"),
    "DeleteObject": lambda c, b: c.delete_object(Bucket=b, Key="k"),
    "GetBucketAcl": lambda c, b: c.get_bucket_acl(Bucket=b),
    "PutBucketAcl": lambda c, b: c.put_bucket_acl(Bucket=b, ACL="public-read"),
    "GetBucketPolicy": lambda c, b: c.get_bucket_policy(Bucket=b),
    "GetPublicAccessBlock": lambda c, b: c.get_public_access_block(Bucket=b),
    "GetBucketVersioning": lambda c, b: c.get_bucket_versioning(Bucket=b),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_private_bucket_is_closed(nobody, bucket, name):
    with refused("AccessDenied"):
        CALLS[name](nobody, bucket)


def test_what_is_not_there_is_said_to_anybody(nobody):
    with refused("NoSuchBucket"):
        nobody.get_object(Bucket="a-bucket-that-is-not-there", Key="k")


@pytest.mark.op("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
def test_everybody_writes_where_everybody_may(s3, nobody, bucket):
    put(s3, bucket, statement(bucket, ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"]))
    nobody.put_object(Bucket=bucket, Key="k", Body=b"by nobody", ContentType="text/x")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"by nobody"
    upload = Upload(nobody, bucket, "joined")
    upload.put(1, b"part")
    upload.complete()
    assert nobody.get_object(Bucket=bucket, Key="joined")["Body"].read() == b"part"
    nobody.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"})
    nobody.delete_object(Bucket=bucket, Key="k")
    with refused("NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="k")
    assert s3.get_object_acl(Bucket=bucket, Key="copy")["Grants"]


def test_chunks_without_a_signature_are_not_stored_with_their_framing(s3, raw, bucket):
    put(s3, bucket, statement(bucket, "s3:PutObject"))
    answer = raw.request(
        "PUT",
        f"/{bucket}/k",
        headers={
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": "1",
        },
        body=b"1\r\nx\r\n0\r\n\r\n",
        anonymous=True,
    )
    if answer.status == 200:
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    else:
        assert_refused(answer, {"NotImplemented", "InvalidRequest"}, {400, 501})


@pytest.mark.op("GetObject")
def test_headers_of_the_answer_are_not_for_anybody_to_choose(s3, nobody, bucket):
    put(s3, bucket, statement(bucket, "s3:GetObject"))
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with refused("InvalidRequest", 400):
        nobody.get_object(Bucket=bucket, Key="k", ResponseContentType="text/html")
    assert s3.get_object(Bucket=bucket, Key="k", ResponseContentType="text/html")["ContentType"] == "text/html"
