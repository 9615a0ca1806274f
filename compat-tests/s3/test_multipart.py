"""Multipart uploads: create, upload, list, complete, abort, and every wrong order of them."""

import hashlib
from datetime import datetime, timezone

import pytest

from support.keys import MIN_PART
from support.multipart import Upload, etag_of_parts
from support.raw import assert_refused
from support.refusal import refused

pytestmark = pytest.mark.op(
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListParts",
    "ListMultipartUploads",
)


@pytest.fixture
def upload(s3, bucket):
    return Upload(s3, bucket, "k")


def test_parts_become_the_object(s3, upload, rng):
    parts = [rng.randbytes(MIN_PART), rng.randbytes(MIN_PART + 1), rng.randbytes(1)]
    for number, body in enumerate(parts, 1):
        assert upload.put(number, body) == f'"{hashlib.md5(body).hexdigest()}"'
    answer = upload.complete()
    assert answer["ETag"] == etag_of_parts(parts)
    assert (answer["Bucket"], answer["Key"]) == (upload.bucket, "k") and answer["Location"].endswith("/k")
    got = s3.get_object(**upload.place)
    assert got["Body"].read() == b"".join(parts) and got["ETag"] == answer["ETag"]
    assert s3.head_object(**upload.place)["ContentLength"] == sum(map(len, parts))
    entry = s3.list_objects_v2(Bucket=upload.bucket)["Contents"][0]
    assert (entry["Size"], entry["ETag"]) == (sum(map(len, parts)), answer["ETag"])


def test_object_appears_only_on_completion(s3, upload):
    upload.put(1, b"x")
    with refused("NoSuchKey"):
        s3.get_object(**upload.place)
    assert s3.list_objects_v2(Bucket=upload.bucket)["KeyCount"] == 0
    upload.complete()
    assert s3.get_object(**upload.place)["Body"].read() == b"x"


def test_part_numbers_need_no_sequence_and_order_decides(s3, upload, rng):
    bodies = {number: rng.randbytes(MIN_PART) for number in (10_000, 7, 300)}
    for number, body in bodies.items():
        upload.put(number, body)
    upload.complete()
    assert s3.get_object(**upload.place)["Body"].read() == bodies[7] + bodies[300] + bodies[10_000]


def test_part_sent_again_replaces_the_first(s3, upload):
    first = upload.put(1, b"first")
    upload.put(1, b"second")
    with refused("InvalidPart"):
        upload.complete([(1, first)])
    upload.complete()
    assert s3.get_object(**upload.place)["Body"].read() == b"second"


def test_parts_left_out_are_dropped(s3, upload):
    upload.put(1, b"unused")
    etag = upload.put(2, b"used")
    upload.complete([(2, etag)])
    assert s3.get_object(**upload.place)["Body"].read() == b"used"


def test_single_empty_part(s3, upload):
    upload.put(1, b"")
    assert upload.complete()["ETag"] == etag_of_parts([b""])
    assert s3.get_object(**upload.place)["Body"].read() == b""


def test_two_uploads_of_one_key_are_separate(s3, bucket):
    one, two = Upload(s3, bucket, "k"), Upload(s3, bucket, "k")
    assert one.id != two.id
    one.put(1, b"one")
    two.put(1, b"two")
    two.complete()
    one.complete()
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"one"


def test_etag_without_quotes_is_accepted(s3, upload):
    etag = upload.put(1, b"x")
    upload.complete([(1, etag.strip('"'))])
    assert s3.head_object(**upload.place)["ContentLength"] == 1


@pytest.mark.op("GetObject", "HeadObject")
def test_part_number_reads_one_part(s3, upload, rng):
    parts = [rng.randbytes(MIN_PART), rng.randbytes(10)]
    for number, body in enumerate(parts, 1):
        upload.put(number, body)
    upload.complete()
    got = s3.get_object(**upload.place, PartNumber=2)
    assert got["Body"].read() == parts[1] and got["PartsCount"] == 2
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert got["ContentRange"] == f"bytes {MIN_PART}-{MIN_PART + 9}/{MIN_PART + 10}"
    head = s3.head_object(**upload.place, PartNumber=1)
    assert (head["ContentLength"], head["PartsCount"]) == (MIN_PART, 2)
    with refused({"InvalidPartNumber", "InvalidPart", "InvalidRange"}, 416):
        s3.get_object(**upload.place, PartNumber=3)


