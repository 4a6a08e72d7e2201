//! boto3, which is also what most Python programs speak S3 with.

use shardgate_s3_compat_tests::client::{Client, python};
use shardgate_s3_compat_tests::client_cases;

fn boto3() -> Client {
    Client::new(python(), "boto3/run.py")
}

client_cases!(boto3_client, boto3(); buckets, objects, keys, large, multipart, sync, presign, ranges, copies,
    listing, delete_many, errors, metadata, classes, conditions, checksums, attributes, virtual_hosts);
