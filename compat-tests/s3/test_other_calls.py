"""Calls about what a bucket never has here: answered as for a bucket without it, or as not implemented."""

import pytest

from support.raw import assert_refused
from support.refusal import refused

KINDS = {
    "analytics": "Analytics",
    "inventory": "Inventory",
    "metrics": "Metrics",
    "intelligent-tiering": "IntelligentTiering",
}
OWNERS_ONLY = [
    ("GET", "requestPayment"),
    ("GET", "accelerate"),
    ("GET", "replication"),
    ("DELETE", "replication"),
    ("GET", "analytics"),
    ("GET", "metrics"),
    ("GET", "inventory"),
    ("GET", "intelligent-tiering"),
    ("PUT", "replication"),
    ("GET", "metadataTable"),
]


@pytest.mark.op("GetBucketRequestPayment", "PutBucketRequestPayment")
def test_the_owner_pays(s3, raw, bucket):
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "BucketOwner"})
    body = b"<RequestPaymentConfiguration><Payer>Nobody</Payer></RequestPaymentConfiguration>"
    assert_refused(raw.request("PUT", f"/{bucket}", [("requestPayment", "")], body=body), "MalformedXML", 400)
    with refused("NotImplemented"):
        s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "Requester"})
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"


@pytest.mark.op("PutObject", "GetObject", "ListObjectsV2")
def test_requester_who_would_pay_need_not(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x", RequestPayer="requester")
    assert "RequestCharged" not in put
    assert "RequestCharged" not in s3.get_object(Bucket=bucket, Key="k", RequestPayer="requester")
    assert s3.list_objects_v2(Bucket=bucket, RequestPayer="requester")["KeyCount"] == 1


@pytest.mark.op("GetBucketAccelerateConfiguration", "PutBucketAccelerateConfiguration")
def test_transfers_are_not_accelerated(s3, bucket):
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    with refused("NotImplemented"):
        s3.put_bucket_accelerate_configuration(Bucket=bucket, AccelerateConfiguration={"Status": "Enabled"})
    with refused("MalformedXML"):
        s3.put_bucket_accelerate_configuration(Bucket=bucket, AccelerateConfiguration={"Status": "Fast"})
    s3.put_bucket_accelerate_configuration(Bucket=bucket, AccelerateConfiguration={"Status": "Suspended"})
    assert s3.get_bucket_accelerate_configuration(Bucket=bucket)["Status"] == "Suspended"


@pytest.mark.op("GetBucketReplication", "DeleteBucketReplication")
@pytest.mark.unsupported("PutBucketReplication")
def test_nothing_is_replicated(s3, bucket):
    with refused("ReplicationConfigurationNotFoundError"):
        s3.get_bucket_replication(Bucket=bucket)
    assert s3.delete_bucket_replication(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    rule = {"Status": "Enabled", "Prefix": "", "Destination": {"Bucket": "arn:aws:s3:::other"}}
    with refused("NotImplemented"):
        s3.put_bucket_replication(
            Bucket=bucket, ReplicationConfiguration={"Role": "arn:aws:iam::1:role/r", "Rules": [rule]}
        )


@pytest.mark.op(
    *(f"{verb}Bucket{kind}Configuration" for verb in ("Get", "Delete") for kind in KINDS.values()),
    *(f"ListBucket{kind}Configurations" for kind in KINDS.values()),
)
@pytest.mark.unsupported(*(f"PutBucket{kind}Configuration" for kind in KINDS.values()))
@pytest.mark.parametrize("name", KINDS)
def test_no_reports_are_made(s3, raw, bucket, name):
    kind = name.replace("-", "_")
    empty = getattr(s3, f"list_bucket_{kind}_configurations")(Bucket=bucket)
    assert empty["IsTruncated"] is False
    assert not [field for field in empty if field.endswith("List")] and "ContinuationToken" not in empty
    for call in ("get", "delete"):
        with refused("NoSuchConfiguration"):
            getattr(s3, f"{call}_bucket_{kind}_configuration")(Bucket=bucket, Id="report")
    assert_refused(raw.request("PUT", f"/{bucket}", [(name, ""), ("id", "report")], body=b"<x/>"), "NotImplemented", 501)


@pytest.mark.op("RestoreObject")
def test_nothing_has_to_be_restored(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="GLACIER")
    with refused("NoSuchKey"):
        s3.restore_object(Bucket=bucket, Key="missing", RestoreRequest={"Days": 1})
    with refused("InvalidObjectState") as caught:
        s3.restore_object(Bucket=bucket, Key="k", RestoreRequest={"Days": 1})
    assert "Restore is not allowed" in str(caught.value)


NOT_IMPLEMENTED = [
    # The call, method, path below the bucket, query
    ("CreateBucketMetadataConfiguration", "POST", "", "metadataConfiguration"),
    ("GetBucketMetadataConfiguration", "GET", "", "metadataConfiguration"),
    ("DeleteBucketMetadataConfiguration", "DELETE", "", "metadataConfiguration"),
    ("CreateBucketMetadataTableConfiguration", "POST", "", "metadataTable"),
    ("GetBucketMetadataTableConfiguration", "GET", "", "metadataTable"),
    ("DeleteBucketMetadataTableConfiguration", "DELETE", "", "metadataTable"),
    ("UpdateBucketMetadataAnnotationTableConfiguration", "PUT", "", "metadataAnnotationTable"),
    ("UpdateBucketMetadataInventoryTableConfiguration", "PUT", "", "metadataInventoryTable"),
    ("UpdateBucketMetadataJournalTableConfiguration", "PUT", "", "metadataJournalTable"),
    ("GetBucketAbac", "GET", "", "abac"),
    ("PutBucketAbac", "PUT", "", "abac"),
    ("CreateSession", "GET", "", "session"),
    ("GetObjectTorrent", "GET", "/k", "torrent"),
    ("SelectObjectContent", "POST", "/k", "select&select-type=2"),
    ("RenameObject", "PUT", "/k", "renameObject"),
    ("UpdateObjectEncryption", "PUT", "/k", "encryption"),
    ("PutObjectAnnotation", "PUT", "/k", "annotation&annotationName=a"),
    ("GetObjectAnnotation", "GET", "/k", "annotation&annotationName=a"),
    ("DeleteObjectAnnotation", "DELETE", "/k", "annotation&annotationName=a"),
    ("ListObjectAnnotations", "GET", "/k", "annotation"),
]


@pytest.mark.parametrize(
    "method, path, query",
    [pytest.param(*case[1:], id=case[0], marks=pytest.mark.unsupported(case[0])) for case in NOT_IMPLEMENTED],
)
def test_not_implemented(s3, raw, bucket, method, path, query):
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept")
    query = [pair.partition("=")[::2] for pair in query.split("&")]
    for body in (b"", b"<x/>"):
        answer = raw.request(method, f"/{bucket}{path}", query, body=body)
        assert_refused(answer, "NotImplemented", 501)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"kept"


@pytest.mark.unsupported("ListDirectoryBuckets", "WriteGetObjectResponse")
def test_calls_of_no_bucket_are_not_implemented(raw):
    answer = raw.request("GET", "/", [("x-id", "ListDirectoryBuckets"), ("max-directory-buckets", "5")])
    assert_refused(answer, "NotImplemented", 501)
    headers = {"x-amz-request-route": "r", "x-amz-request-token": "t"}
    assert_refused(raw.request("POST", "/WriteGetObjectResponse", headers=headers, body=b"x"), "NotImplemented", 501)


@pytest.mark.op("DeleteBucket", "DeleteObject", "PutObject", "CreateBucket")
def test_a_sub_resource_is_not_the_thing_itself(s3, raw, bucket, bucket_names):
    missing = next(bucket_names)
    for method, path, name in [
        ("DELETE", bucket, "logging"),
        ("DELETE", bucket, "versioning"),
        ("DELETE", f"{bucket}/k", "acl"),
        ("PUT", f"{bucket}/k", "attributes"),
        ("PUT", f"{bucket}/k", "torrent"),
        ("PUT", f"{bucket}/k", "uploadId"),
        ("PUT", missing, "location"),
        ("GET", f"{bucket}/k", "restore"),
    ]:
        answer = raw.request(method, f"/{path}", [(name, "")], body=b"x" if method == "PUT" else b"")
        assert_refused(answer, "MethodNotAllowed", 405)
        assert answer.xml.findtext("Method") == method
    s3.head_bucket(Bucket=bucket)
    with refused("404"):
        s3.head_bucket(Bucket=missing)


@pytest.mark.parametrize("method, name", OWNERS_ONLY)
def test_the_calls_are_the_owners(raw, stranger, bucket, method, name):
    from support.raw import Raw

    assert_refused(Raw(stranger).request(method, f"/{bucket}", [(name, "")]), "AccessDenied", 403)
    assert_refused(raw.request(method, f"/{bucket}", [(name, "")], anonymous=True), "AccessDenied", 403)
