"""The cases about large objects and uploads in parts."""

import io
import os
import subprocess

from expect import MIB, PARTS, SAMPLE, client, equal, etag, held, joined_etag, piece, read, refused, true


def case_large(s3):
    s3.create_bucket(Bucket="large")
    s3.upload_file(SAMPLE, "large", "sample", Config=PARTS)
    head = s3.head_object(Bucket="large", Key="sample")
    equal("its length", head["ContentLength"], 1 << 30)
    true("128 parts of 8 MiB", head["ETag"].endswith('-128"'))
    s3.download_file("large", "sample", "got", Config=PARTS)
    subprocess.run(["cmp", "got", SAMPLE], check=True)
    held("1 GiB came back byte for byte, by ranges")
    os.remove("got")
    with open(SAMPLE, "rb") as sample:
        s3.put_object(Bucket="large", Key="at once", Body=sample, ContentLength=1 << 30)
    body = s3.get_object(Bucket="large", Key="at once")["Body"]
    with open(SAMPLE, "rb") as sample:
        while chunk := body.read(4 * MIB):
            if chunk != sample.read(len(chunk)):
                raise AssertionError("the bytes differ")
        equal("nothing is missing", sample.read(1), b"")
    held("1 GiB put at once came back in one stream")


def case_multipart(s3):
    s3.create_bucket(Bucket="parts")
    one, two, three = piece(0, 5 * MIB), piece(7_000_000, 6_000_000), piece(9, 1000)
    s3.put_object(Bucket="parts", Key="source", Body=b"head" + two)
    upload = s3.create_multipart_upload(Bucket="parts", Key="whole", ContentType="text/x-parts", Metadata={"a": "1"})
    where = {"Bucket": "parts", "Key": "whole", "UploadId": upload["UploadId"]}
    tags = {1: s3.upload_part(PartNumber=1, Body=one, **where)["ETag"]}
    equal("a part's ETag", tags[1], etag(one))
    copied = s3.upload_part_copy(
        PartNumber=4, CopySource={"Bucket": "parts", "Key": "source"}, CopySourceRange=f"bytes=4-{len(two) + 3}", **where
    )
    tags[4] = copied["CopyPartResult"]["ETag"]
    equal("a copied part's ETag", tags[4], etag(two))
    s3.upload_part(PartNumber=9, Body=b"to be replaced", **where)
    tags[9] = s3.upload_part(PartNumber=9, Body=three, **where)["ETag"]
    s3.upload_part(PartNumber=10, Body=b"not to be used", **where)
    listed = s3.list_parts(**where)["Parts"]
    sizes = [(p["PartNumber"], p["Size"]) for p in listed]
    equal("the parts are listed", sizes, [(1, 5 * MIB), (4, 6_000_000), (9, 1000), (10, 14)])
    page = s3.list_parts(MaxParts=2, **where)
    equal("in pages", (len(page["Parts"]), page["IsTruncated"], int(page["NextPartNumberMarker"])), (2, True, 4))
    equal("the upload is listed", [u["Key"] for u in s3.list_multipart_uploads(Bucket="parts")["Uploads"]], ["whole"])

    def complete(*parts):
        named = [{"PartNumber": number, "ETag": tag} for number, tag in parts]
        return s3.complete_multipart_upload(MultipartUpload={"Parts": named}, **where)

    with refused("a part that is not there", "InvalidPart"):
        complete((1, tags[1]), (2, tags[1]))
    with refused("a part of another ETag", "InvalidPart"):
        complete((1, tags[9]))
    with refused("parts out of order", "InvalidPartOrder"):
        complete((9, tags[9]), (1, tags[1]))
    with refused("a small part that is not the last", "EntityTooSmall"):
        complete((9, tags[9]), (10, etag(b"not to be used")))
    with refused("it is not visible yet", "404"):
        s3.head_object(Bucket="parts", Key="whole")
    chosen = ((1, tags[1]), (4, tags[4]), (9, tags[9]))
    done = complete(*chosen)
    equal("the ETag of the whole", done["ETag"], joined_etag(one, two, three))
    equal("completing it again says the same", complete(*chosen)["ETag"], done["ETag"])
    equal("the parts in their order", read(s3, "parts", "whole"), one + two + three)
    head = s3.head_object(Bucket="parts", Key="whole", PartNumber=1)
    equal("one part of it", (head["ContentLength"], head["PartsCount"]), (5 * MIB, 3))
    equal("its bytes", read(s3, "parts", "whole", PartNumber=1), one)
    border = read(s3, "parts", "whole", Range=f"bytes={5 * MIB - 10}-{5 * MIB + 9}")
    equal("a range over the border of parts", border, one[-10:] + two[:10])
    head = s3.head_object(Bucket="parts", Key="whole")
    equal("what the upload was created with", (head["ContentType"], head["Metadata"]), ("text/x-parts", {"a": "1"}))

    where["UploadId"] = s3.create_multipart_upload(Bucket="parts", Key="whole")["UploadId"]
    s3.upload_part(PartNumber=1, Body=b"x", **where)
    s3.abort_multipart_upload(**where)
    with refused("an aborted upload", "NoSuchUpload"):
        s3.list_parts(**where)
    with refused("a part of it", "NoSuchUpload"):
        s3.upload_part(PartNumber=2, Body=b"x", **where)
    equal("no upload is left", s3.list_multipart_uploads(Bucket="parts").get("Uploads"), None)
    equal("the object is as it was", read(s3, "parts", "whole"), one + two + three)


