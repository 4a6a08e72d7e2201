#!/usr/bin/env bash
# curl: with links that boto3 signed, and with its own --aws-sigv4.
. "$CLIENTS/expect.sh"

link() {
    "$PYTHON" "$CLIENTS/curl/link.py" "$@"
}

# signed ARGUMENT... PATH: a request that curl signs itself. Debian's leaves out the header that S3 asks for.
signed() {
    curl -sS --path-as-is -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
        "${@:1:$#-1}" "$ENDPOINT${*: -1}"
}

# status ARGUMENT...: the status alone.
status() {
    curl -sS -o /dev/null -w '%{http_code}' "$@"
}

put_file() { # LENGTH KEY
    piece 11 "$1" file
    equal "a PUT of $1 bytes" "$(status -T file "$(link v4 put_object bucket "$2")")" 200
}

# broken LINK: the same with another signature of the same form.
broken() {
    sed -E 's/(Signature=)(..)(..)/\1\3\2/' <<< "$1"
}

make_bucket() {
    equal "a new bucket" "$(signed -o answer -w '%{http_code}' -X PUT /bucket)" 200
}

case_presigned_get() {
    local version name='päth/fichier été +&.txt' url headers
    make_bucket
    put_file 300000 "$name"
    for version in v4 v2; do
        url=$(link $version get_object bucket "$name")
        curl -fsS -o got "$url"
        same "a $version link" got file
        equal "HEAD by a link for GET is refused ($version)" "$(status -I "$url")" 403
        equal "a link for HEAD ($version)" "$(status -I "$(link $version head_object bucket "$name")")" 200
        equal "another name in its place ($version)" "$(status "${url/fichier/autre}")" 403
        has "a broken signature ($version)" "$(curl -sS "$(broken "$url")")" "<Code>SignatureDoesNotMatch</Code>"
        url=$(link $version get_object bucket "$name" \
            ResponseContentDisposition="attachment; filename*=UTF-8''fichier%20%C3%A9t%C3%A9.txt" ResponseContentType=text/x-other)
        headers=$(curl -fsS -D - -o got "$url")
        same "a link with overrides ($version)" got file
        has "the name to save it under ($version)" "${headers,,}" "content-disposition: attachment; filename*=utf-8''fichier%20%c3%a9t%c3%a9.txt"
        has "the type that the link asks for ($version)" "${headers,,}" "content-type: text/x-other"
        equal "an override that was not signed ($version)" "$(status "$url&response-cache-control=no-store")" 403
        url=$(link $version get_object bucket "$name" seconds=1)
        sleep 3
        has "a link that has run out ($version)" "$(curl -sS "$url")" "<Code>AccessDenied</Code>"
    done
    url=$(link v4 get_object bucket "$name")
    (cd "$PWD" && curl -fsS -OJ "$(link v4 get_object bucket "$name" ResponseContentDisposition='attachment; filename="saved.bin"')")
    same "saved under the name that the server says" saved.bin file
    equal "a link for longer than seven days" "$(status "$(link v4 get_object bucket "$name" seconds=700000)")" 400
}

