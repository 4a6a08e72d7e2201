<?php
// What the PHP cases check with, and the client that they share.

declare(strict_types=1);

use Aws\Exception\AwsException;
use Aws\Exception\MultipartUploadException;
use Aws\S3\S3Client;

const MIB = 1048576;

// A warning is a failure: the stream wrapper reports its errors as warnings.
set_error_handler(function (int $level, string $message, string $file, int $line): bool {
    if (!(error_reporting() & $level) || $level & (E_DEPRECATED | E_USER_DEPRECATED)) {
        return false;
    }
    throw new ErrorException($message, 0, $level, $file, $line);
});

function held(string $what): void
{
    static $checks = 0;
    echo 'ok ', ++$checks, ": $what\n";
}

function equal(string $what, mixed $found, mixed $expected): void
{
    if ($found !== $expected) {
        $show = fn (mixed $value): string => substr(var_export($value, true), 0, 500);
        throw new RuntimeException("$what: found {$show($found)}, expected {$show($expected)}");
    }
    held($what);
}

function yes(string $what, bool $found): void
{
    equal($what, $found, true);
}

/** The call is refused with an S3 error code, or with a status where an answer has no body. */
function refused(string $what, string|int $code, callable $call): void
{
    try {
        $call();
    } catch (AwsException $error) {
        equal($what, is_int($code) ? $error->getStatusCode() : $error->getAwsErrorCode(), $code);
        return;
    } catch (MultipartUploadException $error) {
        yes($what, str_contains($error->getMessage(), (string) $code));
        return;
    }
    throw new RuntimeException("$what: was not refused with $code");
}

function client(array $more = []): S3Client
{
    return new S3Client($more + [
        'endpoint' => getenv('ENDPOINT'),
        'region' => 'us-east-1',
        'use_path_style_endpoint' => true,
        'credentials' => ['key' => getenv('AWS_ACCESS_KEY_ID'), 'secret' => getenv('AWS_SECRET_ACCESS_KEY')],
        'retries' => 0,
    ]);
}

/** Bytes of the sample. */
function piece(int $offset, int $length): string
{
    $bytes = $length === 0 ? '' : file_get_contents(getenv('SAMPLE'), false, null, $offset, $length);
    assert(strlen($bytes) === $length);
    return $bytes;
}

function read(S3Client $s3, string $bucket, string $key, array $more = []): string
{
    return (string) $s3->getObject(['Bucket' => $bucket, 'Key' => $key] + $more)['Body'];
}

function same_files(string $what, string $one, string $other): void
{
    exec('cmp ' . escapeshellarg($one) . ' ' . escapeshellarg($other), $said, $status);
    equal($what, $status, 0);
}

/** A plain request, as a browser makes it: [status, headers in lower case, body]. */
function fetch(string $url, string $method = 'GET', ?string $body = null): array
{
    $handle = curl_init($url);
    $headers = [];
    curl_setopt_array($handle, [
        CURLOPT_CUSTOMREQUEST => $method,
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_HEADERFUNCTION => function ($_, string $line) use (&$headers): int {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $headers[strtolower($name)] = trim($value);
            return strlen($line);
        },
    ]);
    if ($body !== null) {
        // No Content-Type but what the link has signed.
        curl_setopt_array($handle, [CURLOPT_POSTFIELDS => $body, CURLOPT_HTTPHEADER => ['Content-Type:']]);
    }
    $answer = curl_exec($handle);
    return [curl_getinfo($handle, CURLINFO_RESPONSE_CODE), $headers, $answer];
}