# --- refusals: each leaves the upload as it was ---


def test_part_too_small_is_refused(s3, upload, rng):
    upload.put(1, rng.randbytes(MIN_PART - 1))
    upload.put(2, b"x")
    with refused("EntityTooSmall"):
        upload.complete()
    with refused("404"):
        s3.head_object(**upload.place)
    upload.put(1, rng.randbytes(MIN_PART))
    upload.complete()
    assert s3.head_object(**upload.place)["ContentLength"] == MIN_PART + 1


def test_wrong_order_is_refused(s3, upload, rng):
    etags = [(number, upload.put(number, rng.randbytes(MIN_PART))) for number in (1, 2)]
    for order in ([etags[1], etags[0]], [etags[0], etags[0]]):
        with refused("InvalidPartOrder"):
            upload.complete(order)
    with refused("404"):
        s3.head_object(**upload.place)


def test_part_that_was_never_sent_is_refused(s3, upload, rng):
    etag = upload.put(1, rng.randbytes(MIN_PART))
    for parts in ([(2, etag)], [(1, etag), (3, etag)], [(1, '"' + "0" * 32 + '"')]):
        with refused("InvalidPart"):
            upload.complete(parts)
    with refused("404"):
        s3.head_object(**upload.place)
    upload.complete()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<CompleteMultipartUpload/>",
        b"<CompleteMultipartUpload>",
        b"nonsense",
        b"<CompleteMultipartUpload><Part><PartNumber>x</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>",
    ],
)
def test_malformed_part_list_is_refused(raw, upload, body):
    upload.put(1, b"x")
    answer = raw.request("POST", f"/{upload.bucket}/k", {"uploadId": upload.id}, body=body)
    assert_refused(answer, {"MalformedXML", "InvalidRequest"}, 400)
    assert len(upload.list()["Parts"]) == 1


def test_more_than_10000_parts_are_refused(raw, upload):
    etag = upload.put(1, b"x").strip('"')
    parts = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n in range(1, 10_002))
    body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    answer = raw.request("POST", f"/{upload.bucket}/k", {"uploadId": upload.id}, body=body)
    assert_refused(answer, {"MalformedXML", "InvalidArgument", "InvalidPart", "InvalidRequest"}, 400)


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x"])
def test_part_number_out_of_range_is_refused(raw, upload, number):
    answer = raw.request("PUT", f"/{upload.bucket}/k", {"partNumber": number, "uploadId": upload.id}, body=b"x")
    assert_refused(answer, "InvalidArgument", 400)
    assert "Parts" not in upload.list()


def test_unknown_upload_is_refused(s3, bucket, upload):
    other = {"Bucket": bucket, "Key": "k", "UploadId": "no-such-upload"}
    for call in (
        lambda **place: s3.upload_part(**place, PartNumber=1, Body=b"x"),
        lambda **place: s3.complete_multipart_upload(
            **place, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": "e"}]}
        ),
        s3.list_parts,
        s3.abort_multipart_upload,
    ):
        with refused("NoSuchUpload"):
            call(**other)
        with refused("NoSuchUpload"):  # the right id under another key
            call(**other | {"Key": "other", "UploadId": upload.id})


def test_missing_bucket_is_refused(s3, bucket_names):
    with refused("NoSuchBucket"):
        s3.create_multipart_upload(Bucket=next(bucket_names), Key="k")


def test_aborted_upload_is_gone(s3, upload):
    upload.put(1, b"x")
    assert upload.abort()["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchUpload"):
        upload.put(2, b"y")
    with refused("NoSuchUpload"):
        upload.complete()
    with refused("NoSuchUpload"):
        upload.list()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=upload.bucket)
    with refused("404"):
        s3.head_object(**upload.place)


