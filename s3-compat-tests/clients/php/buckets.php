<?php
// The cases about buckets and many objects.

declare(strict_types=1);

use Aws\CommandPool;
use Aws\S3\BatchDelete;
use Aws\S3\S3Client;
use Aws\S3\Transfer;

function case_buckets(S3Client $s3): void
{
    foreach (['first', 'second.with-dots'] as $name) {
        $s3->createBucket(['Bucket' => $name]);
        $s3->waitUntil('BucketExists', ['Bucket' => $name]);
    }
    equal('both are listed', array_column($s3->listBuckets()['Buckets'], 'Name'), ['first', 'second.with-dots']);
    yes('doesBucketExistV2', $s3->doesBucketExistV2('first'));
    yes('and of one that does not', !$s3->doesBucketExistV2('missing'));
    $s3->getBucketLocation(['Bucket' => 'first']);
    refused('a name that S3 does not allow', 'InvalidBucketName', fn () => $s3->createBucket(['Bucket' => 'Upper_Case']));
    $s3->putObject(['Bucket' => 'first', 'Key' => 'file', 'Body' => 'x']);
    refused('a bucket with an object', 'BucketNotEmpty', fn () => $s3->deleteBucket(['Bucket' => 'first']));
    $s3->deleteObject(['Bucket' => 'first', 'Key' => 'file']);
    foreach (['first', 'second.with-dots'] as $name) {
        $s3->deleteBucket(['Bucket' => $name]);
        $s3->waitUntil('BucketNotExists', ['Bucket' => $name]);
    }
    equal('none is left', $s3->listBuckets()['Buckets'] ?? [], []);
    refused('deleting one again', 'NoSuchBucket', fn () => $s3->deleteBucket(['Bucket' => 'first']));
}

/** 1,050 objects in two folders, put by a pool of commands as the SDK's users do. */
function fill(S3Client $s3, string $bucket): array
{
    $keys = [];
    for ($number = 1; $number <= 1050; $number++) {
        $keys[] = ($number <= 1000 ? 'a/' : 'b/') . sprintf('%04d', $number);
    }
    $keys[] = 'é a+b&<>';
    $commands = (function () use ($s3, $bucket, $keys) {
        foreach ($keys as $key) {
            yield $s3->getCommand('PutObject', ['Bucket' => $bucket, 'Key' => $key, 'Body' => $key]);
        }
    })();
    foreach (CommandPool::batch($s3, $commands, ['concurrency' => 8]) as $result) {
        if ($result instanceof Throwable) {
            throw $result;
        }
    }
    return $keys;
}

function case_listing(S3Client $s3): void
{
    $s3->createBucket(['Bucket' => 'many']);
    $keys = fill($s3, 'many');
    foreach (['ListObjects', 'ListObjectsV2'] as $method) {
        $all = fn (array $more): array => iterator_to_array(
            $s3->getPaginator($method, ['Bucket' => 'many'] + $more)->search('Contents[].Key'),
            false,
        );
        equal("$method: all", $all([]), $keys);
        equal("$method: in pages of 77", $all(['MaxKeys' => 77]), $keys);
        equal("$method: a prefix", $all(['Prefix' => 'a/001']), array_slice($keys, 9, 10));
        $top = $s3->execute($s3->getCommand($method, ['Bucket' => 'many', 'Delimiter' => '/']));
        equal("$method: folders", array_column($top['CommonPrefixes'], 'Prefix'), ['a/', 'b/']);
        equal("$method: beside them", array_column($top['Contents'], 'Key'), ['é a+b&<>']);
    }
    equal('an iterator', iterator_count($s3->getIterator('ListObjectsV2', ['Bucket' => 'many'])), 1051);
    $after = $s3->listObjectsV2(['Bucket' => 'many', 'StartAfter' => 'a/0999', 'MaxKeys' => 2]);
    equal('behind a key', array_column($after['Contents'], 'Key'), ['a/1000', 'b/1001']);
    refused('a missing bucket', 'NoSuchBucket', fn () => $s3->listObjectsV2(['Bucket' => 'missing']));
}

function case_delete_many(S3Client $s3): void
{
    $s3->createBucket(['Bucket' => 'deletes']);
    fill($s3, 'deletes');
    $answer = $s3->deleteObjects(['Bucket' => 'deletes', 'Delete' => [
        'Objects' => [['Key' => 'a/0001'], ['Key' => 'é a+b&<>'], ['Key' => 'missing']],
    ]]);
    equal('each is reported, the missing one too', count($answer['Deleted']), 3);
    BatchDelete::fromListObjects($s3, ['Bucket' => 'deletes', 'Prefix' => 'a/'])->delete();
    $left = fn (): int => iterator_count($s3->getIterator('ListObjectsV2', ['Bucket' => 'deletes']));
    equal('what BatchDelete leaves', $left(), 50);
    $s3->deleteMatchingObjects('deletes', 'b/10');
    equal('what deleteMatchingObjects leaves', $left(), 0);
    $s3->deleteBucket(['Bucket' => 'deletes']);
    held('the bucket can go');
}

function case_sync(S3Client $s3): void
{
    $s3->createBucket(['Bucket' => 'tree']);
    for ($number = 0; $number < 40; $number++) {
        $path = 'here/' . ['', 'one/', 'one/two/', 'with space/'][$number % 4] . "füü+$number&.bin";
        is_dir(dirname($path)) || mkdir(dirname($path), 0777, true);
        file_put_contents($path, piece($number, $number * 1000));
    }
    (new Transfer($s3, 'here', 's3://tree/in'))->transfer();
    equal('all are there', iterator_count($s3->getIterator('ListObjectsV2', ['Bucket' => 'tree'])), 40);
    equal('a second sync has nothing to send', changed($s3, 'here'), []);
    file_put_contents('here/füü+4&.bin', 'changed');
    equal('and finds what has changed', changed($s3, 'here'), ['here/füü+4&.bin']);
    (new Transfer($s3, new ArrayIterator(changed($s3, 'here')), 's3://tree/in', ['base_dir' => 'here']))->transfer();
    mkdir('there');
    (new Transfer($s3, 's3://tree/in', 'there'))->transfer();
    exec('diff -r here there', $said, $status);
    equal('what came back is what went in', [$said, $status], [[], 0]);
}

/** Files whose MD5 is not the ETag of the object under their name. */
function changed(S3Client $s3, string $folder): array
{
    $etags = [];
    foreach ($s3->getIterator('ListObjectsV2', ['Bucket' => 'tree', 'Prefix' => 'in/']) as $object) {
        $etags[substr($object['Key'], 3)] = trim($object['ETag'], '"');
    }
    $files = new RecursiveIteratorIterator(new RecursiveDirectoryIterator($folder, FilesystemIterator::SKIP_DOTS));
    $changed = [];
    foreach ($files as $file) {
        $name = substr($file->getPathname(), strlen($folder) + 1);
        if (($etags[$name] ?? '') !== md5_file($file->getPathname())) {
            $changed[] = $file->getPathname();
        }
    }
    return $changed;
}
