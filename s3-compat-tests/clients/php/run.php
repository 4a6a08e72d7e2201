<?php
// Runs one case with the AWS SDK for PHP: run.php CASE. PHP_SDK is the SDK's autoload file.

declare(strict_types=1);

error_reporting(E_ALL);
ini_set('display_errors', 'stderr');
require getenv('PHP_SDK');
require __DIR__ . '/expect.php';
foreach (['buckets', 'objects', 'transfers', 'protocol'] as $area) {
    require __DIR__ . "/$area.php";
}

$case = "case_$argv[1]";
ob_start();
$case(client());
$checks = ob_get_flush();
if (!str_starts_with($checks, 'ok 1')) {
    throw new RuntimeException('the case checked nothing');
}
echo "all checks hold\n";
