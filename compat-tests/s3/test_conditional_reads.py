"""If-Match, If-None-Match, If-Modified-Since and If-Unmodified-Since on reads: the truth table."""

from datetime import timedelta, timezone
from email.utils import format_datetime

import pytest

from support.raw import assert_refused

pytestmark = pytest.mark.op("GetObject", "HeadObject")

WRONG = '"' + "0" * 32 + '"'


def table(etag, modified):
    """(headers, status): every pair that S3's documentation of GetObject and RFC 9110, section 13.2.2 decide."""
    modified = modified.astimezone(timezone.utc)
    earlier = format_datetime(modified - timedelta(hours=1), usegmt=True)
    same = format_datetime(modified, usegmt=True)
    later = format_datetime(modified + timedelta(seconds=1), usegmt=True)
    match, none_match = "if-match", "if-none-match"
    since, unmodified = "if-modified-since", "if-unmodified-since"
    return [
        ({match: etag}, 200),
        ({match: etag.strip('"')}, 200),
        ({match: WRONG}, 412),
        ({match: "*"}, 200),
        ({none_match: etag}, 304),
        ({none_match: WRONG}, 200),
        ({none_match: "*"}, 304),
        ({since: earlier}, 200),
        ({since: same}, 304),
        ({unmodified: earlier}, 412),
        ({unmodified: same}, 200),
        ({unmodified: later}, 200),
        # If-Match decides over If-Unmodified-Since, If-None-Match over If-Modified-Since.
        ({match: etag, unmodified: earlier}, 200),
        ({match: WRONG, unmodified: later}, 412),
        ({none_match: etag, since: earlier}, 304),
        ({none_match: WRONG, since: same}, 200),
        # A failed If-Match comes before a matching If-None-Match.
        ({match: WRONG, none_match: etag}, 412),
        ({match: etag, none_match: etag}, 304),
        ({since: "not a date"}, 200),
        ({unmodified: "not a date"}, 200),
    ]


def test_truth_table(s3, raw, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"hello")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    wrong = []
    for headers, status in table(etag, modified):
        for method in ("GET", "HEAD"):
            answer = raw.request(method, f"/{bucket}/k", headers=headers)
            if answer.status != status:
                wrong.append((method, headers, status, answer.status))
            elif status == 200 and method == "GET":
                assert answer.body == b"hello"
            elif status == 304:
                assert answer.body == b"" and answer.headers["etag"] == etag
            elif status == 412 and method == "GET":
                assert answer.code == "PreconditionFailed"
    assert not wrong, "\n".join(map(str, wrong))


def test_not_modified_has_no_checksum(s3, raw, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ChecksumAlgorithm="SHA256")["ETag"]
    answer = raw.request("GET", f"/{bucket}/k", headers={"if-none-match": etag, "x-amz-checksum-mode": "ENABLED"})
    assert answer.status == 304 and "x-amz-checksum-sha256" not in answer.headers


def test_condition_is_asked_before_the_range(s3, raw, bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"hello")["ETag"]
    answer = raw.request("GET", f"/{bucket}/k", headers={"if-match": WRONG, "range": "bytes=99-"})
    assert_refused(answer, "PreconditionFailed", 412)
    answer = raw.request("GET", f"/{bucket}/k", headers={"if-match": etag, "range": "bytes=1-2"})
    assert answer.status == 206 and answer.body == b"el"


def test_condition_on_a_missing_key_is_not_found(raw, bucket):
    for headers in ({"if-match": WRONG}, {"if-none-match": "*"}):
        assert_refused(raw.request("GET", f"/{bucket}/missing", headers=headers), "NoSuchKey", 404)
