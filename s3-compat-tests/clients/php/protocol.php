<?php
// The cases about signatures, conditions, host names and requests that are refused.

declare(strict_types=1);

use Aws\S3\S3Client;

function case_presign(S3Client $s3): void
{
    $name = 'päth/fichier été +&.txt';
    $content = piece(5, 300000);
    $s3->createBucket(['Bucket' => 'links']);
    $link = fn (string $method, array $more = [], string|int $until = '+5 minutes'): string => (string) $s3->createPresignedRequest(
        $s3->getCommand($method, ['Bucket' => 'links', 'Key' => $name] + $more),
        $until,
    )->getUri();
    equal('a PUT by a link', fetch($link('PutObject'), 'PUT', $content)[0], 200);
    [$status, , $body] = fetch($link('GetObject'));
    equal('a GET by a link', [$status, $body], [200, $content]);
    $disposition = "attachment; filename*=UTF-8''" . rawurlencode('fichier été.txt');
    [$status, $headers, $body] = fetch($link('GetObject', ['ResponseContentDisposition' => $disposition, 'ResponseContentType' => 'text/x-other']));
    equal('with the name to save it under', [$status, $headers['content-disposition'], $body], [200, $disposition, $content]);
    equal('and another type', $headers['content-type'], 'text/x-other');
    equal('another name in its place', fetch(str_replace('fichier', 'autre', $link('GetObject')))[0], 403);
    equal('another method', fetch($link('GetObject'), 'DELETE')[0], 403);
    $short = $link('GetObject', [], '+1 second');
    sleep(3);
    yes('a link that has run out', str_contains(fetch($short)[2], '<Code>AccessDenied</Code>'));
    equal('a DELETE by a link', fetch($link('DeleteObject'), 'DELETE')[0], 204);
    equal('it is gone', fetch($link('GetObject'))[0], 404);
}

function case_conditions(S3Client $s3): void
{
    $s3->createBucket(['Bucket' => 'conditions']);
    $where = ['Bucket' => 'conditions', 'Key' => 'file'];
    $etag = $s3->putObject($where + ['Body' => 'first'])['ETag'];
    equal('If-Match that matches', (string) $s3->getObject($where + ['IfMatch' => $etag])['Body'], 'first');
    refused('If-Match of another', 'PreconditionFailed', fn () => $s3->getObject($where + ['IfMatch' => '"x"']));
    // The SDK reports a 304 as a result, not as an error.
    $answer = $s3->getObject($where + ['IfNoneMatch' => $etag]);
    equal('If-None-Match of this one', $answer['@metadata']['statusCode'], 304);
    $answer = $s3->getObject($where + ['IfModifiedSince' => time() + 1]);
    equal('If-Modified-Since now', $answer['@metadata']['statusCode'], 304);
    refused('If-Unmodified-Since long ago', 'PreconditionFailed', fn () => $s3->getObject($where + ['IfUnmodifiedSince' => 1000000000]));
    refused('a write where there is one', 'PreconditionFailed', fn () => $s3->putObject($where + ['Body' => 'x', 'IfNoneMatch' => '*']));
    refused('a write over another', 'PreconditionFailed', fn () => $s3->putObject($where + ['Body' => 'x', 'IfMatch' => '"x"']));
    $s3->putObject($where + ['Body' => 'second', 'IfMatch' => $etag]);
    equal('a write over this one', read($s3, 'conditions', 'file'), 'second');
}

function case_errors(S3Client $s3): void
{
    $s3->createBucket(['Bucket' => 'errors']);
    $with = fn (string $key, string $secret) => client(['credentials' => ['key' => $key, 'secret' => $secret]]);
    refused('a wrong secret', 'SignatureDoesNotMatch', fn () => $with(getenv('AWS_ACCESS_KEY_ID'), 'wrong')->listBuckets());
    refused('a key that nobody has', 'InvalidAccessKeyId', fn () => $with('NOBODYSACCESSKEY0000', 'wrong')->listBuckets());
    refused('no signature', 'AccessDenied', fn () => client(['credentials' => false])->getObject(['Bucket' => 'errors', 'Key' => 'x']));
    refused('a missing key', 'NoSuchKey', fn () => $s3->getObject(['Bucket' => 'errors', 'Key' => 'missing']));
    refused('a missing bucket', 'NoSuchBucket', fn () => $s3->putObject(['Bucket' => 'missing', 'Key' => 'x', 'Body' => '']));
    refused('an upload that is not there', 'NoSuchUpload', fn () => $s3->uploadPart(
        ['Bucket' => 'errors', 'Key' => 'x', 'PartNumber' => 1, 'UploadId' => 'nothing-like-it', 'Body' => 'x'],
    ));
    try {
        $s3->getObject(['Bucket' => 'errors', 'Key' => 'missing']);
    } catch (Aws\S3\Exception\S3Exception $error) {
        yes('an error has an id', $error->getAwsRequestId() !== null && $error->getAwsRequestId() !== '');
        yes('and says what is missing', $error->getAwsErrorMessage() !== '');
    }
}

function case_virtual_hosts(S3Client $s3): void
{
    [$base, $port] = [getenv('HOST_NAME'), getenv('PORT')];
    $content = piece(41, 100000);
    $names = array_map(fn (string $name): string => "$name$base:$port:127.0.0.1", ['', 'by-path.', 'by-name.', 'missing.']);
    $hosted = client([
        'endpoint' => "http://$base:$port",
        'use_path_style_endpoint' => false,
        // What a wildcard in the operator's DNS does.
        'http' => ['curl' => [CURLOPT_RESOLVE => $names]],
    ]);
    $s3->createBucket(['Bucket' => 'by-path']);
    $s3->putObject(['Bucket' => 'by-path', 'Key' => 'é/a b', 'Body' => $content]);
    equal('an object', read($hosted, 'by-path', 'é/a b'), $content);
    $hosted->createBucket(['Bucket' => 'by-name']);
    $hosted->putObject(['Bucket' => 'by-name', 'Key' => 'é/a b', 'Body' => $content]);
    equal('a listing', $hosted->listObjectsV2(['Bucket' => 'by-name'])['Contents'][0]['Key'], 'é/a b');
    equal('the same by path', read($s3, 'by-name', 'é/a b'), $content);
    equal('the URL of an object', $hosted->getObjectUrl('by-name', 'a b'), "http://by-name.$base:$port/a%20b");
    refused('a missing bucket', 'NoSuchBucket', fn () => $hosted->listObjectsV2(['Bucket' => 'missing']));
}
