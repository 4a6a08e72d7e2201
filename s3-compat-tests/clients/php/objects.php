<?php
// The cases about single objects.

declare(strict_types=1);

use Aws\S3\S3Client;

function case_objects(S3Client $s3): void
{
    $s3->createBucket(['Bucket' => 'small']);
    foreach ([0, 1, 1024, 1025, 65536, 131073, 1048576, 5000001] as $length) {
        $content = piece($length, $length);
        $put = $s3->putObject(['Bucket' => 'small', 'Key' => (string) $length, 'Body' => $content]);
        equal("the ETag of $length bytes", $put['ETag'], '"' . md5($content) . '"');
        equal("$length bytes", read($s3, 'small', (string) $length), $content);
    }
    $content = piece(77, 4000);
    $s3->upload('small', '1', $content);
    equal('an overwritten object', read($s3, 'small', '1'), $content);
    file_put_contents('file', $content);
    $s3->putObject(['Bucket' => 'small', 'Key' => 'from a file', 'SourceFile' => 'file']);
    $s3->getObject(['Bucket' => 'small', 'Key' => 'from a file', 'SaveAs' => 'got']);
    same_files('from a file to a file', 'file', 'got');
    yes('doesObjectExistV2', $s3->doesObjectExistV2('small', '1'));
    $s3->deleteObject(['Bucket' => 'small', 'Key' => '1']);
    yes('and of one that does not', !$s3->doesObjectExistV2('small', '1'));
    refused('a deleted object', 'NoSuchKey', fn () => $s3->getObject(['Bucket' => 'small', 'Key' => '1']));
    refused('its HEAD', 404, fn () => $s3->headObject(['Bucket' => 'small', 'Key' => '1']));
    $promises = array_map(
        fn (int $number) => $s3->getObjectAsync(['Bucket' => 'small', 'Key' => '5000001', 'Range' => "bytes=$number-"]),
        range(0, 3),
    );
    $bodies = array_map(fn ($promise): int => strlen((string) $promise->wait()['Body']), $promises);
    equal('several at once', $bodies, [5000001, 5000000, 4999999, 4999998]);
}

function case_keys(S3Client $s3): void
{
    // libcurl takes "." and ".." out of a path before it sends it: such names are for other clients.
    $keys = ['a b+c/é/ü.txt', '/leading', '//two', 'double//slash', 'trailing/', '100%', '%41', '?a=1&b#c',
        'quote"and\'', '<xml>&', 'emoji 😀', '日本語/キー', 'star*[]{}|\\^`~', 'equals=', str_repeat('k', 1024)];
    $s3->createBucket(['Bucket' => 'names']);
    foreach ($keys as $number => $key) {
        $content = piece($number, $number * 100 + 1);
        $s3->putObject(['Bucket' => 'names', 'Key' => $key, 'Body' => $content]);
        equal("key $number", read($s3, 'names', $key), $content);
        $found = $s3->listObjectsV2(['Bucket' => 'names', 'Prefix' => $key])['Contents'];
        equal("key $number as a prefix", $found[0]['Key'], $key);
    }
    sort($keys, SORT_STRING);
    equal('in the order of their bytes', array_column($s3->listObjectsV2(['Bucket' => 'names'])['Contents'], 'Key'), $keys);
    refused('a key of 1,025 bytes', 'KeyTooLongError', fn () => $s3->putObject(
        ['Bucket' => 'names', 'Key' => str_repeat('k', 1025), 'Body' => ''],
    ));
}

