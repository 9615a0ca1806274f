"""Server-side encryption: AES256, aws:kms, customers' keys, and the default of a bucket."""

import base64
import hashlib

import pytest

from support.raw import Raw, assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op(
    "PutObject",
    "GetObject",
    "HeadObject",
    "CopyObject",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "GetBucketEncryption",
    "PutBucketEncryption",
    "DeleteBucketEncryption",
)

MIB = 1024 * 1024
FRAME = 64 * 1024
SIZES = [0, 1, 1000, FRAME, FRAME + 1, 3 * FRAME - 1, 5 * MIB + 17]


class CustomerKey:
    """A key of the client's own, as boto3 and as raw headers want it."""

    def __init__(self, fill):
        self.bytes = bytes([fill]) * 32
        self.text = base64.b64encode(self.bytes).decode()
        self.md5 = base64.b64encode(hashlib.md5(self.bytes).digest()).decode()

    @property
    def object(self):
        return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": self.bytes}

    @property
    def source(self):
        return {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": self.bytes}

    def headers(self, **changes):
        fields = {"algorithm": "AES256", "key": self.text, "key-MD5": self.md5} | changes
        return {
            f"x-amz-server-side-encryption-customer-{name}": value
            for name, value in fields.items()
            if value is not None
        }


A, B = CustomerKey(1), CustomerKey(2)


def read(s3, bucket, key, **kwargs):
    return s3.get_object(Bucket=bucket, Key=key, **kwargs)["Body"].read()


def default(algorithm, **more):
    by_default = {"SSEAlgorithm": algorithm} | more
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": by_default}]}


# ---- AES256


@pytest.mark.parametrize("size", SIZES)
def test_aes256_gives_back_what_was_sent_and_says_so(s3, bucket, rng, size):
    body = rng.randbytes(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, ServerSideEncryption="AES256")
    assert put["ServerSideEncryption"] == "AES256"
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == body and got["ServerSideEncryption"] == "AES256"
    head = s3.head_object(Bucket=bucket, Key="k")
    assert head["ServerSideEncryption"] == "AES256" and head["ContentLength"] == size


def test_an_object_that_is_not_encrypted_says_nothing(s3, bucket):
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert "ServerSideEncryption" not in s3.head_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("customer", [None, A], ids=["AES256", "customer"])
def test_ranges_around_the_borders_of_frames(s3, bucket, rng, customer):
    size = 5 * FRAME + 100
    body = rng.randbytes(size)
    key = customer.object if customer else {}
    put = key or {"ServerSideEncryption": "AES256"}
    s3.put_object(Bucket=bucket, Key="k", Body=body, **put)
    places = [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 5 * FRAME - 1, 5 * FRAME, size - 1]
    for first in places:
        for last in places:
            if first > last:
                continue
            got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}", **key)
            assert got["Body"].read() == body[first : last + 1], (first, last)
            assert got["ContentRange"] == f"bytes {first}-{last}/{size}"
    assert s3.get_object(Bucket=bucket, Key="k", Range="bytes=-7", **key)["Body"].read() == body[-7:]


