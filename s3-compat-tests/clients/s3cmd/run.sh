#!/usr/bin/env bash
# s3cmd; SIGNATURE is v4 or v2.
. "$CLIENTS/expect.sh"

cat > config << END
[default]
access_key = $AWS_ACCESS_KEY_ID
secret_key = $AWS_SECRET_ACCESS_KEY
host_base = $ADDRESS
host_bucket = $ADDRESS
use_https = False
signature_v2 = $([ "$SIGNATURE" = v2 ] && echo True || echo False)
progress_meter = False
max_retries = 1
END

s3cmd() {
    /usr/bin/s3cmd --config="$PWD/config" "$@"
}

case_buckets() {
    s3cmd mb s3://first
    s3cmd mb s3://second
    has "the listing" "$(s3cmd ls)" s3://second
    piece 0 10 file
    s3cmd put file s3://first/file
    refused "a bucket with an object" BucketNotEmpty s3cmd rb s3://first
    s3cmd rb --recursive --force s3://first
    s3cmd rb s3://second
    equal "none is left" "$(s3cmd ls)" ""
    refused "deleting it again" NoSuchBucket s3cmd rb s3://second
}

case_objects() {
    local length
    s3cmd mb s3://small
    for length in 0 1 1024 1025 65536 1048577 5000001; do
        piece "$length" "$length" file
        s3cmd put file "s3://small/$length"
        s3cmd get --force "s3://small/$length" got
        same "$length bytes" got file
        has "the MD5 of $length bytes" "$(s3cmd ls --list-md5 "s3://small/$length")" "$(md5_of file)"
    done
    piece 77 4000 file
    s3cmd put file 's3://small/é a+b & c%.bin'
    s3cmd get --force 's3://small/é a+b & c%.bin' got
    same "a name that needs encoding" got file
    s3cmd put - s3://small/1 < file
    s3cmd get --force s3://small/1 got
    same "an overwritten object, from standard input" got file
    s3cmd del s3://small/1
    refused "a deleted object" "does not exist" s3cmd get --force s3://small/1 got
}

case_large() {
    s3cmd mb s3://large
    s3cmd put --multipart-chunk-size-mb=32 "$SAMPLE" s3://large/sample
    has "its length" "$(s3cmd ls s3://large)" 1073741824
    s3cmd get s3://large/sample - | cmp - "$SAMPLE"
    held "1 GiB came back byte for byte"
    s3cmd del s3://large/sample
    equal "nothing is left" "$(s3cmd ls s3://large)" ""
}

case_multipart() {
    s3cmd mb s3://parts
    piece 3 17000000 file
    s3cmd put --multipart-chunk-size-mb=5 file s3://parts/file
    s3cmd get --force s3://parts/file got
    same "four parts" got file
    has "its type of a guess" "$(s3cmd info s3://parts/file)" "MIME type: "
    lacks "no upload is left open" "$(s3cmd multipart s3://parts)" s3://parts/file
}

case_sync() {
    s3cmd mb s3://tree
    folder here
    s3cmd sync here/ s3://tree/in/ > first
    equal "the first sync sends all" "$(grep -c '^upload:' first)" 60
    s3cmd sync here/ s3://tree/in/ > second
    lacks "the second sends nothing" "$(cat second)" upload:
    piece 99 31337 here/one/file-1.bin
    equal "a changed file is sent again" "$(s3cmd sync here/ s3://tree/in/ | grep -c '^upload:')" 1
    mkdir there
    s3cmd sync s3://tree/in/ there/ > /dev/null
    diff -r here there
    held "what came back is what went in"
    lacks "nothing is fetched again" "$(s3cmd sync s3://tree/in/ there/)" download:
    rm here/file-4.bin
    has "--delete-removed removes what is gone" "$(s3cmd sync --delete-removed here/ s3://tree/in/)" "delete: 's3://tree/in/file-4.bin'"
}