function case_ranges(S3Client $s3): void
{
    $content = piece(0, 3000000);
    $s3->createBucket(['Bucket' => 'ranges']);
    $s3->putObject(['Bucket' => 'ranges', 'Key' => 'file', 'Body' => $content]);
    foreach ([['0-0', 0, 1], ['65530-65545', 65530, 16], ['1000000-2500000', 1000000, 1500001],
        ['2999990-', 2999990, 10], ['-77', 2999923, 77], ['2000000-9999999', 2000000, 1000000]] as [$range, $from, $length]) {
        $answer = $s3->getObject(['Bucket' => 'ranges', 'Key' => 'file', 'Range' => "bytes=$range"]);
        equal("bytes $range", (string) $answer['Body'], substr($content, $from, $length));
        equal("Content-Range of $range", $answer['ContentRange'], sprintf('bytes %d-%d/3000000', $from, $from + $length - 1));
    }
    refused('behind the end', 'InvalidRange', fn () => read($s3, 'ranges', 'file', ['Range' => 'bytes=3000000-']));
}

function case_copies(S3Client $s3): void
{
    $content = piece(3, 6000000);
    $s3->createBucket(['Bucket' => 'from']);
    $s3->createBucket(['Bucket' => 'target']);
    $s3->putObject(['Bucket' => 'from', 'Key' => 'é a+b', 'Body' => $content, 'ContentType' => 'text/x-first',
        'Metadata' => ['color' => 'red']]);
    $s3->copyObject(['Bucket' => 'target', 'Key' => 'copy', 'CopySource' => 'from/' . rawurlencode('é a+b')]);
    equal('a copy in another bucket', read($s3, 'target', 'copy'), $content);
    $head = $s3->headObject(['Bucket' => 'target', 'Key' => 'copy']);
    equal('metadata goes along', [$head['ContentType'], $head['Metadata']], ['text/x-first', ['color' => 'red']]);
    $s3->copyObject(['Bucket' => 'target', 'Key' => 'copy', 'CopySource' => 'target/copy', 'MetadataDirective' => 'REPLACE',
        'ContentType' => 'text/x-second', 'Metadata' => ['a' => '1']]);
    $head = $s3->headObject(['Bucket' => 'target', 'Key' => 'copy']);
    equal('a copy onto itself replaces it', [$head['ContentType'], $head['Metadata']], ['text/x-second', ['a' => '1']]);
    equal('and keeps the bytes', read($s3, 'target', 'copy'), $content);
    $s3->copy('from', 'é a+b', 'target', 'by the copier');
    equal('S3Client::copy', read($s3, 'target', 'by the copier'), $content);
    refused('a source that is not there', 'NoSuchKey', fn () => $s3->copyObject(
        ['Bucket' => 'target', 'Key' => 'x', 'CopySource' => 'from/missing'],
    ));
}

function case_metadata(S3Client $s3): void
{
    $s3->createBucket(['Bucket' => 'meta']);
    $stored = [
        'ContentType' => 'text/plain; charset=utf-8',
        'CacheControl' => 'max-age=60',
        'ContentDisposition' => "attachment; filename=\"a b.txt\"; filename*=UTF-8''%C3%A9.txt",
        'ContentLanguage' => 'de',
        'Metadata' => ['one' => '1', 'two-words' => 'a b'],
    ];
    $s3->putObject(['Bucket' => 'meta', 'Key' => 'file', 'Body' => 'x', 'Expires' => 1893553445] + $stored);
    foreach (['headObject', 'getObject'] as $method) {
        $answer = $s3->$method(['Bucket' => 'meta', 'Key' => 'file']);
        $given = array_intersect_key($answer->toArray(), $stored);
        ksort($given['Metadata']); // headers have no order
        ksort($given);
        ksort($stored);
        equal("$method gives back what was stored", $given, $stored);
        equal("$method's Expires", strtotime((string) $answer['@metadata']['headers']['expires']), 1893553445);
    }
    $answer = $s3->getObject(['Bucket' => 'meta', 'Key' => 'file', 'ResponseContentType' => 'text/x-other',
        'ResponseContentDisposition' => 'inline']);
    equal('overrides in the answer', [$answer['ContentType'], $answer['ContentDisposition']], ['text/x-other', 'inline']);
}

