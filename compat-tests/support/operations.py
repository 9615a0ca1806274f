"""Every S3 operation, as the Amazon S3 API reference lists them, and what is known to be missing of those here.

Left out: the four that the reference marks as no longer used (GetBucketLifecycle, PutBucketLifecycle,
GetBucketNotification, PutBucketNotification) are the same requests as their successors. Added: the two of browsers,
PostObject and OptionsObject (the CORS preflight), which the reference describes and does not list.
"""

_REPORTS = ("Analytics", "IntelligentTiering", "Inventory", "Metrics")

OPERATIONS = sorted(
    """
    AbortMultipartUpload CompleteMultipartUpload CopyObject CreateBucket CreateBucketMetadataConfiguration
    CreateBucketMetadataTableConfiguration CreateMultipartUpload CreateSession DeleteBucket DeleteBucketCors
    DeleteBucketEncryption DeleteBucketLifecycle DeleteBucketMetadataConfiguration
    DeleteBucketMetadataTableConfiguration DeleteBucketOwnershipControls DeleteBucketPolicy DeleteBucketReplication
    DeleteBucketTagging DeleteBucketWebsite DeleteObject DeleteObjectAnnotation DeleteObjectTagging DeleteObjects
    DeletePublicAccessBlock GetBucketAbac GetBucketAccelerateConfiguration GetBucketAcl GetBucketCors
    GetBucketEncryption GetBucketLifecycleConfiguration GetBucketLocation GetBucketLogging
    GetBucketMetadataConfiguration GetBucketMetadataTableConfiguration GetBucketNotificationConfiguration
    GetBucketOwnershipControls GetBucketPolicy GetBucketPolicyStatus GetBucketReplication GetBucketRequestPayment
    GetBucketTagging GetBucketVersioning GetBucketWebsite GetObject GetObjectAcl GetObjectAnnotation
    GetObjectAttributes GetObjectLegalHold GetObjectLockConfiguration GetObjectRetention GetObjectTagging
    GetObjectTorrent GetPublicAccessBlock HeadBucket HeadObject ListBuckets ListDirectoryBuckets ListMultipartUploads
    ListObjectAnnotations ListObjectVersions ListObjects ListObjectsV2 ListParts OptionsObject PostObject
    PutBucketAbac PutBucketAccelerateConfiguration PutBucketAcl PutBucketCors PutBucketEncryption
    PutBucketLifecycleConfiguration PutBucketLogging PutBucketNotificationConfiguration PutBucketOwnershipControls
    PutBucketPolicy PutBucketReplication PutBucketRequestPayment PutBucketTagging PutBucketVersioning
    PutBucketWebsite PutObject PutObjectAcl PutObjectAnnotation PutObjectLegalHold PutObjectLockConfiguration
    PutObjectRetention PutObjectTagging PutPublicAccessBlock RenameObject RestoreObject SelectObjectContent
    UpdateBucketMetadataAnnotationTableConfiguration UpdateBucketMetadataInventoryTableConfiguration
    UpdateBucketMetadataJournalTableConfiguration UpdateObjectEncryption UploadPart UploadPartCopy
    WriteGetObjectResponse
    """.split()
    + [f"{verb}Bucket{report}Configuration" for verb in ("Put", "Get", "Delete") for report in _REPORTS]
    + [f"ListBucket{report}Configurations" for report in _REPORTS]
)

# What tests that pass do not show: the part of an operation that is not there.
PARTIAL = {
    "PutBucketVersioning": "no MFA delete",
    "PutBucketLifecycleConfiguration": "transitions move nothing",
    "PutBucketRequestPayment": "only that the owner pays",
    "PutBucketAccelerateConfiguration": "only to suspend it",
    "RestoreObject": "nothing is ever in an archive",
    "GetBucketReplication": "there never is one",
    "DeleteBucketReplication": "there never is one",
    **{f"{verb}Bucket{report}Configuration": "there never is one" for verb in ("Get", "Delete") for report in _REPORTS},
    **{f"ListBucket{report}Configurations": "there never is one" for report in _REPORTS},
}