def test_a_read_cannot_choose_the_encryption(s3, raw, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256")
    headers = {"x-amz-server-side-encryption": "AES256"}
    assert_refused(raw.request("GET", f"/{bucket}/k", headers=headers), "InvalidArgument", 400)
    assert raw.request("HEAD", f"/{bucket}/k", headers=headers).status == 400


@pytest.mark.parametrize(
    "headers, code, status",
    [
        ({"x-amz-server-side-encryption": "aes256"}, "InvalidArgument", 400),
        ({"x-amz-server-side-encryption": "aes:kms"}, "InvalidArgument", 400),
        ({"x-amz-server-side-encryption": "aws:kms:dsse"}, "NotImplemented", 501),
        ({"x-amz-server-side-encryption-aws-kms-key-id": "k"}, "InvalidArgument", 400),
        (
            {"x-amz-server-side-encryption": "AES256", "x-amz-server-side-encryption-aws-kms-key-id": "k"},
            "InvalidArgument",
            400,
        ),
        ({"x-amz-server-side-encryption": "AES256"} | A.headers(), "InvalidArgument", 400),
        ({"x-amz-server-side-encryption": "aws:kms"} | A.headers(), "InvalidArgument", 400),
        (
            {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-context": "text"},
            "InvalidArgument",
            400,
        ),
        (
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "there-is-no-such-key",
            },
            "KMS.NotFoundException",
            400,
        ),
        (A.headers(algorithm=None), "InvalidArgument", 400),
        (A.headers(algorithm="AES128"), "InvalidEncryptionAlgorithmError", 400),
        (A.headers(key=None), "InvalidArgument", 400),
        (A.headers(key="AAAA"), "InvalidArgument", 400),
        (A.headers(key="not base64"), "InvalidArgument", 400),
        (A.headers(**{"key-MD5": None}), "InvalidArgument", 400),
        (A.headers(**{"key-MD5": B.md5}), "InvalidArgument", 400),
    ],
)
def test_wrong_requests_are_refused_and_store_nothing(s3, raw, bucket, headers, code, status):
    answer = raw.request("PUT", f"/{bucket}/k", headers=headers, body=b"x")
    assert_refused(answer, code, status)
    assert A.text not in answer.body.decode()
    assert raw.request("POST", f"/{bucket}/k", query=[("uploads", "")], headers=headers).status == status
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


# ---- aws:kms


def test_kms_without_a_key_takes_the_accounts_default(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="a", Body=b"x" * 100_000, ServerSideEncryption="aws:kms")
    assert put["ServerSideEncryption"] == "aws:kms"
    key = put["SSEKMSKeyId"]
    assert s3.head_object(Bucket=bucket, Key="a")["SSEKMSKeyId"] == key
    for reference in (key, "alias/aws/s3"):
        put = s3.put_object(
            Bucket=bucket,
            Key="b",
            Body=b"y",
            ServerSideEncryption="aws:kms",
            SSEKMSKeyId=reference,
            BucketKeyEnabled=True,
            SSEKMSEncryptionContext=base64.b64encode(b'{"a":"b"}').decode(),
        )
        assert put["SSEKMSKeyId"] == key and put["BucketKeyEnabled"] is True
        assert base64.b64decode(put["SSEKMSEncryptionContext"]) == b'{"a":"b"}'
    assert read(s3, bucket, "a") == b"x" * 100_000


# ---- customers' keys


@pytest.mark.parametrize("size", SIZES)
def test_a_customers_key_opens_its_object(s3, bucket, rng, size):
    body = rng.randbytes(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, **A.object)
    assert (put["SSECustomerAlgorithm"], put["SSECustomerKeyMD5"]) == ("AES256", A.md5)
    assert "ServerSideEncryption" not in put
    got = s3.get_object(Bucket=bucket, Key="k", **A.object)
    assert got["Body"].read() == body
    assert (got["SSECustomerAlgorithm"], got["SSECustomerKeyMD5"]) == ("AES256", A.md5)
    head = s3.head_object(Bucket=bucket, Key="k", **A.object)
    assert head["ContentLength"] == size and head["SSECustomerKeyMD5"] == A.md5


@pytest.mark.op("GetObjectAttributes")
def test_without_the_key_or_with_another_nothing_is_told(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret" * 1000, Metadata={"a": "b"}, **A.object)
    with refused("InvalidRequest", 400):
        s3.get_object(Bucket=bucket, Key="k")
    with refused("AccessDenied", 403):
        s3.get_object(Bucket=bucket, Key="k", **B.object)
    with refused("400", 400):
        s3.head_object(Bucket=bucket, Key="k")
    with refused("403", 403):
        s3.head_object(Bucket=bucket, Key="k", **B.object)
    with refused("InvalidRequest", 400):
        s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ETag"])
    # boto3 encodes the keys of all operations but this one.
    key = A.object | {"SSECustomerKey": A.text, "SSECustomerKeyMD5": A.md5}
    told = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectSize"], **key)
    assert told["ObjectSize"] == 6000


def test_a_key_for_an_object_without_one_is_refused(s3, bucket):
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    s3.put_object(Bucket=bucket, Key="managed", Body=b"x", ServerSideEncryption="AES256")
    for key in ("plain", "managed"):
        with refused("InvalidRequest", 400):
            s3.get_object(Bucket=bucket, Key=key, **A.object)
        with refused("400", 400):
            s3.head_object(Bucket=bucket, Key=key, **A.object)


def test_equal_bytes_under_two_keys_need_each_its_own(s3, bucket):
    body = b"same" * 50_000
    s3.put_object(Bucket=bucket, Key="plain", Body=body)
    s3.put_object(Bucket=bucket, Key="a", Body=body, **A.object)
    s3.put_object(Bucket=bucket, Key="b", Body=body, **B.object)
    assert read(s3, bucket, "a", **A.object) == read(s3, bucket, "b", **B.object) == body
    with refused("AccessDenied", 403):
        read(s3, bucket, "b", **A.object)


# ---- copies

PLACES = {
    "plain": ({}, {}, {}),
    "AES256": ({"ServerSideEncryption": "AES256"}, {}, {}),
    "kms": ({"ServerSideEncryption": "aws:kms"}, {}, {}),
    "customer": (A.object, A.object, A.source),
    "other": (B.object, B.object, B.source),
}


@pytest.mark.parametrize("to", PLACES)
@pytest.mark.parametrize("origin", PLACES)
@pytest.mark.parametrize("size", [900, 300_000])
def test_copies_between_all_kinds(s3, bucket, rng, origin, to, size):
    body = rng.randbytes(size)
    put, _, source = PLACES[origin]
    s3.put_object(Bucket=bucket, Key="source", Body=body, Metadata={"m": "1"}, **put)
    target, get, _ = PLACES[to]
    copied = s3.copy_object(
        Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "source"}, **target, **source
    )
    assert copied.get("ServerSideEncryption") == target.get("ServerSideEncryption")
    assert copied["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="copy", **get)
    assert got["Body"].read() == body and got["Metadata"] == {"m": "1"}
    assert got.get("ServerSideEncryption") == target.get("ServerSideEncryption")


def test_a_copy_needs_the_key_of_its_source(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 100, **A.object)
    source = {"Bucket": bucket, "Key": "k"}
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key="c", CopySource=source)
    with refused("AccessDenied", 403):
        s3.copy_object(Bucket=bucket, Key="c", CopySource=source, **B.source)
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x" * 100)
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "plain"}, **A.source)


