"""What a refused call through boto3 must look like."""

from contextlib import contextmanager

import pytest
from botocore.exceptions import ClientError

HTTP_STATUS = {  # of the codes that the suite expects, from the S3 API's list of error codes
    "AccessDenied": 403,
    "SignatureDoesNotMatch": 403,
    "InvalidAccessKeyId": 403,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "NoSuchTagSet": 404,
    "NoSuchConfiguration": 404,
    "NoSuchCORSConfiguration": 404,
    "NoSuchWebsiteConfiguration": 404,
    "ReplicationConfigurationNotFoundError": 404,
    "InvalidObjectState": 403,
    "MethodNotAllowed": 405,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "ConditionalRequestConflict": 409,
    "PreconditionFailed": 412,
    "InvalidRange": 416,
    "InvalidPartNumber": 416,
    "NotImplemented": 501,
}


@contextmanager
def refused(code, status=None):
    """The block must fail with this S3 code (or one of a set) and its status; yields the caught error."""
    codes = {code} if isinstance(code, str) else set(code)
    with pytest.raises(ClientError) as caught:
        yield caught
    response = caught.value.response
    got = response["Error"]["Code"]
    got_status = response["ResponseMetadata"]["HTTPStatusCode"]
    assert got in codes, f"expected {' or '.join(sorted(codes))}, got {got_status} {response['Error']}"
    expected = status or (int(got) if got.isdigit() else HTTP_STATUS.get(got, 400))
    assert got_status == expected, f"{got} came with status {got_status}, not {expected}"
