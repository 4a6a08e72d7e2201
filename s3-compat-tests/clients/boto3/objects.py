"""The cases about single objects."""

import datetime

from expect import equal, etag, held, piece, read, refused, true


def case_objects(s3):
    s3.create_bucket(Bucket="small")
    for length in (0, 1, 1023, 1024, 1025, 65536, 131073, 1048576, 5000001):
        content = piece(length, length)
        answer = s3.put_object(Bucket="small", Key=str(length), Body=content)
        equal(f"the ETag of {length} bytes", answer["ETag"], etag(content))
        equal(f"{length} bytes", read(s3, "small", str(length)), content)
        equal("their length", s3.head_object(Bucket="small", Key=str(length))["ContentLength"], length)
    content = piece(77, 4000)
    s3.put_object(Bucket="small", Key="1", Body=content)
    equal("an overwritten object", read(s3, "small", "1"), content)
    modified = s3.head_object(Bucket="small", Key="1")["LastModified"]
    age = datetime.datetime.now(datetime.timezone.utc) - modified
    true("it was modified now", abs(age.total_seconds()) < 120)
    s3.delete_object(Bucket="small", Key="1")
    with refused("a deleted object", "NoSuchKey"):
        s3.get_object(Bucket="small", Key="1")
    with refused("its HEAD", "404"):
        s3.head_object(Bucket="small", Key="1")
    s3.delete_object(Bucket="small", Key="1")
    held("deleting it again is no error")
    equal("listed lengths", sum(o["Size"] for o in s3.list_objects_v2(Bucket="small")["Contents"]), 6248258)


KEYS = [
    "a b+c/é/ü.txt",
    "/leading",
    "//two/leading",
    "double//slash",
    "trailing/",
    "..",
    ".",
    "../up",
    "a/../b",
    "./here",
    "100%",
    "%41",
    "%2F",
    "?query=1&b#hash",
    "quote\"and'",
    "<xml>&amp;",
    "emoji 😀",
    "日本語/キー",
    "star*[]{}|\\^`~",
    "plus+plus",
    "equals=",
    "nfc-é",
    "nfd-e\u0301",
    "k" * 1024,
    "é" * 512,
]


def case_keys(s3):
    s3.create_bucket(Bucket="names")
    for number, key in enumerate(KEYS):
        content = piece(number, number * 100 + 1)
        s3.put_object(Bucket="names", Key=key, Body=content)
        equal(f"key {key!r:.40}", read(s3, "names", key), content)
    contents = s3.list_objects_v2(Bucket="names")["Contents"]
    expected = sorted(key.encode() for key in KEYS)
    equal("listed in the order of their bytes", [o["Key"].encode() for o in contents], expected)
    contents = s3.list_objects(Bucket="names")["Contents"]
    equal("by the first version too", [o["Key"].encode() for o in contents], expected)
    for key in KEYS:
        found = s3.list_objects_v2(Bucket="names", Prefix=key)["Contents"]
        equal(f"as a prefix: {key!r:.40}", found[0]["Key"], key)
        s3.copy_object(Bucket="names", Key="copy of " + key[:400], CopySource={"Bucket": "names", "Key": key})
    for key in KEYS:
        s3.delete_object(Bucket="names", Key=key)
    left = [o["Key"] for o in s3.list_objects_v2(Bucket="names")["Contents"]]
    true("only the copies are left", all(key.startswith("copy of ") for key in left))
    with refused("a key of 1,025 bytes", "KeyTooLongError"):
        s3.put_object(Bucket="names", Key="k" * 1025, Body=b"")
    with refused("513 letters of two bytes", "KeyTooLongError"):
        s3.put_object(Bucket="names", Key="é" * 513, Body=b"")


def case_ranges(s3):
    s3.create_bucket(Bucket="ranges")
    content = piece(0, 3_000_000)
    s3.put_object(Bucket="ranges", Key="file", Body=content)
    for text, start, end in [
        ("0-0", 0, 1),
        ("65530-65545", 65530, 65546),
        ("262143-262144", 262143, 262145),
        ("1000000-2500000", 1_000_000, 2_500_001),
        ("2999990-", 2_999_990, 3_000_000),
        ("-77", 2_999_923, 3_000_000),
        ("-9999999", 0, 3_000_000),
        ("2000000-9999999", 2_000_000, 3_000_000),
    ]:
        answer = s3.get_object(Bucket="ranges", Key="file", Range=f"bytes={text}")
        equal(f"Content-Range of {text}", answer["ContentRange"], f"bytes {start}-{end - 1}/3000000")
        equal(f"bytes {text}", answer["Body"].read(), content[start:end])
        equal("the status", answer["ResponseMetadata"]["HTTPStatusCode"], 206)
    with refused("a range behind the end", "InvalidRange"):
        s3.get_object(Bucket="ranges", Key="file", Range="bytes=3000000-")
    with refused("the last no bytes", "InvalidRange"):
        s3.get_object(Bucket="ranges", Key="file", Range="bytes=-0")
    s3.put_object(Bucket="ranges", Key="tiny", Body=content[:100])
    equal("a range of an inline object", read(s3, "ranges", "tiny", Range="bytes=10-19"), content[10:20])
    head = s3.head_object(Bucket="ranges", Key="file", Range="bytes=5-9")
    equal("HEAD of a range", head["ContentLength"], 5)