def test_a_copy_onto_itself_may_change_the_encryption(s3, bucket):
    source = {"Bucket": bucket, "Key": "k"}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 200_000)
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key="k", CopySource=source)
    s3.copy_object(Bucket=bucket, Key="k", CopySource=source, ServerSideEncryption="AES256")
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"
    s3.copy_object(Bucket=bucket, Key="k", CopySource=source, **A.object)
    s3.copy_object(Bucket=bucket, Key="k", CopySource=source, **B.object, **A.source)
    assert read(s3, bucket, "k", **B.object) == b"x" * 200_000


# ---- multipart


@pytest.mark.parametrize("kind", ["AES256", "kms", "customer"])
def test_parts_join_and_ranges_cross_them(s3, bucket, rng, kind):
    begin, get, _ = PLACES[kind]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", **begin)
    assert upload.get("ServerSideEncryption") == begin.get("ServerSideEncryption")
    bodies = [rng.randbytes(5 * MIB), rng.randbytes(5 * MIB + 1), rng.randbytes(77)]
    parts = []
    for number, body in enumerate(bodies, 1):
        part = s3.upload_part(
            Bucket=bucket, Key="k", UploadId=upload["UploadId"], PartNumber=number, Body=body, **get
        )
        assert part.get("ServerSideEncryption") == begin.get("ServerSideEncryption")
        assert part.get("SSECustomerKeyMD5") == (A.md5 if kind == "customer" else None)
        parts.append({"PartNumber": number, "ETag": part["ETag"]} | {k: part[k] for k in part if k.startswith("Checksum")})
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload["UploadId"], MultipartUpload={"Parts": parts}, **get
    )
    assert done.get("ServerSideEncryption") == begin.get("ServerSideEncryption")
    whole = b"".join(bodies)
    assert read(s3, bucket, "k", **get) == whole
    for first, last in [(5 * MIB - 3, 5 * MIB + 3), (10 * MIB - 1, 10 * MIB + 5), (1, len(whole) - 2)]:
        assert read(s3, bucket, "k", Range=f"bytes={first}-{last}", **get) == whole[first : last + 1]
    got = s3.get_object(Bucket=bucket, Key="k", PartNumber=2, **get)
    assert got["Body"].read() == bodies[1] and got["PartsCount"] == 3


