"""x-osproxy-uid: every version has one, on PUT, HEAD and GET."""

import pytest

from support.multipart import Upload


def uid(answer):
    value = answer["ResponseMetadata"]["HTTPHeaders"]["x-osproxy-uid"]
    assert 0 < int(value) < 2**63 and value == str(int(value))
    return int(value)


@pytest.mark.op("PutObject", "HeadObject", "GetObject")
def test_put_head_and_get_agree(s3, bucket):
    place = {"Bucket": bucket, "Key": "k"}
    first = uid(s3.put_object(**place, Body=b"x"))
    assert uid(s3.head_object(**place)) == uid(s3.get_object(**place)) == first
    assert uid(s3.get_object(**place, Range="bytes=0-0")) == first
    second = uid(s3.put_object(**place, Body=b"x"))
    assert second != first and uid(s3.head_object(**place)) == second


@pytest.mark.op("CompleteMultipartUpload", "CopyObject")
def test_every_way_to_make_a_version_gives_it_a_uid(s3, bucket):
    upload = Upload(s3, bucket, "parts")
    upload.put(1, b"x")
    upload.complete()
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=upload.place)
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    uids = [uid(s3.head_object(Bucket=bucket, Key=key)) for key in ("parts", "copy", "plain")]
    assert len(set(uids)) == 3
