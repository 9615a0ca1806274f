"""POST Object: uploads by HTML form with a signed policy.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
"""

import base64
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

import pytest

from support.form import BOUNDARY, Form, form
from support.raw import assert_refused

pytestmark = pytest.mark.op("PostObject")


@pytest.fixture
def upload(raw, bucket):
    return Form(raw, bucket)


def assert_nothing_stored(s3, bucket):
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_file_is_stored(s3, bucket, upload, rng):
    body = rng.randbytes(100_000)
    upload.add("Content-Type", "text/x-form").add("x-amz-meta-a", "1")
    answer = upload.post(body)
    assert answer.status == 204 and answer.body == b"", answer
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == body and got["ETag"] == answer.headers["etag"]
    assert (got["ContentType"], got["Metadata"]) == ("text/x-form", {"a": "1"})


def test_form_made_by_boto3(s3, raw, bucket):
    made = s3.generate_presigned_post(bucket, "k", Conditions=[["content-length-range", 1, 10]])
    assert Form(raw, bucket).post(b"hello", made["fields"]).status == 204
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hello"


@pytest.mark.parametrize("status", ["200", "201", "204", "299"])
def test_success_status_is_chosen_by_the_form(bucket, upload, status):
    answer = upload.add("success_action_status", status).post()
    assert answer.status == (int(status) if status in ("200", "201") else 204)
    if status == "201":
        document = answer.xml
        assert document.tag == "PostResponse"
        assert (document.findtext("Bucket"), document.findtext("Key"), document.findtext("ETag")) == (
            bucket,
            "k",
            answer.headers["etag"],
        )
        assert document.findtext("Location").endswith("/k")
    else:
        assert answer.body == b""


def test_success_redirect(s3, bucket, upload):
    answer = upload.add("success_action_redirect", "http://localhost/done").post()
    assert answer.status == 303, answer
    target = urlsplit(answer.headers["location"])
    assert (target.netloc, target.path) == ("localhost", "/done")
    query = parse_qs(target.query)
    assert (query["bucket"], query["key"]) == ([bucket], ["k"])
    assert query["etag"][0].strip('"') == s3.head_object(Bucket=bucket, Key="k")["ETag"].strip('"')


def test_file_name_is_put_into_the_key(s3, bucket, upload):
    upload.fields["key"] = "user/${filename}"
    assert upload.post(file_name="ä b.txt").status == 204
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["user/ä b.txt"]


def test_names_of_fields_have_no_case(s3, bucket, upload):
    fields = {name.title() if name != "key" else "KEY": value for name, value in upload.signed_fields().items()}
    assert upload.post(fields=fields).status == 204
    s3.head_object(Bucket=bucket, Key="k")


def test_empty_file(s3, bucket, upload):
    assert upload.post(b"").status == 204
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 0


def test_fields_after_the_file_are_ignored(s3, bucket, upload):
    assert upload.post(after="submit").status == 204
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"hello"


def test_file_with_lines_like_the_boundary(s3, bucket, upload):
    body = f"\r\n--{BOUNDARY[:-1]}\r\n-\r\n--\r\n".encode() * 5000
    assert upload.post(body).status == 204
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body


def test_64_mib_are_streamed(s3, bucket, upload, rng):
    piece = rng.randbytes(1024 * 1024)
    assert upload.post([piece] * 64).status == 204
    stored = s3.get_object(Bucket=bucket, Key="k")["Body"]
    assert all(stored.read(len(piece)) == piece for _ in range(64)) and stored.read() == b""


# --- refusals ---


@pytest.mark.parametrize("limits, code", [((0, 4), "EntityTooLarge"), ((6, 100), "EntityTooSmall"), ((5, 5), None)])
def test_size_limits_of_the_policy(s3, bucket, upload, limits, code):
    upload.conditions.append(["content-length-range", *limits])
    answer = upload.post(b"hello")
    if code:
        assert_refused(answer, code, 400)
        assert_nothing_stored(s3, bucket)
    else:
        assert answer.status == 204


def test_large_file_over_the_limit_is_refused(s3, bucket, upload, rng):
    upload.conditions.append(["content-length-range", 0, 1024 * 1024])
    piece = rng.randbytes(1024 * 1024)
    assert_refused(upload.post([piece] * 8), "EntityTooLarge", 400)
    assert_nothing_stored(s3, bucket)


