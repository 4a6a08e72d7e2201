//! The AWS SDK for PHP: the client, and what people build on it.

use shardgate_s3_compat_tests::client::{Client, php_sdk, required};
use shardgate_s3_compat_tests::client_cases;

fn php() -> Client {
    Client::new(required("/usr/bin/php".into()), "php/run.php").with("PHP_SDK", php_sdk())
}

client_cases!(php_client, php(); buckets, objects, keys, large, multipart, sync, presign, ranges, copies,
    listing, delete_many, errors, metadata, classes, conditions, checksums, attributes, streams,
    virtual_hosts);
