# The cases about single objects.

case_objects() {
    local length
    aws s3 mb s3://small
    for length in 0 1 1023 1024 1025 65536 131073 1048576 5000001; do
        piece "$length" "$length" file
        aws s3 cp --quiet file "s3://small/$length"
        aws s3 cp --quiet "s3://small/$length" got
        same "$length bytes" got file
        equal "the ETag of $length bytes" "$(api head-object --bucket small --key "$length" --query ETag)" "\"$(md5_of file)\""
        rm got
    done
    piece 77 4000 file
    aws s3 cp --quiet - s3://small/1 < file
    aws s3 cp --quiet s3://small/1 got
    same "an overwritten object, from standard input" got file
    aws s3 rm --quiet s3://small/1
    refused "a deleted object" NoSuchKey api get-object --bucket small --key 1 got
    api delete-object --bucket small --key 1
    held "deleting it again is no error"
}

case_keys() {
    local key number=0
    aws s3 mb s3://names
    for key in 'a b+c/é/ü.txt' '/leading' 'double//slash' 'trailing/' '..' '../up' 'a/../b' './here' '100%' '%41' \
        'quote"and'"'" '<xml>&' 'emoji 😀' '日本語/キー' 'star*?#[]' '~tilde' "$(printf 'k%.0s' $(seq 1024))"; do
        number=$((number + 1))
        piece "$number" $((number * 100)) file
        api put-object --bucket names --key "$key" --body file > /dev/null
        api get-object --bucket names --key "$key" got > /dev/null
        same "key $number" got file
        equal "key $number in a listing" \
            "$(api list-objects-v2 --bucket names --prefix "$key" --query 'length(Contents)')" 1
    done
    equal "each is its own object" "$(api list-objects-v2 --bucket names --query 'length(Contents)')" "$number"
    refused "a key of 1,025 bytes" KeyTooLong api put-object --bucket names --body file --key "$(printf 'k%.0s' $(seq 1025))"
}

case_ranges() {
    aws s3 mb s3://ranges
    piece 0 3000000 file
    api put-object --bucket ranges --key file --body file > /dev/null
    check_range() { # RANGE OFFSET LENGTH
        piece "$2" "$3" expected
        equal "Content-Range of $1" "$(api get-object --bucket ranges --key file --range "bytes=$1" got --query ContentRange)" \
            "bytes $2-$(($2 + $3 - 1))/3000000"
        same "bytes $1" got expected
    }
    check_range 0-0 0 1
    check_range 65530-65545 65530 16
    check_range 1000000-2500000 1000000 1500001
    check_range 2999990- 2999990 10
    check_range -77 2999923 77
    check_range 2000000-9999999 2000000 1000000
    refused "a range behind the end" InvalidRange api get-object --bucket ranges --key file --range bytes=3000000- got
}

case_copies() {
    aws s3 mb s3://from
    aws s3 mb s3://target
    piece 3 6000000 file
    aws s3 cp --quiet --content-type text/x-first --metadata color=red file "s3://from/é a+b"
    aws s3 cp --quiet "s3://from/é a+b" s3://target/copy
    aws s3 cp --quiet s3://target/copy got
    same "a copy in another bucket" got file
    equal "metadata goes along" "$(api head-object --bucket target --key copy --query '[ContentType,Metadata.color]')" $'text/x-first\tred'
    api copy-object --bucket target --key copy --copy-source target/copy --metadata-directive REPLACE \
        --content-type text/x-second --metadata shape=round > /dev/null
    equal "a copy onto itself replaces metadata" \
        "$(api head-object --bucket target --key copy --query '[ContentType,Metadata.color,Metadata.shape]')" \
        $'text/x-second\tNone\tround'
    aws s3 cp --quiet s3://target/copy got
    same "and keeps the bytes" got file
    refused "a copy onto itself that changes nothing" InvalidRequest api copy-object --bucket target --key copy --copy-source target/copy
    aws s3 mv --quiet s3://target/copy s3://target/moved
    refused "what was moved is gone" 404 api head-object --bucket target --key copy
    equal "and is there" "$(api head-object --bucket target --key moved --query ContentLength)" 6000000
    refused "a source that is not there" NoSuchKey api copy-object --bucket target --key x --copy-source from/missing
}

