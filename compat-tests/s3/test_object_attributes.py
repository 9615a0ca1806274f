"""GetObjectAttributes."""

import pytest

from support.keys import MIN_PART
from support.refusal import refused

pytestmark = pytest.mark.op("GetObjectAttributes")
ALL = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]


def test_attributes_of_a_simple_object(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ChecksumAlgorithm="SHA256")
    answer = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL)
    assert answer["ETag"] == put["ETag"].strip('"')
    assert answer["ObjectSize"] == 5 and answer["StorageClass"] == "STANDARD" and answer["LastModified"]
    assert answer["Checksum"]["ChecksumSHA256"] == put["ChecksumSHA256"]
    assert answer["Checksum"]["ChecksumType"] == "FULL_OBJECT"
    assert "ObjectParts" not in answer


def test_only_what_was_asked_for_is_answered(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    answer = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectSize"])
    assert answer["ObjectSize"] == 5
    assert not {"ETag", "Checksum", "ObjectParts", "StorageClass"} & set(answer)


def test_parts_with_pages(s3, bucket, rng):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256")["UploadId"]
    sizes, parts = [MIN_PART, MIN_PART + 1, 7], []
    for number, size in enumerate(sizes, 1):
        part = s3.upload_part(
            Bucket=bucket,
            Key="k",
            UploadId=upload,
            PartNumber=number,
            Body=rng.randbytes(size),
            ChecksumAlgorithm="SHA256",
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})

    answer = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL)
    assert answer["ObjectSize"] == sum(sizes) and answer["ETag"].endswith("-3")
    assert answer["Checksum"]["ChecksumType"] == "COMPOSITE"
    found = answer["ObjectParts"]
    assert found["TotalPartsCount"] == 3 and found["IsTruncated"] is False
    assert [(p["PartNumber"], p["Size"], p["ChecksumSHA256"]) for p in found["Parts"]] == [
        (p["PartNumber"], size, p["ChecksumSHA256"]) for p, size in zip(parts, sizes)
    ]

    page = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL, MaxParts=2)["ObjectParts"]
    assert page["IsTruncated"] and [p["PartNumber"] for p in page["Parts"]] == [1, 2]
    page = s3.get_object_attributes(
        Bucket=bucket, Key="k", ObjectAttributes=ALL, MaxParts=2, PartNumberMarker=int(page["NextPartNumberMarker"])
    )["ObjectParts"]
    assert not page["IsTruncated"] and [p["PartNumber"] for p in page["Parts"]] == [3]


def test_missing_key_and_unknown_attribute_are_refused(s3, raw, bucket):
    with refused("NoSuchKey"):
        s3.get_object_attributes(Bucket=bucket, Key="missing", ObjectAttributes=ALL)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    answer = raw.request("GET", f"/{bucket}/k", [("attributes", "")], {"x-amz-object-attributes": "Bogus"})
    assert answer.status == 400 and answer.code == "InvalidArgument", answer
