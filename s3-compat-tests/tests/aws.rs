//! The AWS command line: v1 from PyPI and v2 from Debian.

use shardgate_s3_compat_tests::client::{Client, python, required};
use shardgate_s3_compat_tests::client_cases;

fn v1() -> Client {
    let aws = required(python().with_file_name("aws"));
    Client::new("/bin/bash", "aws/run.sh")
        .with("AWS", aws)
        .with("AWS_MAJOR", "1")
}

fn v2() -> Client {
    let aws = required("/usr/bin/aws".into());
    Client::new("/bin/bash", "aws/run.sh")
        .with("AWS", aws)
        .with("AWS_MAJOR", "2")
}

client_cases!(one, v1(); buckets, objects, keys, large, multipart, sync, presign, ranges, copies, listing,
    delete_many, errors, metadata, classes, conditions, checksums, attributes);
client_cases!(two, v2(); buckets, objects, keys, large, multipart, sync, presign, ranges, copies, listing,
    delete_many, errors, metadata, classes, conditions, checksums, attributes);