def test_a_part_comes_with_the_key_of_its_upload(s3, bucket):
    with_key = s3.create_multipart_upload(Bucket=bucket, Key="k", **A.object)["UploadId"]
    without = s3.create_multipart_upload(Bucket=bucket, Key="k", ServerSideEncryption="AES256")["UploadId"]
    s3.put_object(Bucket=bucket, Key="source", Body=b"s")
    cases = [(with_key, {}), (with_key, B.object), (without, A.object)]
    for upload, key in cases:
        with refused("InvalidRequest", 400):
            s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x", **key)
        with refused("InvalidRequest", 400):
            s3.upload_part_copy(
                Bucket=bucket,
                Key="k",
                UploadId=upload,
                PartNumber=1,
                CopySource={"Bucket": bucket, "Key": "source"},
                **key,
            )
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=with_key, PartNumber=1, Body=b"x", **A.object)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    with refused("InvalidRequest", 400):
        s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=with_key, MultipartUpload=parts, **B.object)
    for upload in (with_key, without):
        s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)


@pytest.mark.parametrize("to", ["plain", "AES256", "customer", "other"])
@pytest.mark.parametrize("origin", ["plain", "AES256", "customer"])
def test_part_copies_between_kinds(s3, bucket, rng, origin, to):
    body = rng.randbytes(6 * MIB)
    put, _, source = PLACES[origin]
    s3.put_object(Bucket=bucket, Key="source", Body=body, **put)
    begin, get, _ = PLACES[to]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", **begin)["UploadId"]
    parts = []
    for number, span in [(1, None), (2, f"bytes=100-{FRAME + 200}")]:
        part = s3.upload_part_copy(
            Bucket=bucket,
            Key="k",
            UploadId=upload,
            PartNumber=number,
            CopySource={"Bucket": bucket, "Key": "source"},
            **({"CopySourceRange": span} if span else {}),
            **get,
            **source,
        )
        parts.append({"PartNumber": number, "ETag": part["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}, **get
    )
    assert read(s3, bucket, "k", **get) == body + body[100 : FRAME + 201]


# ---- the default of a bucket


def test_the_default_is_set_told_and_deleted(s3, bucket):
    with refused("ServerSideEncryptionConfigurationNotFoundError", 404):
        s3.get_bucket_encryption(Bucket=bucket)
    for configuration in [default("AES256"), default("aws:kms"), default("aws:kms", KMSMasterKeyID="some-key")]:
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=configuration)
        rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rules[0].pop("BucketKeyEnabled") is False
        assert rules == configuration["Rules"]
    for _ in range(2):
        answer = s3.delete_bucket_encryption(Bucket=bucket)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("ServerSideEncryptionConfigurationNotFoundError", 404):
        s3.get_bucket_encryption(Bucket=bucket)


def test_the_default_is_for_requests_that_say_nothing(s3, bucket):
    s3.put_object(Bucket=bucket, Key="before", Body=b"x")
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=default("AES256"))
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 70_000)["ServerSideEncryption"] == "AES256"
    assert s3.put_object(Bucket=bucket, Key="c", Body=b"x", **A.object)["SSECustomerKeyMD5"] == A.md5
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "before"})
    assert copied["ServerSideEncryption"] == "AES256"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")
    assert upload["ServerSideEncryption"] == "AES256"
    s3.abort_multipart_upload(Bucket=bucket, Key="m", UploadId=upload["UploadId"])
    assert "ServerSideEncryption" not in s3.head_object(Bucket=bucket, Key="before")
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=default("aws:kms"))
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ServerSideEncryption"] == "aws:kms"
    s3.delete_bucket_encryption(Bucket=bucket)
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="k", Body=b"x")


def test_a_default_key_that_is_not_there_fails_the_write(s3, bucket):
    configuration = default("aws:kms", KMSMasterKeyID="there-is-no-such-key")
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=configuration)
    with refused("KMS.NotFoundException", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "<Rule></Rule>",
        "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>rot13</SSEAlgorithm>"
        "</ApplyServerSideEncryptionByDefault></Rule>",
        "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
        "</ApplyServerSideEncryptionByDefault></Rule>" * 2,
    ],
)
def test_wrong_configurations_are_malformed(raw, bucket, rules):
    body = f"<ServerSideEncryptionConfiguration>{rules}</ServerSideEncryptionConfiguration>".encode()
    answer = raw.request("PUT", f"/{bucket}", query=[("encryption", "")], body=body)
    assert_refused(answer, "MalformedXML", 400)


def test_another_account_sees_and_changes_nothing(stranger, bucket):
    other = stranger.client()
    for call in (other.get_bucket_encryption, other.delete_bucket_encryption):
        with refused("AccessDenied", 403):
            call(Bucket=bucket)
    assert Raw(stranger).request("GET", f"/{bucket}", query=[("encryption", "")]).status == 403