case_metadata() {
    aws s3 mb s3://meta
    piece 0 100 file
    api put-object --bucket meta --key file --body file --content-type 'text/plain; charset=utf-8' \
        --cache-control max-age=60 --content-disposition 'attachment; filename="a b.txt"' --content-encoding gzip \
        --content-language de --expires 2030-01-02T03:04:05Z --metadata 'one=1,two-words=a b' > /dev/null
    equal "what was stored with it" "$(api head-object --bucket meta --key file --query \
        '[ContentType,CacheControl,ContentDisposition,ContentEncoding,ContentLanguage,Metadata.one,Metadata."two-words"]')" \
        $'text/plain; charset=utf-8\tmax-age=60\tattachment; filename="a b.txt"\tgzip\tde\t1\ta b'
    has "Expires" "$(api head-object --bucket meta --key file)" 2030
    api put-object --bucket meta --key plain --body file > /dev/null
    equal "the type of an object without one" "$(api head-object --bucket meta --key plain --query ContentType)" binary/octet-stream
    equal "an override in the answer" "$(api get-object --bucket meta --key plain --response-content-type text/x-other \
        --response-cache-control no-store got --query '[ContentType,CacheControl]')" $'text/x-other\tno-store'
    refused "metadata over 2 KB" MetadataTooLarge api put-object --bucket meta --key big --body file \
        --metadata "big=$(printf 'm%.0s' $(seq 2100))"
}

case_classes() {
    aws s3 mb s3://classes
    piece 0 2000000 file
    aws s3 cp --quiet --storage-class REDUCED_REDUNDANCY file s3://classes/reduced
    aws s3 cp --quiet file s3://classes/standard
    aws s3 cp --quiet s3://classes/reduced got
    same "an object of two copies" got file
    equal "HEAD names its class" "$(api head-object --bucket classes --key reduced --query StorageClass)" REDUCED_REDUNDANCY
    equal "HEAD leaves STANDARD out" "$(api head-object --bucket classes --key standard --query StorageClass)" None
    equal "listings name both" "$(api list-objects-v2 --bucket classes --query 'Contents[].StorageClass')" $'REDUCED_REDUNDANCY\tSTANDARD'
    refused "a class that is not configured" InvalidStorageClass api put-object --bucket classes --key x --body file \
        --storage-class NO_SUCH_CLASS
    aws s3 cp --quiet --storage-class REDUCED_REDUNDANCY s3://classes/standard s3://classes/converted
    equal "a copy into another class" "$(api head-object --bucket classes --key converted --query StorageClass)" REDUCED_REDUNDANCY
}

case_conditions() {
    local etag
    aws s3 mb s3://conditions
    piece 0 5000 file
    etag=$(api put-object --bucket conditions --key file --body file --query ETag)
    api get-object --bucket conditions --key file --if-match "$etag" got > /dev/null
    same "If-Match that matches" got file
    refused "If-Match of another" PreconditionFailed api get-object --bucket conditions --key file --if-match '"x"' got
    refused "If-None-Match of this one" 304 api get-object --bucket conditions --key file --if-none-match "$etag" got
    refused "If-Modified-Since now" 304 api head-object --bucket conditions --key file \
        --if-modified-since "$(date -u -d '+1 second' +%Y-%m-%dT%H:%M:%SZ)"
    refused "If-Unmodified-Since long ago" 412 api head-object --bucket conditions --key file \
        --if-unmodified-since 2001-01-01T00:00:00Z
    refused "a copy whose source has changed" PreconditionFailed api copy-object --bucket conditions --key copy \
        --copy-source conditions/file --copy-source-if-match '"x"'
    if [ "$AWS_MAJOR" = 1 ]; then # Debian's v2 is older than conditional writes
        refused "If-None-Match: * where there is one" PreconditionFailed api put-object --bucket conditions --key file \
            --body file --if-none-match '*'
        api put-object --bucket conditions --key new --body file --if-none-match '*' > /dev/null
        refused "If-Match of another, on a write" PreconditionFailed api put-object --bucket conditions --key file \
            --body file --if-match '"x"'
        api put-object --bucket conditions --key file --body file --if-match "$etag" > /dev/null
        held "conditional writes whose condition holds"
    fi
}

case_checksums() {
    local algorithm
    aws s3 mb s3://sums
    piece 0 200000 file
    piece 1 200000 other
    for algorithm in CRC32 SHA1 SHA256; do
        api put-object --bucket sums --key "$algorithm" --body file --checksum-algorithm "$algorithm" > /dev/null
        equal "the stored $algorithm" "$(api head-object --bucket sums --key "$algorithm" --checksum-mode ENABLED \
            --query "Checksum$algorithm")" "$(digest "${algorithm,,}" file)"
    done
    refused "a Content-MD5 of other bytes" BadDigest api put-object --bucket sums --key x --body file \
        --content-md5 "$(digest md5 other)"
    refused "a Content-MD5 that is none" InvalidDigest api put-object --bucket sums --key x --body file --content-md5 nonsense
    refused "nothing was stored" 404 api head-object --bucket sums --key x
}

case_attributes() {
    aws s3 mb s3://attributes
    piece 0 200000 file
    api put-object --bucket attributes --key file --body file --checksum-algorithm SHA256 > /dev/null
    equal "the attributes of an object" "$(api get-object-attributes --bucket attributes --key file \
        --object-attributes ETag ObjectSize StorageClass Checksum --query '[ETag,ObjectSize,StorageClass]')" \
        "$(md5_of file)"$'\t200000\tSTANDARD'
}
