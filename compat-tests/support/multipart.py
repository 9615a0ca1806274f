"""A multipart upload in progress, as the tests handle one."""

import hashlib


def etag_of_parts(parts):
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(parts)}"'


class Upload:
    def __init__(self, client, bucket, key, **options):
        self.client, self.bucket, self.key = client, bucket, key
        self.created = client.create_multipart_upload(Bucket=bucket, Key=key, **options)
        self.id = self.created["UploadId"]
        self.etags = {}

    @property
    def place(self):
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def _upload(self):
        return self.place | {"UploadId": self.id}

    def put(self, number, body, **options):
        answer = self.client.upload_part(**self._upload, PartNumber=number, Body=body, **options)
        self.etags[number] = answer["ETag"]
        return answer["ETag"]

    def copy(self, number, source, **options):
        answer = self.client.upload_part_copy(**self._upload, PartNumber=number, CopySource=source, **options)
        self.etags[number] = answer["CopyPartResult"]["ETag"]
        return self.etags[number]

    def complete(self, parts=None, **options):
        """Completes with (number, ETag) pairs or dicts; by default with every part sent, in order."""
        parts = parts if parts is not None else sorted(self.etags.items())
        parts = [part if isinstance(part, dict) else {"PartNumber": part[0], "ETag": part[1]} for part in parts]
        return self.client.complete_multipart_upload(**self._upload, MultipartUpload={"Parts": parts}, **options)

    def abort(self):
        return self.client.abort_multipart_upload(**self._upload)

    def list(self, **options):
        return self.client.list_parts(**self._upload, **options)