def case_checksums(s3):
    s3.create_bucket(Bucket="sums")
    content = piece(0, 200_000)
    for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        name = f"Checksum{algorithm}"
        put = s3.put_object(Bucket="sums", Key=algorithm, Body=content, ChecksumAlgorithm=algorithm)
        got = s3.get_object(Bucket="sums", Key=algorithm, ChecksumMode="ENABLED")
        equal(f"{algorithm}: stored and given back", got[name], put[name])
        equal(f"{algorithm}: the bytes, checked by botocore", got["Body"].read(), content)
        head = s3.head_object(Bucket="sums", Key=algorithm, ChecksumMode="ENABLED")
        equal(f"{algorithm}: its type", (head[name], head["ChecksumType"]), (put[name], "FULL_OBJECT"))
        other = s3.put_object(Bucket="sums", Key="other", Body=b"other", ChecksumAlgorithm=algorithm)[name]
        with refused(f"{algorithm}: of other bytes", "BadDigest"):
            s3.put_object(Bucket="sums", Key="bad", Body=content, **{name: other})
        with refused(f"{algorithm}: that is none", "InvalidRequest"):
            s3.put_object(Bucket="sums", Key="bad", Body=content, **{name: "AAAA"})
        _parts(s3, algorithm, content)
    with refused("nothing bad was stored", "404"):
        s3.head_object(Bucket="sums", Key="bad")
    streamed = client(request_checksum_calculation="when_supported")
    streamed.upload_fileobj(io.BytesIO(content), "sums", "streamed", ExtraArgs={"ChecksumAlgorithm": "SHA256"})
    equal("a streamed body with a trailer", read(streamed, "sums", "streamed", ChecksumMode="ENABLED"), content)
    plain = client(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    plain.put_object(Bucket="sums", Key="plain", Body=content)
    equal("without a checksum", read(plain, "sums", "plain"), content)
    with refused("a Content-MD5 of other bytes", "BadDigest"):
        plain.put_object(Bucket="sums", Key="bad", Body=content, ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    with refused("a Content-MD5 that is none", "InvalidDigest"):
        plain.put_object(Bucket="sums", Key="bad", Body=content, ContentMD5="nonsense")


def _parts(s3, algorithm, content):
    """An upload of two parts with checksums, composite where S3 has that, else over the whole."""
    kind = "FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE"
    name = f"Checksum{algorithm}"
    key = f"parts-{algorithm}"
    upload = s3.create_multipart_upload(Bucket="sums", Key=key, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    where = {"Bucket": "sums", "Key": key, "UploadId": upload["UploadId"]}
    first = content * 30
    parts = []
    for number, body in ((1, first), (2, content)):
        part = s3.upload_part(PartNumber=number, Body=body, ChecksumAlgorithm=algorithm, **where)
        parts.append({"PartNumber": number, "ETag": part["ETag"], name: part[name]})
    wrong = [parts[0], {**parts[1], name: parts[0][name]}]
    with refused(f"{algorithm}: a part of another checksum", "InvalidPart"):
        s3.complete_multipart_upload(MultipartUpload={"Parts": wrong}, **where)
    done = s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, ChecksumType=kind, **where)
    equal(f"{algorithm}: the type of the whole", done["ChecksumType"], kind)
    true(f"{algorithm}: composite ones say how many parts", done[name].endswith("-2") == (kind == "COMPOSITE"))
    head = s3.head_object(Bucket="sums", Key=key, ChecksumMode="ENABLED")
    equal(f"{algorithm}: stored for the whole", (head[name], head["ChecksumType"]), (done[name], kind))
    if kind == "FULL_OBJECT":
        put = s3.put_object(Bucket="sums", Key="whole", Body=first + content, ChecksumAlgorithm=algorithm)
        equal(f"{algorithm}: as of one put", done[name], put[name])
    equal(f"{algorithm}: the bytes", read(s3, "sums", key), first + content)


def case_attributes(s3):
    s3.create_bucket(Bucket="attributes")
    content = piece(0, 200_000)
    put = s3.put_object(Bucket="attributes", Key="file", Body=content, ChecksumAlgorithm="SHA256")
    wanted = ["ETag", "ObjectSize", "StorageClass", "Checksum", "ObjectParts"]
    found = s3.get_object_attributes(Bucket="attributes", Key="file", ObjectAttributes=wanted)
    equal("ETag", found["ETag"], put["ETag"].strip('"'))
    equal("ObjectSize", found["ObjectSize"], 200_000)
    equal("StorageClass", found["StorageClass"], "STANDARD")
    equal("Checksum", found["Checksum"]["ChecksumSHA256"], put["ChecksumSHA256"])
    true("no parts", "ObjectParts" not in found)
    found = s3.get_object_attributes(Bucket="attributes", Key="file", ObjectAttributes=["ObjectSize"])
    true("only what was asked for", "ETag" not in found and "Checksum" not in found)
    s3.upload_fileobj(io.BytesIO(piece(0, 20 * MIB)), "attributes", "parts", Config=PARTS)
    found = s3.get_object_attributes(Bucket="attributes", Key="parts", ObjectAttributes=wanted)
    equal("the number of parts", found["ObjectParts"]["TotalPartsCount"], 3)
    with refused("a missing key", "NoSuchKey"):
        s3.get_object_attributes(Bucket="attributes", Key="missing", ObjectAttributes=wanted)
