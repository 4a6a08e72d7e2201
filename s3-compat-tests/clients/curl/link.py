"""Prints a presigned link: link.py VERSION METHOD BUCKET KEY [NAME=VALUE ...]

VERSION is v4 or v2, METHOD one of boto3's (get_object, put_object, head_object). NAME=VALUE are
parameters of the method; seconds=N is how long the link holds, endpoint=URL replaces the pool's own.
"""

import os
import sys

import boto3
from botocore.config import Config

version, method, bucket, key = sys.argv[1:5]
parameters = dict(argument.split("=", 1) for argument in sys.argv[5:])
seconds = int(parameters.pop("seconds", "300"))
endpoint = parameters.pop("endpoint", os.environ["ENDPOINT"])
style = parameters.pop("style", "path")
config = Config(
    signature_version={"v4": "s3v4", "v2": "s3"}[version],
    s3={"addressing_style": style},
    request_checksum_calculation="when_required",
)
client = boto3.client("s3", endpoint_url=endpoint, config=config)
print(
    client.generate_presigned_url(
        method, Params={"Bucket": bucket, "Key": key, **parameters}, ExpiresIn=seconds
    )
)
