"""The five checksums of S3, as its headers carry them."""

import base64
import hashlib
import zlib
from dataclasses import dataclass
from typing import Callable

from awscrt import checksums as crt


@dataclass(frozen=True)
class Checksum:
    name: str  # as in x-amz-checksum-algorithm
    digest: Callable[[bytes], bytes]
    full_object: bool  # may describe a whole multipart object
    composite: bool  # may be a checksum of the parts' checksums

    def of(self, data):
        return base64.b64encode(self.digest(data)).decode()

    def of_parts(self, parts):
        joined = b"".join(self.digest(part) for part in parts)
        return f"{self.of(joined)}-{len(parts)}"

    @property
    def field(self):
        """Name in boto3's arguments and answers."""
        return f"Checksum{self.name}"

    @property
    def header(self):
        return f"x-amz-checksum-{self.name.lower()}"


def _big_endian(function, size):
    return lambda data: function(data).to_bytes(size, "big")


CRC32 = Checksum("CRC32", _big_endian(zlib.crc32, 4), True, True)
CRC32C = Checksum("CRC32C", _big_endian(crt.crc32c, 4), True, True)
CRC64NVME = Checksum("CRC64NVME", _big_endian(crt.crc64nvme, 8), True, False)
SHA1 = Checksum("SHA1", lambda data: hashlib.sha1(data).digest(), False, True)
SHA256 = Checksum("SHA256", lambda data: hashlib.sha256(data).digest(), False, True)
ALL = [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]


def content_md5(data):
    return base64.b64encode(hashlib.md5(data).digest()).decode()
