<?php
// The cases about large objects, uploads in parts, and the stream wrapper.

declare(strict_types=1);

use Aws\S3\MultipartCopy;
use Aws\S3\MultipartUploader;
use Aws\S3\ObjectUploader;
use Aws\S3\S3Client;
use GuzzleHttp\Psr7\Utils;

function case_large(S3Client $s3): void
{
    $s3->createBucket(['Bucket' => 'large']);
    $uploaded = (new ObjectUploader($s3, 'large', 'sample', fopen(getenv('SAMPLE'), 'r'), 'private', [
        'part_size' => 32 * MIB,
    ]))->upload();
    yes('the upload was in parts', str_ends_with($uploaded['ETag'], '-32"'));
    equal('its length', $s3->headObject(['Bucket' => 'large', 'Key' => 'sample'])['ContentLength'], 1 << 30);
    $s3->getObject(['Bucket' => 'large', 'Key' => 'sample', 'SaveAs' => 'got']);
    same_files('1 GiB came back byte for byte', 'got', getenv('SAMPLE'));
    unlink('got');
    $body = $s3->getObject(['Bucket' => 'large', 'Key' => 'sample', '@http' => ['stream' => true]])['Body'];
    $hash = hash_init('crc32b');
    while (!$body->eof()) {
        hash_update($hash, $body->read(MIB));
    }
    equal('also as a stream', hash_final($hash), hash_file('crc32b', getenv('SAMPLE')));
}

function case_multipart(S3Client $s3): void
{
    $s3->createBucket(['Bucket' => 'parts']);
    $content = piece(0, 17000000);
    $uploader = new MultipartUploader($s3, Utils::streamFor($content), [
        'bucket' => 'parts', 'key' => 'é a+b', 'part_size' => 5 * MIB,
        'before_initiate' => function ($command): void {
            $command['ContentType'] = 'text/x-parts';
        },
    ]);
    $uploaded = $uploader->upload();
    yes('four parts', str_ends_with($uploaded['ETag'], '-4"'));
    equal('MultipartUploader', read($s3, 'parts', 'é a+b'), $content);
    equal('its type', $s3->headObject(['Bucket' => 'parts', 'Key' => 'é a+b'])['ContentType'], 'text/x-parts');
    // MultipartCopy writes the space in the source's name as a plus.
    (new MultipartCopy($s3, '/parts/é a+b', ['bucket' => 'parts', 'key' => 'copied', 'part_size' => 6 * MIB]))->copy();
    equal('MultipartCopy', read($s3, 'parts', 'copied'), $content);
    $one = $s3->getObject(['Bucket' => 'parts', 'Key' => 'copied', 'PartNumber' => 2]);
    equal('one part of it', (string) $one['Body'], substr($content, 6 * MIB, 6 * MIB));

    $where = ['Bucket' => 'parts', 'Key' => 'by hand'];
    $where['UploadId'] = $s3->createMultipartUpload($where)['UploadId'];
    $first = $s3->uploadPart($where + ['PartNumber' => 1, 'Body' => piece(0, 5 * MIB)]);
    $second = $s3->uploadPart($where + ['PartNumber' => 2, 'Body' => 'end']);
    equal('the parts are listed', array_map('intval', array_column($s3->listParts($where)['Parts'], 'Size')), [5 * MIB, 3]);
    $parts = [['PartNumber' => 1, 'ETag' => $first['ETag']], ['PartNumber' => 2, 'ETag' => $second['ETag']]];
    refused('parts out of order', 'InvalidPartOrder', fn () => $s3->completeMultipartUpload(
        $where + ['MultipartUpload' => ['Parts' => array_reverse($parts)]],
    ));
    refused('a part of another ETag', 'InvalidPart', fn () => $s3->completeMultipartUpload(
        $where + ['MultipartUpload' => ['Parts' => [['PartNumber' => 1, 'ETag' => $second['ETag']]]]],
    ));
    $s3->completeMultipartUpload($where + ['MultipartUpload' => ['Parts' => $parts]]);
    equal('completed by hand', read($s3, 'parts', 'by hand'), piece(0, 5 * MIB) . 'end');
    $where['UploadId'] = $s3->createMultipartUpload(['Bucket' => 'parts', 'Key' => 'by hand'])['UploadId'];
    $s3->abortMultipartUpload($where);
    refused('an aborted upload', 'NoSuchUpload', fn () => $s3->listParts($where));
    equal('no upload is left', $s3->listMultipartUploads(['Bucket' => 'parts'])['Uploads'] ?? [], []);
}

function case_streams(S3Client $s3): void
{
    $s3->createBucket(['Bucket' => 'streams']);
    $s3->registerStreamWrapperV2();
    $content = piece(7, 3000000);
    equal('file_put_contents', file_put_contents('s3://streams/dir/é a+b.bin', $content), 3000000);
    equal('file_get_contents', file_get_contents('s3://streams/dir/é a+b.bin'), $content);
    yes('file_exists', file_exists('s3://streams/dir/é a+b.bin'));
    equal('filesize', filesize('s3://streams/dir/é a+b.bin'), 3000000);
    yes('is_dir', is_dir('s3://streams/dir'));
    yes('no file', !file_exists('s3://streams/dir/none'));
    $file = fopen('s3://streams/dir/é a+b.bin', 'r', false, stream_context_create(['s3' => ['seekable' => true]]));
    fseek($file, 1000000);
    equal('a seek', fread($file, 100), substr($content, 1000000, 100));
    fclose($file);
    $file = fopen('s3://streams/dir/written', 'w');
    foreach (str_split($content, 100000) as $chunk) {
        fwrite($file, $chunk);
    }
    fclose($file);
    equal('written bit by bit', file_get_contents('s3://streams/dir/written'), $content);
    $file = fopen('s3://streams/dir/log', 'a');
    fwrite($file, 'one ');
    fclose($file);
    $file = fopen('s3://streams/dir/log', 'a');
    fwrite($file, 'two');
    fclose($file);
    equal('appended to', file_get_contents('s3://streams/dir/log'), 'one two');
    $names = scandir('s3://streams/dir');
    sort($names);
    equal('scandir', $names, ['log', 'written', 'é a+b.bin']);
    yes('rename', rename('s3://streams/dir/log', 's3://streams/dir/renamed'));
    equal('what was renamed', file_get_contents('s3://streams/dir/renamed'), 'one two');
    yes('its old name', !file_exists('s3://streams/dir/log'));
    yes('copy', copy('s3://streams/dir/renamed', 's3://streams/copy'));
    yes('unlink', unlink('s3://streams/dir/renamed'));
    yes('mkdir of a bucket', mkdir('s3://streams-too'));
    yes('rmdir of it', rmdir('s3://streams-too'));
    equal('what is left', array_column($s3->listObjectsV2(['Bucket' => 'streams'])['Contents'], 'Key'), [
        'copy', 'dir/written', 'dir/é a+b.bin',
    ]);
}
