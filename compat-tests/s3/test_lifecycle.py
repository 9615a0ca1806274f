"""PutBucketLifecycleConfiguration, Get, Delete, and the headers that tell what the rules will do."""

import datetime
import re

import pytest

from support.multipart import Upload
from support.refusal import refused

pytestmark = pytest.mark.op(
    "PutBucketLifecycleConfiguration", "GetBucketLifecycleConfiguration", "DeleteBucketLifecycle"
)

UTC = datetime.timezone.utc


def put(s3, bucket, *rules, **more):
    return s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}, **more
    )


def rule(id="rule", **parts):
    return {"ID": id, "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}} | parts


def rules_of(s3, bucket):
    return s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]


def midnight(year, month, day):
    return datetime.datetime(year, month, day, tzinfo=UTC)


def test_rules_are_answered_as_they_were_given(s3, bucket):
    rules = [
        rule("prefix", Filter={"Prefix": "a/"}),
        rule("all", Filter={}),
        rule("tag", Filter={"Tag": {"Key": "k", "Value": "v"}}, Expiration={"Date": midnight(2030, 1, 1)}),
        rule("larger", Filter={"ObjectSizeGreaterThan": 500}),
        rule("smaller", Filter={"ObjectSizeLessThan": 64000}, Status="Disabled"),
        rule(
            "and",
            Filter={
                "And": {
                    "Prefix": "b/",
                    "Tags": [{"Key": "x", "Value": "1"}, {"Key": "y", "Value": ""}],
                    "ObjectSizeGreaterThan": 1,
                    "ObjectSizeLessThan": 9,
                }
            },
        ),
        rule("marker", Filter={"Prefix": "m/"}, Expiration={"ExpiredObjectDeleteMarker": True}),
        {
            "ID": "noncurrent",
            "Status": "Enabled",
            "Filter": {"Prefix": "n/"},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 3, "NewerNoncurrentVersions": 2},
            "NoncurrentVersionTransitions": [{"NoncurrentDays": 30, "StorageClass": "STANDARD_IA"}],
        },
        {
            "ID": "uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        rule("moves", Transitions=[{"Days": 30, "StorageClass": "STANDARD_IA"}], Expiration={"Days": 60}),
    ]
    put(s3, bucket, *rules)
    assert rules_of(s3, bucket) == rules


def test_rules_of_the_first_form_keep_their_prefix(s3, bucket):
    old = {"ID": "old", "Status": "Enabled", "Prefix": "a/", "Expiration": {"Days": 1}}
    put(s3, bucket, old)
    assert rules_of(s3, bucket) == [old]


def test_a_rule_without_an_id_gets_one(s3, bucket):
    plain = rule()
    del plain["ID"]
    put(s3, bucket, plain, plain | {"Filter": {"Prefix": "a"}})
    ids = [found["ID"] for found in rules_of(s3, bucket)]
    assert all(ids) and len(set(ids)) == 2


def test_put_replaces_and_delete_removes(s3, bucket):
    with refused("NoSuchLifecycleConfiguration", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    put(s3, bucket, rule("one"), rule("two", Filter={"Prefix": "x"}))
    put(s3, bucket, rule("three"))
    assert [found["ID"] for found in rules_of(s3, bucket)] == ["three"]
    for _ in range(2):
        answer = s3.delete_bucket_lifecycle(Bucket=bucket)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchLifecycleConfiguration", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_the_minimum_size_of_moves_is_echoed(s3, bucket):
    name = "TransitionDefaultMinimumObjectSize"
    assert put(s3, bucket, rule())[name] == "all_storage_classes_128K"
    assert put(s3, bucket, rule(), **{name: "varies_by_storage_class"})[name] == "varies_by_storage_class"
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)[name] == "varies_by_storage_class"


TAGGED = {"Tag": {"Key": "k", "Value": "v"}}


