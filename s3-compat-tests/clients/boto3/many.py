"""The cases about buckets and many objects."""

import filecmp
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

from expect import equal, held, piece, refused, true


def case_buckets(s3):
    for name in ("first", "second.with-dots", "third"):
        s3.create_bucket(Bucket=name)
    listed = s3.list_buckets()
    equal("all are listed", [b["Name"] for b in listed["Buckets"]], ["first", "second.with-dots", "third"])
    true("with the time of their making", all(b["CreationDate"] for b in listed["Buckets"]))
    s3.head_bucket(Bucket="first")
    equal("the location of us-east-1 is null", s3.get_bucket_location(Bucket="first").get("LocationConstraint"), None)
    for name in ("Upper_Case", "ab", "192.168.1.1", "a..b", "x" * 64):
        with refused(f"the name {name:.20}", "InvalidBucketName"):
            s3.create_bucket(Bucket=name)
    with refused("a bucket that is not there", "404"):
        s3.head_bucket(Bucket="missing")
    s3.put_object(Bucket="first", Key="file", Body=b"x")
    with refused("a bucket with an object", "BucketNotEmpty"):
        s3.delete_bucket(Bucket="first")
    s3.delete_object(Bucket="first", Key="file")
    upload = s3.create_multipart_upload(Bucket="first", Key="open")["UploadId"]
    s3.abort_multipart_upload(Bucket="first", Key="open", UploadId=upload)
    for name in ("first", "second.with-dots", "third"):
        s3.delete_bucket(Bucket=name)
    equal("none is left", s3.list_buckets()["Buckets"], [])
    with refused("deleting one again", "NoSuchBucket"):
        s3.delete_bucket(Bucket="first")
    s3.create_bucket(Bucket="first")
    equal("a new one of the same name is empty", s3.list_objects_v2(Bucket="first")["KeyCount"], 0)


def _fill(s3, bucket):
    keys = [f"a/{number:04}" for number in range(1, 1101)]
    keys += [f"b/{number % 5}/{number:02}" for number in range(50)] + ["b", "c é+&<>", "z/"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=key.encode()), keys))
    return sorted(keys)


def _page_by_page(s3, method, **parameters):
    pages = list(s3.get_paginator(method).paginate(**parameters))
    keys = [o["Key"] for page in pages for o in page.get("Contents", [])]
    prefixes = [p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])]
    return len(pages), keys, prefixes


def case_listing(s3):
    s3.create_bucket(Bucket="many")
    keys = _fill(s3, "many")
    for method in ("list_objects", "list_objects_v2"):
        pages, found, _ = _page_by_page(s3, method, Bucket="many")
        equal(f"{method}: all", (pages, found), (2, keys))
        _, found, _ = _page_by_page(s3, method, Bucket="many", MaxKeys=7)
        equal(f"{method}: by sevens", found, keys)
        _, found, prefixes = _page_by_page(s3, method, Bucket="many", Delimiter="/")
        equal(f"{method}: the top", (found, prefixes), (["b", "c é+&<>"], ["a/", "b/", "z/"]))
        _, found, prefixes = _page_by_page(s3, method, Bucket="many", Delimiter="/", MaxKeys=1)
        equal(f"{method}: the top, one by one", (found, prefixes), (["b", "c é+&<>"], ["a/", "b/", "z/"]))
        _, found, prefixes = _page_by_page(s3, method, Bucket="many", Prefix="b/", Delimiter="/", MaxKeys=2)
        equal(f"{method}: folders in a folder", (found, prefixes), ([], [f"b/{n}/" for n in range(5)]))
        _, found, _ = _page_by_page(s3, method, Bucket="many", Prefix="a/001")
        equal(f"{method}: a prefix", found, [f"a/001{n}" for n in range(10)])
        _, found, prefixes = _page_by_page(s3, method, Bucket="many", Delimiter="00")
        equal(f"{method}: a delimiter of two letters", prefixes[:2], ["a/00", "a/0100"])
        raw = getattr(s3, method)(Bucket="many", MaxKeys=0)
        equal(f"{method}: no keys asked for", (raw.get("Contents"), raw["IsTruncated"]), (None, False))
        raw = getattr(s3, method)(Bucket="many", MaxKeys=5000)
        equal(f"{method}: never more than 1,000", len(raw["Contents"]), 1000)
    found = s3.list_objects_v2(Bucket="many", StartAfter="a/1099", MaxKeys=3)
    equal("StartAfter", [o["Key"] for o in found["Contents"]], ["a/1100", "b", "b/0/00"])
    found = s3.list_objects(Bucket="many", Marker="b/4/49")
    equal("Marker", [o["Key"] for o in found["Contents"]], ["c é+&<>", "z/"])
    true("owners when asked for", "Owner" in s3.list_objects_v2(Bucket="many", FetchOwner=True)["Contents"][0])
    true("none when not", "Owner" not in s3.list_objects_v2(Bucket="many")["Contents"][0])
    equal("an unknown prefix", s3.list_objects_v2(Bucket="many", Prefix="none")["KeyCount"], 0)
    with refused("a token that was not ours", "InvalidArgument"):
        s3.list_objects_v2(Bucket="many", ContinuationToken="\u0001nonsense")
    with refused("a missing bucket", "NoSuchBucket"):
        s3.list_objects_v2(Bucket="missing")