def test_wrong_signature_is_refused(s3, bucket, upload):
    assert_refused(
        upload.post(fields=upload.signed_fields() | {"x-amz-signature": "0" * 64}), "SignatureDoesNotMatch", 403
    )
    assert_nothing_stored(s3, bucket)


def test_changed_policy_is_refused(s3, bucket, upload):
    signed = upload.signed_fields()
    upload.expiration += timedelta(hours=1)
    changed = upload.signed_fields() | {"x-amz-signature": signed["x-amz-signature"]}
    assert_refused(upload.post(fields=changed), "SignatureDoesNotMatch", 403)
    assert_nothing_stored(s3, bucket)


def test_unknown_access_key_is_refused(s3, bucket, upload):
    fields = upload.signed_fields()
    fields["x-amz-credential"] = "NOSUCHACCESSKEY00001/" + fields["x-amz-credential"].split("/", 1)[1]
    assert_refused(upload.post(fields=fields), "InvalidAccessKeyId", 403)
    assert_nothing_stored(s3, bucket)


def test_expired_policy_is_refused(s3, bucket, upload):
    upload.expiration = datetime.now(timezone.utc) - timedelta(minutes=1)
    assert_refused(upload.post(), "AccessDenied", 403)
    assert_nothing_stored(s3, bucket)


def test_field_against_its_condition_is_refused(s3, bucket, upload):
    upload.conditions.append(["starts-with", "$key", "user/"])
    assert_refused(upload.post(), "AccessDenied", 403)
    upload.add("x-amz-meta-a", "1").fields["x-amz-meta-a"] = "2"
    upload.fields["key"] = "user/k"
    assert_refused(upload.post(), "AccessDenied", 403)
    assert_nothing_stored(s3, bucket)


def test_field_without_a_condition_is_refused(s3, bucket, upload):
    upload.fields["x-amz-meta-a"] = "1"
    assert_refused(upload.post(), "AccessDenied", 403)
    assert_nothing_stored(s3, bucket)


def test_condition_without_its_field_is_refused(s3, bucket, upload):
    upload.conditions.append({"Content-Type": "text/plain"})
    assert_refused(upload.post(), "AccessDenied", 403)
    assert_nothing_stored(s3, bucket)


def test_fields_named_x_ignore_need_no_condition(s3, bucket, upload):
    upload.fields["x-ignore-this"] = "1"
    assert upload.post().status == 204


def test_policy_of_another_bucket_is_refused(s3, bucket, make_bucket, upload):
    upload.conditions[0] = {"bucket": make_bucket()}
    assert_refused(upload.post(), "AccessDenied", 403)
    assert_nothing_stored(s3, bucket)


@pytest.mark.parametrize(
    "document", ["not json", "{}", '{"expiration": "soon", "conditions": []}', '{"conditions": []}']
)
def test_malformed_policy_is_refused(s3, bucket, upload, document):
    policy = base64.b64encode(document.encode()).decode()
    fields = upload.signed_fields() | {"policy": policy, "x-amz-signature": upload.signer.sign(policy)}
    assert_refused(upload.post(fields=fields), {"InvalidPolicyDocument", "AccessDenied"}, {400, 403})
    assert_nothing_stored(s3, bucket)


def test_form_without_file_or_key_is_refused(s3, bucket, upload):
    assert_refused(upload.post(None), {"InvalidArgument", "IncorrectNumberOfFilesInPostRequest"}, 400)
    fields = upload.signed_fields()
    del fields["key"]
    assert_refused(upload.post(fields=fields), {"InvalidArgument", "UserKeyMustBeSpecified"}, 400)
    assert_nothing_stored(s3, bucket)


def test_form_without_a_signature_is_refused(s3, bucket, upload):
    assert_refused(upload.post(fields={"key": "k"}), "AccessDenied", 403)
    assert_nothing_stored(s3, bucket)


def test_form_without_its_end_is_refused(s3, bucket, upload):
    answer = upload.send(form(upload.signed_fields(), b"hello")[:-1])
    assert 400 <= answer.status < 500, answer
    assert_nothing_stored(s3, bucket)


def test_wrong_content_type_is_refused(raw, s3, bucket):
    for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded"):
        answer = raw.send(
            "POST",
            f"/{bucket}",
            [("host", raw.endpoint.netloc), ("content-type", kind), ("content-length", "3")],
            b"a=b",
        )
        assert 400 <= answer.status < 500, answer
    assert_nothing_stored(s3, bucket)
