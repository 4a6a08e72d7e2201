#!/usr/bin/env bash
# The AWS command line, v1 or v2: AWS is the program, AWS_MAJOR says which one it has to be.
. "$CLIENTS/expect.sh"
. "$CLIENTS/aws/objects.sh"
. "$CLIENTS/aws/many.sh"

export AWS_PAGER="" AWS_CONFIG_FILE=$PWD/config AWS_SHARED_CREDENTIALS_FILE=$PWD/none AWS_MAX_ATTEMPTS=2
cat > "$AWS_CONFIG_FILE" << 'END'
[default]
s3 =
    addressing_style = path
    multipart_threshold = 16MB
    multipart_chunksize = 16MB
END

aws() {
    "$AWS" --endpoint-url "$ENDPOINT" "$@"
}

# api: s3api with text as its answer.
api() {
    aws --output text s3api "$@"
}

has "the version" "$("$AWS" --version 2>&1)" "aws-cli/$AWS_MAJOR."

case_buckets() {
    aws s3 mb s3://first
    aws s3 mb s3://second.with-dots
    equal "both buckets are listed" "$(api list-buckets --query 'Buckets[].Name')" $'first\tsecond.with-dots'
    has "aws s3 ls shows them" "$(aws s3 ls)" "second.with-dots"
    api head-bucket --bucket first
    equal "the location of us-east-1 is null" "$(api get-bucket-location --bucket first)" None
    refused "a name that S3 does not allow" InvalidBucketName api create-bucket --bucket Upper_Case
    refused "a bucket that is not there" 404 api head-bucket --bucket missing
    piece 0 10 small
    aws s3 cp --quiet small s3://first/small
    refused "a bucket with an object" BucketNotEmpty aws s3 rb s3://first
    aws s3 rb --force s3://first
    aws s3 rb s3://second.with-dots
    equal "none is left" "$(api list-buckets --query 'length(Buckets || `[]`)')" 0
    refused "deleting it again" NoSuchBucket api delete-bucket --bucket first
}

case_large() {
    aws s3 mb s3://large
    aws s3 cp --quiet "$SAMPLE" s3://large/sample
    equal "its length" "$(api head-object --bucket large --key sample --query ContentLength)" 1073741824
    has "its parts are of 16 MiB" "$(api head-object --bucket large --key sample --query ETag)" '-64"'
    aws s3 cp --quiet s3://large/sample - | cmp - "$SAMPLE"
    held "1 GiB came back byte for byte"
    aws s3 rm --quiet s3://large/sample
    refused "it is gone" 404 api head-object --bucket large --key sample
}

