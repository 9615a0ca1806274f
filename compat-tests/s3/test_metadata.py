"""User metadata and the headers that S3 keeps with an object."""

from datetime import datetime, timezone
from email.header import decode_header, make_header

import pytest

from support.refusal import refused

pytestmark = pytest.mark.op("PutObject", "HeadObject", "GetObject")

SYSTEM = {
    "ContentType": "text/plain; charset=utf-8",
    "ContentEncoding": "gzip",
    "ContentDisposition": 'attachment; filename="a b.txt"',
    "ContentLanguage": "de-AT",
    "CacheControl": "max-age=60, no-transform",
}


def test_system_headers_come_back(s3, bucket):
    expires = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Expires=expires, **SYSTEM)
    for answer in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
        assert {name: answer[name] for name in SYSTEM} == SYSTEM
        assert answer["ResponseMetadata"]["HTTPHeaders"]["expires"] == "Wed, 02 Jan 2030 03:04:05 GMT"


@pytest.mark.op("CreateMultipartUpload", "CompleteMultipartUpload")
def test_multipart_upload_keeps_headers_and_metadata(s3, bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", Metadata={"a": "b"}, **SYSTEM)["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    head = s3.head_object(Bucket=bucket, Key="k")
    assert {name: head[name] for name in SYSTEM} == SYSTEM and head["Metadata"] == {"a": "b"}


def test_user_metadata_comes_back_with_names_in_lower_case(s3, bucket):
    given = {"Mixed-Case": "Value", "a.b_c": "1", "empty": "", "spaces": "a  b", "punctuation": "=?&;,:/\"'"}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata=given)
    expected = {name.lower(): value for name, value in given.items()}
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == expected
    assert s3.get_object(Bucket=bucket, Key="k")["Metadata"] == expected


def decoded(value):
    """The text of a metadata value as S3 answers it: RFC 2047 words where it is not ASCII.

    S3 takes the request's header bytes for Latin-1, so UTF-8 sent raw comes back encoded twice; both
    readings give the sender's text.
    """
    text = str(make_header(decode_header(value)))
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


@pytest.mark.parametrize("text", ["ÄMÄZÕÑ S3", "日本語", "emoji \U0001f98a", "müßig, 100 %"])
def test_non_ascii_metadata_sent_as_utf8_comes_back_as_encoded_words(raw, bucket, text):
    answer = raw.request("PUT", f"/{bucket}/k", headers={"x-amz-meta-name": text}, body=b"x")
    assert answer.status == 200, answer
    for method in ("HEAD", "GET"):
        value = raw.request(method, f"/{bucket}/k").headers["x-amz-meta-name"]
        assert value.isascii() and value.startswith("=?UTF-8?"), value
        assert decoded(value) == text


def test_encoded_words_keep_their_meaning(s3, bucket):
    # What clients send that encode themselves. S3 decodes before it stores and encodes what it returns.
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"name": "=?UTF-8?B?w4RNw4Raw5XDkQ==?="})
    assert decoded(s3.head_object(Bucket=bucket, Key="k")["Metadata"]["name"]) == "ÄMÄZÕÑ"


def test_two_headers_of_one_name_are_joined(raw, bucket):
    # S3 combines them to one comma-separated value; they are signed so, too.
    def split(pairs):
        return [
            p for n, v in pairs for p in ([(n, part) for part in v.split(",")] if n == "x-amz-meta-a" else [(n, v)])
        ]

    answer = raw.request("PUT", f"/{bucket}/k", headers={"x-amz-meta-a": "1,2"}, body=b"x", edit=split)
    assert answer.status == 200, answer
    assert raw.request("HEAD", f"/{bucket}/k").headers["x-amz-meta-a"].replace(" ", "") == "1,2"


def test_metadata_of_2_kb_is_accepted_and_more_is_refused(s3, bucket):
    # The sum of the UTF-8 bytes of names (after x-amz-meta-) and values.
    s3.put_object(Bucket=bucket, Key="full", Body=b"x", Metadata={"ab": "v" * 2046})
    with refused("MetadataTooLarge"):
        s3.put_object(Bucket=bucket, Key="over", Body=b"x", Metadata={"ab": "v" * 2047})
    with refused("MetadataTooLarge"):
        s3.put_object(Bucket=bucket, Key="over", Body=b"x", Metadata={f"m{n}": "v" * 100 for n in range(30)})
    with refused("404"):
        s3.head_object(Bucket=bucket, Key="over")