@pytest.mark.parametrize(
    "code, rules",
    [
        ("MalformedXML", [rule(Status="enabled")]),
        ("MalformedXML", [rule(Filter={"Prefix": "p"} | TAGGED)]),
        ("MalformedXML", [rule(Expiration={"Days": 1, "Date": midnight(2030, 1, 1)})]),
        ("MalformedXML", [{"ID": "r", "Status": "Enabled", "Expiration": {"Days": 1}}]),
        ("InvalidArgument", [rule("i" * 256)]),
        ("InvalidArgument", [rule("same"), rule("same", Filter={"Prefix": "x"})]),
        ("InvalidArgument", [rule(Expiration={"Days": 0})]),
        ("InvalidArgument", [rule(Expiration={"Days": -1})]),
        ("InvalidArgument", [rule(Expiration={"Date": midnight(2030, 1, 1) + datetime.timedelta(hours=1)})]),
        ("InvalidArgument", [rule(NoncurrentVersionExpiration={"NoncurrentDays": 0})]),
        ("InvalidArgument", [rule(AbortIncompleteMultipartUpload={"DaysAfterInitiation": 0})]),
        ("InvalidArgument", [rule(Transitions=[{"Days": 29, "StorageClass": "STANDARD_IA"}])]),
        ("InvalidRequest", [rule(Filter=TAGGED, Expiration={"ExpiredObjectDeleteMarker": True})]),
        ("InvalidRequest", [rule(Filter=TAGGED, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1})]),
        ("InvalidRequest", [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": ""}}]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rules_that_s3_refuses(s3, bucket, code, rules):
    with refused(code):
        put(s3, bucket, *rules)
    with refused("NoSuchLifecycleConfiguration", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_a_thousand_rules_and_no_more(s3, bucket):
    rules = [rule(f"{number}", Filter={"Prefix": f"{number}/"}) for number in range(1001)]
    with refused({"InvalidRequest", "MalformedXML"}):
        put(s3, bucket, *rules)
    put(s3, bucket, *rules[:1000])
    assert len(rules_of(s3, bucket)) == 1000


def test_a_document_without_a_digest_is_refused(raw, bucket):
    body = b"<LifecycleConfiguration><Rule><Status>Enabled</Status></Rule></LifecycleConfiguration>"
    answer = raw.request("PUT", f"/{bucket}", {"lifecycle": ""}, body=body)
    assert (answer.status, answer.code) == (400, "InvalidRequest"), answer


# --- headers ---


def expiry(answer):
    """Date and rule of x-amz-expiration."""
    found = re.fullmatch(r'expiry-date="(.*)", rule-id="(.*)"', answer["Expiration"])
    date = datetime.datetime.strptime(found[1], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    return date, found[2]


def next_midnight(days):
    """The midnights at which something of now may expire, as the clock may pass one meanwhile."""
    now = datetime.datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return {today + datetime.timedelta(days=days + more) for more in (0, 1)}


@pytest.fixture
def ruled(s3, bucket):
    put(
        s3,
        bucket,
        rule("a rule", Filter={"Prefix": "a/"}, Expiration={"Days": 3}),
        rule("later", Filter={"Prefix": "a/"}, Expiration={"Days": 9}),
        rule("tag", Filter=TAGGED, Expiration={"Date": midnight(2090, 1, 1)}),
        {
            "ID": "uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": "u/"},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2},
        },
    )
    return bucket


@pytest.mark.op("PutObject", "GetObject", "HeadObject", "CopyObject")
def test_objects_tell_when_they_expire(s3, ruled):
    place = {"Bucket": ruled, "Key": "a/k"}
    answers = [
        s3.put_object(**place, Body=b"x"),
        s3.get_object(**place),
        s3.head_object(**place),
        s3.copy_object(Bucket=ruled, Key="a/copy", CopySource=place),
    ]
    for answer in answers:
        date, id = expiry(answer)
        assert date in next_midnight(4) | next_midnight(3) and id == "a%20rule", answer["Expiration"]
    assert "Expiration" not in s3.put_object(Bucket=ruled, Key="b/k", Body=b"x")
    assert "Expiration" not in s3.head_object(Bucket=ruled, Key="b/k")


@pytest.mark.op("PutObject", "HeadObject", "PutObjectTagging")
def test_rules_by_tag_follow_the_tags(s3, ruled):
    place = {"Bucket": ruled, "Key": "k"}
    assert expiry(s3.put_object(**place, Body=b"x", Tagging="k=v")) == (midnight(2090, 1, 1), "tag")
    s3.put_object_tagging(**place, Tagging={"TagSet": [{"Key": "k", "Value": "other"}]})
    assert "Expiration" not in s3.head_object(**place)


@pytest.mark.op("CreateMultipartUpload", "CompleteMultipartUpload", "ListParts")
def test_uploads_tell_when_they_are_aborted(s3, ruled):
    upload = s3.create_multipart_upload(Bucket=ruled, Key="u/k")
    listed = s3.list_parts(Bucket=ruled, Key="u/k", UploadId=upload["UploadId"])
    for answer in (upload, listed):
        assert answer["AbortDate"] in next_midnight(3) | next_midnight(2)
        assert answer["AbortRuleId"] == "uploads"
    assert "AbortDate" not in s3.create_multipart_upload(Bucket=ruled, Key="k")
    parts = Upload(s3, ruled, "a/parts")
    parts.put(1, b"x")
    assert expiry(parts.complete())[1] == "a%20rule"
