"""What the boto3 cases check with, and the client that they share."""

import contextlib
import hashlib
import os

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

MIB = 1024 * 1024
SAMPLE = os.environ["SAMPLE"]
PARTS = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)

_checks = 0


def held(what):
    """Counts a check that held."""
    global _checks
    _checks += 1
    print(f"ok {_checks}: {what}")


def checks():
    return _checks


def equal(what, found, expected):
    if found != expected:
        raise AssertionError(f"{what}: found {found!r:.500}, expected {expected!r:.500}")
    held(what)


def true(what, found):
    if not found:
        raise AssertionError(what)
    held(what)


@contextlib.contextmanager
def refused(what, code):
    """The block is refused with an S3 error code (or the status of an answer without a body)."""
    try:
        yield
    except ClientError as error:
        equal(what, error.response["Error"]["Code"], code)
        return
    raise AssertionError(f"{what}: was not refused with {code}")


def client(endpoint=None, access_key=None, secret_key=None, style="path", signature="s3v4", **config):
    """A client of its own session; retries are off, so that what the server says is what a case sees."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint or os.environ["ENDPOINT"],
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(
            signature_version=signature,
            s3={"addressing_style": style},
            retries={"total_max_attempts": 1},
            max_pool_connections=32,
            **config,
        ),
    )


def piece(offset, length):
    """Bytes of the sample."""
    with open(SAMPLE, "rb") as sample:
        sample.seek(offset)
        return sample.read(length)


def read(s3, bucket, key, **parameters):
    return s3.get_object(Bucket=bucket, Key=key, **parameters)["Body"].read()


def etag(content):
    """The ETag of bytes that were put at once."""
    return f'"{hashlib.md5(content).hexdigest()}"'


def joined_etag(*parts):
    """The ETag of a multipart object."""
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(parts)}"'