case_presigned_put() {
    local url
    make_bucket
    piece 21 2000000 file
    for version in v4 v2; do
        url=$(link $version put_object bucket "put $version")
        equal "a PUT by a link ($version)" "$(status -T file "$url")" 200
        curl -fsS -o got "$(link $version get_object bucket "put $version")"
        same "what it stored ($version)" got file
        equal "GET by a link for PUT ($version)" "$(status "$url")" 403
        equal "an unsigned copy source ($version)" "$(status -X PUT -H 'x-amz-copy-source: /bucket/other' "$url")" 403
    done
    url=$(link v4 put_object bucket typed ContentType=text/x-mine)
    equal "another type than the link has signed" "$(status -T file -H 'Content-Type: text/x-other' "$url")" 403
    equal "the signed type" "$(status -T file -H 'Content-Type: text/x-mine' "$url")" 200
    has "is stored" "$(curl -sS -D - -o got "$(link v4 get_object bucket typed)")" text/x-mine
    url=$(link v4 put_object bucket summed)
    has "a Content-MD5 of other bytes" "$(curl -sS -T file -H "Content-MD5: $(digest md5 "$CLIENTS/expect.sh")" "$url")" "<Code>BadDigest</Code>"
    equal "nothing was stored" "$(status "$(link v4 get_object bucket summed)")" 404
    equal "the right Content-MD5" "$(status -T file -H "Content-MD5: $(digest md5 file)" "$url")" 200
    has "curl waits for 100" "$(curl -sS -v -o answer -H 'Expect: 100-continue' -T file "$url" 2>&1)" "100 Continue"
    refused "an upload that stops half way" "" timeout 2 curl -sS --limit-rate 100k -T file "$(link v4 put_object bucket half)"
    equal "leaves nothing" "$(status "$(link v4 get_object bucket half)")" 404
}

case_large() {
    make_bucket
    equal "a PUT of 1 GiB" "$(status -T "$SAMPLE" "$(link v4 put_object bucket sample)")" 200
    curl -fsS "$(link v4 get_object bucket sample)" | cmp - "$SAMPLE"
    held "1 GiB came back byte for byte"
    piece 1000000000 1000000 expected
    curl -fsS -r 1000000000-1000999999 -o got "$(link v4 get_object bucket sample)"
    same "a range near its end" got expected
    piece 0 800000000 got
    curl -fsS -C 800000000 -o got "$(link v4 get_object bucket sample)"
    same "a download that is taken up again" got "$SAMPLE"
}

case_ranges() {
    local url
    make_bucket
    put_file 3000000 file
    url=$(link v4 get_object bucket file)
    check_range() { # RANGE OFFSET LENGTH
        dd if=file of=expected bs=1M iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none
        equal "the status of $1" "$(curl -sS -o got -w '%{http_code}' -r "$1" "$url")" 206
        same "bytes $1" got expected
    }
    check_range 0-0 0 1
    check_range 65530-65545 65530 16
    check_range 2999990- 2999990 10
    check_range -77 2999923 77
    check_range 2000000-9999999 2000000 1000000
    has "behind the end" "$(curl -sS -r 3000000- "$url")" "<Code>InvalidRange</Code>"
    equal "its status" "$(status -r 3000000- "$url")" 416
    has "what there is instead" "$(curl -sS -D - -o answer -r 3000000- "$url")" "bytes */3000000"
    has "ranges are offered" "$(curl -sS -D - -o answer "$url" | tr A-Z a-z)" "accept-ranges: bytes"
}

case_conditions() {
    local url etag
    make_bucket
    put_file 5000 file
    url=$(link v4 get_object bucket file)
    etag="\"$(md5_of file)\""
    equal "If-None-Match of this one" "$(status -H "If-None-Match: $etag" "$url")" 304
    equal "If-None-Match of another" "$(status -H 'If-None-Match: "x"' "$url")" 200
    equal "If-None-Match of one of two" "$(status -H "If-None-Match: \"x\", $etag" "$url")" 304
    equal "If-Match of this one" "$(status -H "If-Match: $etag" "$url")" 200
    equal "If-Match of another" "$(status -H 'If-Match: "x"' "$url")" 412
    equal "If-Modified-Since long ago" "$(status -H 'If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT' "$url")" 200
    sleep 1
    equal "If-Modified-Since now" "$(status -H "If-Modified-Since: $(date -u '+%a, %d %b %Y %H:%M:%S GMT')" "$url")" 304
    equal "If-Unmodified-Since long ago" "$(status -H 'If-Unmodified-Since: Wed, 01 Jan 2020 00:00:00 GMT' "$url")" 412
    equal "a matching ETag outweighs the time" "$(status -H "If-Match: $etag" \
        -H 'If-Unmodified-Since: Wed, 01 Jan 2020 00:00:00 GMT' "$url")" 200
    piece 500 5000 other
    equal "If-None-Match: * on a PUT where there is one" \
        "$(status -T other -H 'If-None-Match: *' "$(link v4 put_object bucket file)")" 412
    equal "and where there is none" "$(status -T other -H 'If-None-Match: *' "$(link v4 put_object bucket new)")" 200
    curl -fsS -o got "$url"
    same "the first is as it was" got file
}