def case_delete_many(s3):
    s3.create_bucket(Bucket="deletes")
    keys = _fill(s3, "deletes")
    batch = keys[:999] + ["missing"]
    answer = s3.delete_objects(Bucket="deletes", Delete={"Objects": [{"Key": key} for key in batch]})
    equal("each is reported, the missing one too", sorted(d["Key"] for d in answer["Deleted"]), sorted(batch))
    true("without errors", not answer.get("Errors"))
    rest = [o["Key"] for o in s3.list_objects_v2(Bucket="deletes")["Contents"]]
    equal("the others are left", rest, keys[999:])
    answer = s3.delete_objects(Bucket="deletes", Delete={"Objects": [{"Key": k} for k in rest], "Quiet": True})
    equal("a quiet one says nothing", (answer.get("Deleted"), answer.get("Errors")), (None, None))
    equal("nothing is left", s3.list_objects_v2(Bucket="deletes")["KeyCount"], 0)
    with refused("1,001 at once", "MalformedXML"):
        s3.delete_objects(Bucket="deletes", Delete={"Objects": [{"Key": str(n)} for n in range(1001)]})
    with refused("none at all", "MalformedXML"):
        s3.delete_objects(Bucket="deletes", Delete={"Objects": []})
    s3.delete_bucket(Bucket="deletes")
    held("the bucket can go")


def _upload_changed(s3, folder):
    """A sync as people write it: what differs in length or ETag is sent."""
    sent = 0
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="tree", Prefix="in/")
    there = {o["Key"]: o["ETag"] for page in pages for o in page.get("Contents", [])}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            key = "in/" + os.path.relpath(path, folder)
            with open(path, "rb") as file:
                digest = f'"{hashlib.md5(file.read()).hexdigest()}"'
            if there.get(key) != digest:
                s3.upload_file(path, "tree", key)
                sent += 1
    return sent


def case_sync(s3):
    s3.create_bucket(Bucket="tree")
    for number in range(60):
        path = f"here/{['', 'one/', 'one/two/', 'with space/'][number % 4]}füü+{number}&.bin"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(piece(number, number * 1000))
    equal("the first sync sends all", _upload_changed(s3, "here"), 60)
    equal("the second sends nothing", _upload_changed(s3, "here"), 0)
    with open("here/füü+4&.bin", "wb") as file:
        file.write(b"changed")
    equal("a changed file is sent again", _upload_changed(s3, "here"), 1)
    count = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="tree"):
        for found in page["Contents"]:
            path = "there/" + found["Key"].removeprefix("in/")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            s3.download_file("tree", found["Key"], path)
            true(f"{path} came back", filecmp.cmp(path, path.replace("there", "here"), shallow=False))
            count += 1
    equal("all of them", count, 60)