case_multipart() {
    aws s3 mb s3://parts
    piece 0 5242880 one
    piece 7000000 6000000 two
    piece 9 1000 three
    api put-object --bucket parts --key source --body two > /dev/null
    local id etag1 etag2 etag3
    id=$(api create-multipart-upload --bucket parts --key whole --content-type text/x-parts --query UploadId)
    etag1=$(api upload-part --bucket parts --key whole --upload-id "$id" --part-number 1 --body one --query ETag)
    etag2=$(api upload-part-copy --bucket parts --key whole --upload-id "$id" --part-number 4 \
        --copy-source parts/source --copy-source-range bytes=0-5999999 --query CopyPartResult.ETag)
    etag3=$(api upload-part --bucket parts --key whole --upload-id "$id" --part-number 9 --body three --query ETag)
    equal "a part's ETag is its MD5" "$etag1" "\"$(md5_of one)\""
    equal "a copied part's too" "$etag2" "\"$(md5_of two)\""
    equal "the parts are listed" "$(api list-parts --bucket parts --key whole --upload-id "$id" \
        --query 'Parts[].[PartNumber,Size]' | tr '\t\n' ': ')" "1:5242880 4:6000000 9:1000 "
    equal "the upload is listed" "$(api list-multipart-uploads --bucket parts --query 'Uploads[].Key')" whole
    refused "it is not visible yet" 404 api head-object --bucket parts --key whole
    refused "a part that is not there" InvalidPart api complete-multipart-upload --bucket parts --key whole \
        --upload-id "$id" --multipart-upload "Parts=[{PartNumber=2,ETag=$etag1}]"
    refused "parts out of order" InvalidPartOrder api complete-multipart-upload --bucket parts --key whole \
        --upload-id "$id" --multipart-upload "Parts=[{PartNumber=9,ETag=$etag3},{PartNumber=1,ETag=$etag1}]"
    refused "a small part that is not the last" EntityTooSmall api complete-multipart-upload --bucket parts \
        --key whole --upload-id "$id" \
        --multipart-upload "Parts=[{PartNumber=1,ETag=$etag1},{PartNumber=9,ETag=$etag3},{PartNumber=10,ETag=$(
            api upload-part --bucket parts --key whole --upload-id "$id" --part-number 10 --body one --query ETag)}]"
    api complete-multipart-upload --bucket parts --key whole --upload-id "$id" --multipart-upload \
        "Parts=[{PartNumber=1,ETag=$etag1},{PartNumber=4,ETag=$etag2},{PartNumber=9,ETag=$etag3}]" > completed
    local both
    both=$(cat one two three | md5sum)
    cat one two three > expected
    has "the ETag says three parts" "$(cat completed)" '-3"'
    api get-object --bucket parts --key whole whole > /dev/null
    same "the parts in their order ($both)" whole expected
    equal "the type that the upload was created with" \
        "$(api head-object --bucket parts --key whole --query ContentType)" text/x-parts
    equal "one part of it" "$(api head-object --bucket parts --key whole --part-number 1 --query ContentLength)" 5242880
    id=$(api create-multipart-upload --bucket parts --key never --query UploadId)
    api upload-part --bucket parts --key never --upload-id "$id" --part-number 1 --body three > /dev/null
    api abort-multipart-upload --bucket parts --key never --upload-id "$id"
    refused "an aborted upload" NoSuchUpload api list-parts --bucket parts --key never --upload-id "$id"
    equal "no upload is left" "$(api list-multipart-uploads --bucket parts --query 'length(Uploads || `[]`)')" 0
}

case_sync() {
    aws s3 mb s3://tree
    folder here
    aws s3 sync --no-progress here s3://tree/in/ > first
    equal "the first sync sends all" "$(grep -c '^upload' first)" 60
    equal "the second sends nothing" "$(aws s3 sync --no-progress here s3://tree/in/)" ""
    piece 99 31337 here/one/file-1.bin
    equal "a changed file is sent again" "$(aws s3 sync --no-progress here s3://tree/in/ | wc -l)" 1
    aws s3 sync --no-progress s3://tree/in/ there > /dev/null
    diff -r here there
    held "what came back is what went in"
    equal "nothing is fetched again" "$(aws s3 sync --no-progress s3://tree/in/ there)" ""
    rm here/file-4.bin
    has "--delete removes what is gone" "$(aws s3 sync --no-progress --delete here s3://tree/in/)" "delete: s3://tree/in/file-4.bin"
}

case_presign() {
    local link name='päth/fichier été +&.txt'
    aws s3 mb s3://links
    piece 5 300000 file
    aws s3 cp --quiet file "s3://links/$name"
    link=$(aws s3 presign --expires-in 300 "s3://links/$name")
    curl -fsS -o got "$link"
    same "a link to a non-ASCII name" got file
    refused "another object's name in its place" 403 curl -fsS "${link/fichier/autre}"
    link=$(aws configure set default.s3.signature_version s3v4 && aws s3 presign "s3://links/$name")
    has "a V4 link" "$link" X-Amz-Signature=
    curl -fsS -o got "$link"
    same "the same by V4" got file
    has "a link that has run out" "$(link=$(aws s3 presign --expires-in 1 "s3://links/$name") && sleep 3 && curl -sS "$link")" \
        "<Code>AccessDenied</Code>"
}

run "$@"