def case_copies(s3):
    s3.create_bucket(Bucket="from")
    s3.create_bucket(Bucket="target")
    content = piece(3, 6_000_000)
    put = s3.put_object(Bucket="from", Key="é a+b", Body=content, ContentType="text/x-first", Metadata={"color": "red"})
    copied = s3.copy_object(Bucket="target", Key="copy", CopySource={"Bucket": "from", "Key": "é a+b"})
    equal("the copy's ETag", copied["CopyObjectResult"]["ETag"], put["ETag"])
    equal("a copy in another bucket", read(s3, "target", "copy"), content)
    head = s3.head_object(Bucket="target", Key="copy")
    equal("metadata goes along", (head["ContentType"], head["Metadata"]), ("text/x-first", {"color": "red"}))
    source = {"Bucket": "target", "Key": "copy"}
    s3.copy_object(
        Bucket="target", Key="copy", CopySource=source, MetadataDirective="REPLACE", ContentType="text/x-second", Metadata={"a": "1"}
    )
    head = s3.head_object(Bucket="target", Key="copy")
    equal("a copy onto itself replaces it", (head["ContentType"], head["Metadata"]), ("text/x-second", {"a": "1"}))
    equal("and keeps the bytes", read(s3, "target", "copy"), content)
    with refused("a copy onto itself that changes nothing", "InvalidRequest"):
        s3.copy_object(Bucket="target", Key="copy", CopySource=source)
    s3.delete_object(Bucket="from", Key="é a+b")
    equal("the copy outlives its source", read(s3, "target", "copy"), content)
    s3.copy(source, "target", "managed")
    equal("a managed copy", read(s3, "target", "managed"), content)
    with refused("a source that is not there", "NoSuchKey"):
        s3.copy_object(Bucket="target", Key="x", CopySource={"Bucket": "from", "Key": "missing"})
    with refused("a source bucket that is not there", "NoSuchBucket"):
        s3.copy_object(Bucket="target", Key="x", CopySource={"Bucket": "missing", "Key": "missing"})
    with refused("a source of another ETag", "PreconditionFailed"):
        s3.copy_object(Bucket="target", Key="x", CopySource=source, CopySourceIfMatch='"x"')
    with refused("a source of this ETag, not wanted", "PreconditionFailed"):
        s3.copy_object(Bucket="target", Key="x", CopySource=source, CopySourceIfNoneMatch=put["ETag"])


def case_metadata(s3):
    s3.create_bucket(Bucket="meta")
    expires = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    stored = {
        "ContentType": "text/plain; charset=utf-8",
        "CacheControl": "max-age=60",
        "ContentDisposition": "attachment; filename=\"a b.txt\"; filename*=UTF-8''%C3%A9.txt",
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "Metadata": {"one": "1", "two-words": "a b", "empty": ""},
    }
    s3.put_object(Bucket="meta", Key="file", Body=piece(0, 100), Expires=expires, **stored)
    for what, answer in [
        ("HEAD", s3.head_object(Bucket="meta", Key="file")),
        ("GET", s3.get_object(Bucket="meta", Key="file")),
    ]:
        equal(f"{what} gives back what was stored", {name: answer.get(name) for name in stored}, stored)
        equal(f"{what}'s Expires", answer["ResponseMetadata"]["HTTPHeaders"]["expires"], "Wed, 02 Jan 2030 03:04:05 GMT")
    s3.put_object(Bucket="meta", Key="plain", Body=b"x")
    equal("the type of an object without one", s3.head_object(Bucket="meta", Key="plain")["ContentType"], "binary/octet-stream")
    answer = s3.get_object(
        Bucket="meta",
        Key="plain",
        ResponseContentType="text/x-other",
        ResponseCacheControl="no-store",
        ResponseContentDisposition="inline",
        ResponseContentEncoding="identity",
        ResponseContentLanguage="fr",
    )
    equal(
        "overrides in the answer",
        [answer[n] for n in ("ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage")],
        ["text/x-other", "no-store", "inline", "identity", "fr"],
    )
    with refused("metadata over 2 KB", "MetadataTooLarge"):
        s3.put_object(Bucket="meta", Key="big", Body=b"", Metadata={"big": "m" * 2100})


def case_classes(s3):
    s3.create_bucket(Bucket="classes")
    content = piece(0, 2_000_000)
    s3.put_object(Bucket="classes", Key="reduced", Body=content, StorageClass="REDUCED_REDUNDANCY")
    s3.put_object(Bucket="classes", Key="standard", Body=content, StorageClass="STANDARD")
    equal("an object of two copies", read(s3, "classes", "reduced"), content)
    equal("HEAD names its class", s3.head_object(Bucket="classes", Key="reduced")["StorageClass"], "REDUCED_REDUNDANCY")
    equal("HEAD leaves STANDARD out", s3.head_object(Bucket="classes", Key="standard").get("StorageClass"), None)
    listed = [o["StorageClass"] for o in s3.list_objects_v2(Bucket="classes")["Contents"]]
    equal("listings name both", listed, ["REDUCED_REDUNDANCY", "STANDARD"])
    with refused("a class that is not configured", "InvalidStorageClass"):
        s3.put_object(Bucket="classes", Key="x", Body=content, StorageClass="NO_SUCH_CLASS")
    with refused("also for an upload in parts", "InvalidStorageClass"):
        s3.create_multipart_upload(Bucket="classes", Key="x", StorageClass="NO_SUCH_CLASS")
    s3.copy_object(
        Bucket="classes", Key="standard", CopySource="classes/standard", StorageClass="REDUCED_REDUNDANCY"
    )
    head = s3.head_object(Bucket="classes", Key="standard")
    equal("a copy onto itself changes the class", head["StorageClass"], "REDUCED_REDUNDANCY")
    equal("and keeps the bytes", read(s3, "classes", "standard"), content)
