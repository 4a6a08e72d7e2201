"""The cases about signatures, conditions, host names and requests that are refused."""

import datetime
import http.client
import os
import socket
from urllib.parse import urlsplit

from expect import client, equal, etag, held, piece, read, refused, true

NAME = "päth/fichier été +&.txt"


def _fetch(url, method="GET", body=None):
    """The status, headers and body of a request that says nothing but what the link does."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request(method, f"{parts.path}?{parts.query}", body=body)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def case_presign(_):
    content = piece(5, 300_000)
    for signature in ("s3v4", "s3", None):
        s3 = client(signature=signature)
        bucket = f"links-{signature or 'default'}"
        s3.create_bucket(Bucket=bucket)
        url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": NAME}, ExpiresIn=300)
        status, _, answer = _fetch(url, "PUT", content)
        equal(f"{signature}: a PUT by a link", (status, answer), (200, b""))
        disposition = "attachment; filename*=UTF-8''fichier%20%C3%A9t%C3%A9.txt"
        url = s3.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": NAME, "ResponseContentDisposition": disposition}
        )
        status, headers, answer = _fetch(url)
        equal(f"{signature}: a GET by a link", (status, answer), (200, content))
        equal(f"{signature}: the name to save it under", headers["Content-Disposition"], disposition)
        equal(f"{signature}: another key", _fetch(url.replace("fichier", "autre", 1))[0], 403)
        url = s3.generate_presigned_url("delete_object", Params={"Bucket": bucket, "Key": NAME})
        equal(f"{signature}: a DELETE by a link", _fetch(url, "DELETE")[0], 204)
        if signature == "s3v4":  # a V2 link to a bucket signs another path than it asks for
            url = s3.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket, "Prefix": "päth/"})
            equal(f"{signature}: a listing by a link", _fetch(url)[0], 200)


def case_conditions(s3):
    s3.create_bucket(Bucket="conditions")
    content = piece(0, 5000)
    tag = s3.put_object(Bucket="conditions", Key="file", Body=content)["ETag"]
    modified = s3.head_object(Bucket="conditions", Key="file")["LastModified"]
    hour = datetime.timedelta(hours=1)
    where = {"Bucket": "conditions", "Key": "file"}
    equal("If-Match that matches", read(s3, "conditions", "file", IfMatch=tag), content)
    for what, parameters, code in [
        ("If-Match of another", {"IfMatch": '"x"'}, "PreconditionFailed"),
        ("If-None-Match of this one", {"IfNoneMatch": tag}, "304"),
        ("If-None-Match: *", {"IfNoneMatch": "*"}, "304"),
        ("If-Modified-Since then", {"IfModifiedSince": modified}, "304"),
        ("If-Unmodified-Since before", {"IfUnmodifiedSince": modified - hour}, "PreconditionFailed"),
        ("If-None-Match outweighs the time", {"IfNoneMatch": tag, "IfModifiedSince": modified - hour}, "304"),
    ]:
        with refused(what, code):
            s3.get_object(**where, **parameters)
    for what, parameters in [
        ("If-None-Match of another", {"IfNoneMatch": '"x"'}),
        ("If-Modified-Since before", {"IfModifiedSince": modified - hour}),
        ("If-Unmodified-Since then", {"IfUnmodifiedSince": modified}),
        ("If-Match outweighs the time", {"IfMatch": tag, "IfUnmodifiedSince": modified - hour}),
    ]:
        equal(what, s3.get_object(**where, **parameters)["Body"].read(), content)
    with refused("a write where there is one", "PreconditionFailed"):
        s3.put_object(**where, Body=b"new", IfNoneMatch="*")
    with refused("a write over another", "PreconditionFailed"):
        s3.put_object(**where, Body=b"new", IfMatch='"x"')
    with refused("a write over none", "NoSuchKey"):
        s3.put_object(Bucket="conditions", Key="missing", Body=b"new", IfMatch=tag)
    s3.put_object(**where, Body=b"new", IfMatch=tag)
    equal("a write over this one", read(s3, "conditions", "file"), b"new")
    s3.put_object(Bucket="conditions", Key="first", Body=b"first", IfNoneMatch="*")
    equal("a write where there is none", read(s3, "conditions", "first"), b"first")
    upload = s3.create_multipart_upload(**where)["UploadId"]
    part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"parts")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    with refused("completing an upload where there is one", "PreconditionFailed"):
        s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts, IfNoneMatch="*")
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts, IfMatch=etag(b"new"))
    equal("completing it over the one that is there", read(s3, "conditions", "file"), b"parts")


def case_errors(s3):
    s3.create_bucket(Bucket="errors")
    with refused("a wrong secret", "SignatureDoesNotMatch"):
        client(access_key=os.environ["AWS_ACCESS_KEY_ID"], secret_key="wrong").list_buckets()
    with refused("the same by V2", "SignatureDoesNotMatch"):
        client(access_key=os.environ["AWS_ACCESS_KEY_ID"], secret_key="wrong", signature="s3").list_buckets()
    with refused("a key that nobody has", "InvalidAccessKeyId"):
        client(access_key="NOBODYSACCESSKEY0000", secret_key="wrong").list_buckets()
    with refused("a missing key", "NoSuchKey"):
        s3.get_object(Bucket="errors", Key="missing")
    with refused("a missing bucket", "NoSuchBucket"):
        s3.put_object(Bucket="missing", Key="x", Body=b"x")
    with refused("an upload that is not there", "NoSuchUpload"):
        s3.upload_part(Bucket="errors", Key="x", PartNumber=1, UploadId="nothing-like-it", Body=b"x")
    upload = s3.create_multipart_upload(Bucket="errors", Key="x")["UploadId"]
    for number in (0, 10_001):
        with refused(f"part {number}", "InvalidArgument"):
            s3.upload_part(Bucket="errors", Key="x", PartNumber=number, UploadId=upload, Body=b"x")
    with refused("no parts at all", "MalformedXML"):
        s3.complete_multipart_upload(Bucket="errors", Key="x", UploadId=upload, MultipartUpload={"Parts": []})
    answer = s3.head_bucket(Bucket="errors")["ResponseMetadata"]
    true("each answer has an id", answer["RequestId"])
    true("of its own", answer["RequestId"] != s3.head_bucket(Bucket="errors")["ResponseMetadata"]["RequestId"])


def case_virtual_hosts(s3):
    base, port = os.environ["HOST_NAME"], os.environ["PORT"]
    resolve = socket.getaddrinfo

    def loopback(host, *arguments, **named):
        """What a wildcard in the operator's DNS does."""
        if host == base or host.endswith("." + base):
            host = "127.0.0.1"
        return resolve(host, *arguments, **named)

    socket.getaddrinfo = loopback
    content = piece(41, 100_000)
    s3.create_bucket(Bucket="by-path")
    s3.put_object(Bucket="by-path", Key="a file", Body=content)
    for signature in ("s3v4", "s3"):
        hosted = client(endpoint=f"http://{base}:{port}", style="virtual", signature=signature)
        equal(f"{signature}: an object", read(hosted, "by-path", "a file"), content)
        bucket = f"by-name-{signature}"
        hosted.create_bucket(Bucket=bucket)
        hosted.put_object(Bucket=bucket, Key="é/a b", Body=content)
        equal(f"{signature}: a listing", hosted.list_objects_v2(Bucket=bucket)["Contents"][0]["Key"], "é/a b")
        equal(f"{signature}: the same by path", read(s3, bucket, "é/a b"), content)
        url = hosted.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "é/a b"})
        true(f"{signature}: a link names the bucket in its host", f"//{bucket}.{base}:{port}/" in url)
        equal(f"{signature}: the link", _fetch(url)[2], content)
        with refused(f"{signature}: a missing bucket", "NoSuchBucket"):
            hosted.list_objects_v2(Bucket="missing")
    held("buckets are also found by name")