case_presign() {
    s3cmd mb s3://links
    piece 5 300000 file
    s3cmd put file 's3://links/fichier été.txt'
    local link
    link=$(s3cmd signurl 's3://links/fichier été.txt' +300)
    curl -fsS -o got "$link"
    same "a link to a non-ASCII name" got file
    refused "another object's name in its place" 403 curl -fsS "${link/fichier/autre}"
    has "a link that has run out" "$(curl -sS "$(s3cmd signurl 's3://links/fichier été.txt' 1000000000)")" "<Code>AccessDenied</Code>"
}

case_copies() {
    s3cmd mb s3://from
    s3cmd mb s3://target
    piece 3 6000000 file
    s3cmd put --mime-type=text/x-first file s3://from/file
    s3cmd cp s3://from/file 's3://target/a copy+é'
    s3cmd get --force 's3://target/a copy+é' got
    same "a copy in another bucket" got file
    s3cmd mv 's3://target/a copy+é' s3://target/moved
    s3cmd get --force s3://target/moved got
    same "a moved object" got file
    lacks "the name that it had" "$(s3cmd ls s3://target)" copy
    s3cmd modify --add-header='x-amz-meta-color: red' s3://target/moved
    s3cmd get --force s3://target/moved got
    same "new metadata keeps the bytes" got file
}

case_listing() {
    s3cmd mb s3://many
    many files
    s3cmd put --recursive files/ s3://many/ > /dev/null
    equal "all are listed" "$(s3cmd ls --recursive s3://many | wc -l)" 1050
    equal "folders by a delimiter" "$(s3cmd ls s3://many | grep -c DIR)" 2
    equal "one folder" "$(s3cmd ls s3://many/b/ | wc -l)" 50
    has "their number and size" "$(s3cmd du s3://many)" "1050 objects"
}

case_delete_many() {
    s3cmd mb s3://deletes
    many files
    s3cmd put --recursive files/ s3://deletes/ > /dev/null
    s3cmd del --recursive --force s3://deletes/a/ > /dev/null
    equal "what a recursive delete leaves" "$(s3cmd ls --recursive s3://deletes | wc -l)" 50
}

case_errors() {
    s3cmd mb s3://errors
    piece 0 100 file
    refused "a wrong secret" SignatureDoesNotMatch s3cmd --secret_key=wrong ls
    refused "a key that nobody has" InvalidAccessKeyId s3cmd --access_key=NOBODYSACCESSKEY0000 ls
    refused "a missing key" "does not exist" s3cmd get --force s3://errors/missing got
    refused "a missing bucket" NoSuchBucket s3cmd put file s3://missing/x
    refused "a missing bucket's listing" NoSuchBucket s3cmd ls s3://missing
}

case_metadata() {
    s3cmd mb s3://meta
    piece 0 100 file
    s3cmd put --mime-type=text/x-mine --add-header='Cache-Control: max-age=60' --add-header='x-amz-meta-color: red' \
        file s3://meta/file
    local headers
    headers=$(curl -fsS -D - -o got "$(s3cmd signurl s3://meta/file +300)" | tr 'A-Z' 'a-z')
    same "the object" got file
    has "its type" "$headers" "content-type: text/x-mine"
    has "Cache-Control" "$headers" "cache-control: max-age=60"
    has "its metadata" "$headers" "x-amz-meta-color: red"
    has "what s3cmd keeps about the file" "$headers" "x-amz-meta-s3cmd-attrs:"
}

case_classes() {
    s3cmd mb s3://classes
    piece 0 200000 file
    s3cmd put --storage-class=REDUCED_REDUNDANCY file s3://classes/file
    s3cmd get --force s3://classes/file got
    same "an object of two copies" got file
    has "its class in a listing" "$(s3cmd ls --long-listing s3://classes)" REDUCED_REDUNDANCY
    refused "a class that is not configured" InvalidStorageClass s3cmd put --storage-class=NO_SUCH_CLASS file s3://classes/x
}

run "$@"