function case_classes(S3Client $s3): void
{
    $content = piece(0, 2000000);
    $s3->createBucket(['Bucket' => 'classes']);
    $put = fn (string $class) => $s3->putObject(
        ['Bucket' => 'classes', 'Key' => $class, 'Body' => $content, 'StorageClass' => $class],
    );
    $put('REDUCED_REDUNDANCY');
    $put('STANDARD');
    equal('an object of two copies', read($s3, 'classes', 'REDUCED_REDUNDANCY'), $content);
    $head = fn (string $key) => $s3->headObject(['Bucket' => 'classes', 'Key' => $key])['StorageClass'] ?? '';
    equal('HEAD names its class', $head('REDUCED_REDUNDANCY'), 'REDUCED_REDUNDANCY');
    equal('and leaves STANDARD out', $head('STANDARD'), '');
    $listed = array_column($s3->listObjectsV2(['Bucket' => 'classes'])['Contents'], 'StorageClass');
    equal('listings name both', $listed, ['REDUCED_REDUNDANCY', 'STANDARD']);
    refused('a class that is not configured', 'InvalidStorageClass', fn () => $put('NO_SUCH_CLASS'));
}

function case_attributes(S3Client $s3): void
{
    $content = piece(0, 200000);
    $s3->createBucket(['Bucket' => 'attributes']);
    $s3->putObject(['Bucket' => 'attributes', 'Key' => 'file', 'Body' => $content, 'ChecksumAlgorithm' => 'SHA256']);
    // The SDK writes each attribute as a header line of its own and signs their sorted join.
    foreach ([['ETag', 'ObjectSize', 'StorageClass', 'Checksum'], ['StorageClass', 'ObjectSize', 'ETag', 'Checksum']] as $wanted) {
        $found = $s3->getObjectAttributes(['Bucket' => 'attributes', 'Key' => 'file', 'ObjectAttributes' => $wanted]);
        $what = implode(', ', $wanted);
        equal($what, [$found['ETag'], (int) $found['ObjectSize'], $found['StorageClass']], [md5($content), 200000, 'STANDARD']);
        equal('their checksum', $found['Checksum']['ChecksumSHA256'], base64_encode(hash('sha256', $content, true)));
    }
}

function case_checksums(S3Client $s3): void
{
    $content = piece(0, 200000);
    $s3->createBucket(['Bucket' => 'sums']);
    foreach (['CRC32' => 'crc32b', 'SHA1' => 'sha1', 'SHA256' => 'sha256'] as $algorithm => $name) {
        $where = ['Bucket' => 'sums', 'Key' => $algorithm];
        $expected = base64_encode(hash($name, $content, true));
        $put = $s3->putObject($where + ['Body' => $content, 'ChecksumAlgorithm' => $algorithm]);
        equal("$algorithm is stored", $put["Checksum$algorithm"], $expected);
        $got = $s3->getObject($where + ['ChecksumMode' => 'enabled']);
        equal("$algorithm is given back", $got["Checksum$algorithm"], $expected);
        equal("$algorithm: the bytes, checked by the SDK", (string) $got['Body'], $content);
        refused("$algorithm of other bytes", 'BadDigest', fn () => $s3->putObject(
            ['Bucket' => 'sums', 'Key' => 'bad', 'Body' => $content,
                "Checksum$algorithm" => base64_encode(hash($name, 'other', true))],
        ));
    }
    refused('a Content-MD5 of other bytes', 'BadDigest', fn () => $s3->putObject(
        ['Bucket' => 'sums', 'Key' => 'bad', 'Body' => $content, 'ContentMD5' => base64_encode(md5('other', true))],
    ));
    yes('nothing bad was stored', !$s3->doesObjectExistV2('sums', 'bad'));
    $plain = client(['request_checksum_calculation' => 'when_required', 'response_checksum_validation' => 'when_required']);
    $plain->putObject(['Bucket' => 'sums', 'Key' => 'plain', 'Body' => $content]);
    equal('without a checksum', read($plain, 'sums', 'plain'), $content);
}