case_signed() {
    make_bucket
    piece 31 100000 file
    equal "a PUT" "$(signed -o answer -w '%{http_code}' -T file /bucket/file)" 200
    signed -o got /bucket/file
    same "a GET" got file
    has "a listing" "$(signed '/bucket?list-type=2&prefix=fi')" "<Key>file</Key>"
    has "the buckets" "$(signed /)" "<Name>bucket</Name>"
    equal "a DELETE" "$(signed -o answer -w '%{http_code}' -X DELETE /bucket/file)" 204
    equal "of the bucket too" "$(signed -o answer -w '%{http_code}' -X DELETE /bucket)" 204
}

case_errors() {
    local answer
    make_bucket
    put_file 100 file
    equal "without a signature" "$(status "$ENDPOINT/bucket/file")" 403
    has "its code" "$(curl -sS "$ENDPOINT/bucket/file")" "<Code>AccessDenied</Code>"
    answer=$(signed -D headers /bucket/missing)
    has "a missing key" "$answer" "<Code>NoSuchKey</Code>"
    has "which one" "$answer" missing
    has "the request's id" "$answer" "<RequestId>"
    has "also as a header" "$(tr A-Z a-z < headers)" "x-amz-request-id: "
    has "the type of an error" "$(tr A-Z a-z < headers)" "content-type: application/xml"
    "$PYTHON" -c 'import sys, xml.dom.minidom as dom; dom.parseString(sys.argv[1])' "$answer"
    held "an error is well-formed XML"
    has "a missing bucket" "$(signed /missing/key)" "<Code>NoSuchBucket</Code>"
    has "a method that S3 has not" "$(signed -X PATCH /bucket/file)" "<Code>MethodNotAllowed</Code>"
    equal "a HEAD's answer has no body" "$(signed -I -o answer -w '%{http_code} %{size_download}' /bucket/missing)" "404 0"
    has "max-keys that is no number" "$(signed '/bucket?list-type=2&max-keys=x')" "<Code>InvalidArgument</Code>"
    has "XML that is none" "$(signed -X POST -H "Content-MD5: $(digest md5 file)" --data-binary @file '/bucket?delete')" "<Code>"
}

case_virtual_hosts() {
    local url
    make_bucket
    piece 41 100000 file
    url=$(link v4 put_object bucket 'a file' endpoint="http://$HOST_NAME:$PORT" style=virtual)
    has "the bucket is in the name" "$url" "http://bucket.$HOST_NAME:$PORT/"
    equal "a PUT" "$(status --resolve "bucket.$HOST_NAME:$PORT:127.0.0.1" -T file "$url")" 200
    for version in v4 v2; do
        url=$(link $version get_object bucket 'a file' endpoint="http://$HOST_NAME:$PORT" style=virtual)
        curl -fsS --resolve "bucket.$HOST_NAME:$PORT:127.0.0.1" -o got "$url"
        same "a GET by $version" got file
    done
    url=$(link v4 get_object bucket 'a file')
    curl -fsS -o got "$url"
    same "the same by path" got file
    url=$(link v4 get_object bucket 'a file' endpoint="http://$HOST_NAME:$PORT")
    curl -fsS --resolve "$HOST_NAME:$PORT:127.0.0.1" -o got "$url"
    same "by path on the host's own name" got file
    equal "a bucket that is not there" "$(status --resolve "other.$HOST_NAME:$PORT:127.0.0.1" "${url/$HOST_NAME/other.$HOST_NAME}")" 403
}

run "$@"
