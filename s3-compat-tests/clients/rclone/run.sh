#!/usr/bin/env bash
# rclone, with its settings in the environment.
. "$CLIENTS/expect.sh"

export RCLONE_CONFIG_SG_TYPE=s3 RCLONE_CONFIG_SG_PROVIDER=Other RCLONE_CONFIG_SG_ENDPOINT=$ENDPOINT
export RCLONE_CONFIG_SG_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID RCLONE_CONFIG_SG_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY
export RCLONE_CONFIG_SG_REGION=us-east-1 RCLONE_CONFIG=$PWD/none RCLONE_RETRIES=1 RCLONE_LOW_LEVEL_RETRIES=2
: > none

rclone() {
    /usr/bin/rclone "$@"
}

# transferred COMMAND...: how many files a command of rclone moved; its statistics leave out a zero.
transferred() {
    local said number
    said=$(rclone --stats 1h --stats-log-level NOTICE "$@" 2>&1)
    number=$(sed -n 's|^Transferred: *\([0-9]*\) / [0-9]*, .*|\1|p' <<< "$said" | tail -n 1)
    grep -q '^Elapsed time' <<< "$said"
    echo "${number:-0}"
}

case_buckets() {
    rclone mkdir sg:first
    rclone mkdir sg:second
    equal "the listing" "$(rclone lsf sg:)" $'first/\nsecond/'
    piece 0 10 file
    rclone copyto file sg:first/file
    refused "a bucket with an object" "not empty" rclone rmdir sg:first
    rclone purge sg:first
    rclone rmdir sg:second
    equal "none is left" "$(rclone lsf sg:)" ""
}

case_objects() {
    local length
    rclone mkdir sg:small
    for length in 0 1 1024 1025 65536 1048577 5000001; do
        piece "$length" "$length" file
        rclone copyto file "sg:small/$length"
        rclone copyto "sg:small/$length" got
        same "$length bytes" got file
        equal "the MD5 of $length bytes" "$(rclone md5sum "sg:small/$length" | cut -d ' ' -f 1)" "$(md5_of file)"
    done
    piece 77 4000 file
    rclone rcat 'sg:small/dir/é a+b & c%?*.bin' < file
    rclone cat 'sg:small/dir/é a+b & c%?*.bin' > got
    same "a name that needs encoding, from standard input" got file
    rclone deletefile sg:small/1
    equal "a deleted object" "$(rclone lsf --files-only --include 1 sg:small)" ""
}

case_large() {
    rclone mkdir sg:large
    rclone copyto --s3-chunk-size 32M "$SAMPLE" sg:large/sample
    equal "its length" "$(rclone lsf --format s sg:large/sample)" 1073741824
    rclone cat sg:large/sample | cmp - "$SAMPLE"
    held "1 GiB came back byte for byte"
    rclone --multi-thread-streams 4 copyto sg:large/sample got
    same "and by four streams of ranges" got "$SAMPLE"
    rclone deletefile sg:large/sample
    equal "nothing is left" "$(rclone lsf sg:large)" ""
}

case_multipart() {
    rclone mkdir sg:parts
    piece 3 17000000 file
    rclone --s3-upload-cutoff 5M --s3-chunk-size 5M copyto file sg:parts/file
    rclone copyto sg:parts/file got
    same "four parts" got file
    equal "the MD5 that rclone keeps with them" "$(rclone md5sum sg:parts/file | cut -d ' ' -f 1)" "$(md5_of file)"
    rclone --s3-chunk-size 5M rcat sg:parts/streamed < file
    rclone cat sg:parts/streamed > got
    same "parts of unknown number" got file
    rclone --s3-copy-cutoff 6M copyto sg:parts/file sg:parts/copied
    rclone copyto sg:parts/copied got
    same "a copy in parts" got file
    equal "no upload is left open" "$(rclone backend list-multipart-uploads sg:parts | tr -d ' \n\t')" '{"parts":[]}'
}

case_sync() {
    rclone mkdir sg:tree
    folder here
    equal "the first sync sends all" "$(transferred sync here sg:tree/in)" 60
    equal "the second sends nothing" "$(transferred sync here sg:tree/in)" 0
    rclone check --download here sg:tree/in
    held "both sides are the same"
    piece 99 31337 here/one/file-1.bin
    equal "a changed file is sent again" "$(transferred sync here sg:tree/in)" 1
    rclone sync sg:tree/in there
    diff -r here there
    held "what came back is what went in"
    rm here/file-4.bin
    rclone sync here sg:tree/in
    equal "what is gone is removed" "$(rclone lsf --files-only --include file-4.bin sg:tree/in)" ""
}

