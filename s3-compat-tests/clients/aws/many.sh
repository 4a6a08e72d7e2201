# The cases about many objects, and about requests that are refused.

case_listing() {
    aws s3 mb s3://many
    many files
    aws s3 cp --recursive --quiet files s3://many/
    equal "all are listed" "$(aws s3 ls --recursive s3://many | wc -l)" 1050
    equal "page by page" "$(api list-objects-v2 --bucket many --page-size 100 --query 'Contents[].[Key]' | wc -l)" 1050
    equal "by the first version of listing" "$(api list-objects --bucket many --page-size 333 --query 'Contents[].[Key]' | wc -l)" 1050
    equal "folders by a delimiter" "$(api list-objects-v2 --bucket many --delimiter / --query 'CommonPrefixes[].Prefix')" $'a/\tb/'
    equal "one folder" "$(api list-objects-v2 --bucket many --prefix b/ --delimiter / --query 'length(Contents)')" 50
    equal "behind a key" "$(api list-objects-v2 --bucket many --start-after a/0999 --query 'Contents[:2].Key')" $'a/1000\tb/01'
    equal "at most so many" "$(api list-objects-v2 --bucket many --max-keys 3 --no-paginate --query '[KeyCount,IsTruncated]')" $'3\tTrue'
    equal "none at all" "$(api list-objects-v2 --bucket many --max-keys 0 --no-paginate --query 'KeyCount')" 0
    has "the listing of the top" "$(aws s3 ls s3://many)" "PRE b/"
    has "--summarize" "$(aws s3 ls --recursive --summarize s3://many/b/)" "Total Objects: 50"
    aws s3 rm --recursive --quiet s3://many/a/
    equal "what a recursive delete leaves" "$(aws s3 ls --recursive s3://many | wc -l)" 50
}

case_delete_many() {
    aws s3 mb s3://deletes
    piece 0 100 file
    local key
    for key in 'a b' 'é&<>' c; do api put-object --bucket deletes --key "$key" --body file > /dev/null; done
    equal "what was deleted, missing keys too" "$(api delete-objects --bucket deletes --delete \
        '{"Objects":[{"Key":"a b"},{"Key":"é&<>"},{"Key":"missing"}]}' --query 'length(Deleted)')" 3
    equal "what is left" "$(api list-objects-v2 --bucket deletes --query 'Contents[].Key')" c
    equal "a quiet one says nothing" "$(api delete-objects --bucket deletes --delete 'Objects=[{Key=c}],Quiet=true')" ""
    equal "nothing is left" "$(api list-objects-v2 --bucket deletes --query 'length(Contents || `[]`)')" 0
}

case_errors() {
    aws s3 mb s3://errors
    piece 0 100 file
    refused "a wrong secret" SignatureDoesNotMatch env AWS_SECRET_ACCESS_KEY=wrong "$AWS" --endpoint-url "$ENDPOINT" \
        s3api list-buckets
    refused "a key that nobody has" InvalidAccessKeyId env AWS_ACCESS_KEY_ID=NOBODYSACCESSKEY0000 "$AWS" \
        --endpoint-url "$ENDPOINT" s3api list-buckets
    refused "no signature" AccessDenied aws --no-sign-request s3api list-objects-v2 --bucket errors
    refused "a missing key" NoSuchKey api get-object --bucket errors --key missing got
    refused "a missing bucket" NoSuchBucket api put-object --bucket missing --key x --body file
    refused "a missing bucket's listing" NoSuchBucket aws s3 ls s3://missing
    refused "an upload that is not there" NoSuchUpload api upload-part --bucket errors --key x --part-number 1 \
        --upload-id nothing-like-it --body file
    refused "part 0" InvalidArgument api upload-part --bucket errors --key x --part-number 0 --upload-id "$(
        api create-multipart-upload --bucket errors --key x --query UploadId)" --body file
    has "the request's id is shown" "$(aws --debug s3api head-bucket --bucket errors 2>&1)" x-amz-request-id
}
