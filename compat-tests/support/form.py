"""Browser uploads: multipart/form-data with a signed policy."""

import base64
import json
from datetime import datetime, timedelta, timezone

BOUNDARY = "----compat-form-boundary"


def form(fields, file, file_name="a.txt", file_type="text/x-file", after=None):
    """The form's bytes, in pieces: S3 reads no field that comes `after` the file."""
    head = "".join(_part(f'name="{name}"', value) + "\r\n" for name, value in fields.items())
    if file is None:
        return [f"{head}--{BOUNDARY}--\r\n".encode()]
    head += _part(f'name="file"; filename="{file_name}"\r\nContent-Type: {file_type}', "")
    pieces = [file] if isinstance(file, bytes) else list(file)
    tail = "\r\n" + _part(f'name="{after}"', "value") if after else ""
    return [head.encode(), *pieces, f"{tail}\r\n--{BOUNDARY}--\r\n".encode()]


def _part(disposition, value):
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}"


class Form:
    """A form for one bucket: fields and policy conditions, signed when posted."""

    def __init__(self, raw, bucket):
        self.raw, self.bucket = raw, bucket
        self.signer = raw.signer()
        self.expiration = datetime.now(timezone.utc) + timedelta(minutes=10)
        self.fields = {"key": "k"}
        self.conditions = [{"bucket": bucket}, ["starts-with", "$key", ""]]

    def add(self, name, value):
        self.fields[name] = value
        self.conditions.append({name: value})
        return self

    def signed_fields(self):
        given = {
            "x-amz-algorithm": "AWS4-HMAC-SHA256",
            "x-amz-credential": self.signer.credential,
            "x-amz-date": self.signer.moment,
        }
        document = {
            "expiration": self.expiration.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "conditions": self.conditions + [{name: value} for name, value in given.items()],
        }
        policy = base64.b64encode(json.dumps(document).encode()).decode()
        return self.fields | given | {"policy": policy, "x-amz-signature": self.signer.sign(policy)}

    def post(self, file=b"hello", fields=None, **names):
        return self.send(form(self.signed_fields() if fields is None else fields, file, **names))

    def send(self, pieces):
        pairs = [
            ("host", self.raw.endpoint.netloc),
            ("content-type", f"multipart/form-data; boundary={BOUNDARY}"),
            ("content-length", str(sum(map(len, pieces)))),
        ]
        return self.raw.send("POST", f"/{self.bucket}", pairs, pieces)