case_presign() {
    rclone mkdir sg:links
    piece 5 300000 file
    rclone copyto file 'sg:links/päth/fichier été +&.txt'
    local link
    link=$(rclone link --expire 5m 'sg:links/päth/fichier été +&.txt')
    curl -fsS -o got "$link"
    same "a link to a non-ASCII name" got file
    refused "another object's name in its place" 403 curl -fsS "${link/fichier/autre}"
}

case_ranges() {
    rclone mkdir sg:ranges
    piece 0 3000000 file
    rclone copyto file sg:ranges/file
    check_range() { # OFFSET LENGTH
        piece "$1" "$2" expected
        rclone cat --offset "$1" --count "$2" sg:ranges/file > got
        same "$2 bytes at $1" got expected
    }
    check_range 0 1
    check_range 65530 16
    check_range 1000000 1500001
    check_range 2999990 10
    piece 2999923 77 expected
    rclone cat --tail 77 sg:ranges/file > got
    same "the last 77 bytes" got expected
}

case_copies() {
    rclone mkdir sg:from
    rclone mkdir sg:target
    piece 3 6000000 file
    rclone copyto file 'sg:from/é a+b'
    rclone copyto 'sg:from/é a+b' sg:target/copy
    rclone copyto sg:target/copy got
    same "a copy in another bucket" got file
    rclone moveto sg:target/copy sg:target/moved
    equal "what was moved" "$(rclone lsf sg:target)" moved
    rclone touch --timestamp 2020-02-03T04:05:06 sg:target/moved
    has "a new time, by a copy onto itself" "$(rclone lsl sg:target/moved)" "2020-02-03 04:05:06"
    rclone copyto sg:target/moved got
    same "and the same bytes" got file
}

case_listing() {
    rclone mkdir sg:many
    many files
    rclone copy --no-traverse --transfers 8 files sg:many
    equal "all are listed" "$(rclone lsf -R --files-only sg:many | wc -l)" 1050
    equal "by the first version of listing" "$(rclone --s3-list-version 1 lsf -R --files-only sg:many | wc -l)" 1050
    equal "page by page" "$(rclone --s3-list-chunk 100 lsf -R --files-only sg:many | wc -l)" 1050
    equal "folders by a delimiter" "$(rclone lsf sg:many)" $'a/\nb/'
    has "their number" "$(rclone size sg:many)" 1050
}

case_delete_many() {
    rclone mkdir sg:deletes
    many files
    rclone copy --no-traverse --transfers 8 files sg:deletes
    rclone delete sg:deletes/a
    equal "what a delete of a folder leaves" "$(rclone lsf -R --files-only sg:deletes | wc -l)" 50
    rclone purge sg:deletes
    equal "nothing is left" "$(rclone lsf sg:)" ""
}

case_errors() {
    rclone mkdir sg:errors
    refused "a wrong secret" SignatureDoesNotMatch env RCLONE_CONFIG_SG_SECRET_ACCESS_KEY=wrong /usr/bin/rclone lsf sg:
    refused "a key that nobody has" InvalidAccessKeyId env RCLONE_CONFIG_SG_ACCESS_KEY_ID=NOBODYSACCESSKEY0000 \
        /usr/bin/rclone lsf sg:
    refused "a missing key" "doesn't exist" rclone deletefile sg:errors/missing
    refused "a missing bucket" "not found" rclone lsf sg:missing
}

case_metadata() {
    rclone mkdir sg:meta
    piece 0 100 file
    touch -d '2021-03-04 05:06:07 UTC' file
    rclone copyto --header-upload 'Content-Type: text/x-mine' --header-upload 'Cache-Control: max-age=60' file sg:meta/file
    has "the file's own time" "$(TZ=UTC rclone lsl sg:meta/file)" "2021-03-04 05:06:07"
    local headers
    headers=$(curl -fsS -D - -o got "$(rclone link --expire 5m sg:meta/file)" | tr 'A-Z' 'a-z')
    same "the object" got file
    has "its type" "$headers" "content-type: text/x-mine"
    has "Cache-Control" "$headers" "cache-control: max-age=60"
    has "the time as metadata" "$headers" "x-amz-meta-mtime: 1614834367"
}

case_classes() {
    rclone mkdir sg:classes
    piece 0 200000 file
    rclone --s3-storage-class REDUCED_REDUNDANCY copyto file sg:classes/file
    rclone copyto sg:classes/file got
    same "an object of two copies" got file
    equal "its class in a listing" "$(rclone lsf --format T sg:classes)" REDUCED_REDUNDANCY
    refused "a class that is not configured" InvalidStorageClass rclone --s3-storage-class NO_SUCH_CLASS copyto file sg:classes/x
}

run "$@"