def test_completed_upload_takes_no_more_parts(s3, upload):
    upload.put(1, b"x")
    upload.complete()
    with refused("NoSuchUpload"):
        upload.put(2, b"y")
    with refused("NoSuchUpload"):
        upload.list()
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=upload.bucket)


def test_completing_again_answers_as_the_first_time(s3, upload):
    upload.put(1, b"x")
    first = upload.complete()
    assert upload.complete()["ETag"] == first["ETag"]
    assert s3.get_object(**upload.place)["Body"].read() == b"x"


def test_racing_completions_agree(upload, pool, s3):
    upload.put(1, b"x")
    answers = list(pool.map(lambda _: upload.complete()["ETag"], range(8)))
    assert set(answers) == {etag_of_parts([b"x"])}
    assert s3.get_object(**upload.place)["Body"].read() == b"x"


@pytest.mark.op("CompleteMultipartUpload")
def test_object_size_named_on_completion_is_checked(s3, upload):
    upload.put(1, b"12345")
    with refused("InvalidRequest"):
        upload.complete(MpuObjectSize=6)
    upload.complete(MpuObjectSize=5)
    assert s3.head_object(**upload.place)["ContentLength"] == 5


# --- lists ---


def test_list_parts_with_markers(s3, upload):
    before = datetime.now(timezone.utc)
    etags = {number: upload.put(number, b"x" * number) for number in (1, 2, 5, 9, 10)}
    listing = upload.list()
    assert (listing["Bucket"], listing["Key"], listing["UploadId"]) == (upload.bucket, "k", upload.id)
    assert listing["StorageClass"] == "STANDARD" and listing["Owner"]["ID"] and listing["Initiator"]["ID"]
    assert [(p["PartNumber"], p["Size"], p["ETag"]) for p in listing["Parts"]] == [(n, n, etags[n]) for n in etags]
    assert all(abs((p["LastModified"] - before).total_seconds()) < 60 for p in listing["Parts"])
    numbers, marker = [], 0
    while True:
        page = upload.list(MaxParts=2, PartNumberMarker=marker)
        assert page["MaxParts"] == 2 and len(page["Parts"]) <= 2
        numbers += [part["PartNumber"] for part in page["Parts"]]
        if not page["IsTruncated"]:
            break
        marker = page["NextPartNumberMarker"]
    assert numbers == list(etags)


def test_list_uploads_with_markers_prefix_and_delimiter(s3, bucket):
    keys = ["a", "a", "b/1", "b/2", "c c", "ü"]
    uploads = [Upload(s3, bucket, key) for key in keys]
    expected = [(upload.key, upload.id) for upload in uploads]
    listing = s3.list_multipart_uploads(Bucket=bucket)
    assert not listing["IsTruncated"]
    found = [(entry["Key"], entry["UploadId"]) for entry in listing["Uploads"]]
    assert sorted(found) == sorted(expected) and [key for key, _ in found] == keys
    assert all(e["Initiated"] and e["Owner"]["ID"] and e["StorageClass"] == "STANDARD" for e in listing["Uploads"])

    for page_size in (1, 2, 4):
        walked, markers = [], {}
        while True:
            page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=page_size, **markers)
            walked += [(entry["Key"], entry["UploadId"]) for entry in page["Uploads"]]
            if not page["IsTruncated"]:
                break
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        assert walked == found, page_size

    listing = s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")
    assert [entry["Key"] for entry in listing["Uploads"]] == ["b/1", "b/2"]
    listing = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [entry["Key"] for entry in listing["Uploads"]] == ["a", "a", "c c", "ü"]
    assert [entry["Prefix"] for entry in listing["CommonPrefixes"]] == ["b/"]
    listing = s3.list_multipart_uploads(Bucket=bucket, KeyMarker="b/1")
    assert [entry["Key"] for entry in listing["Uploads"]] == ["b/2", "c c", "ü"]
