//! s3cmd with both of its signatures.

use shardgate_s3_compat_tests::client::{Client, required};
use shardgate_s3_compat_tests::client_cases;

fn s3cmd(signature: &str) -> Client {
    required("/usr/bin/s3cmd".into());
    Client::new("/bin/bash", "s3cmd/run.sh").with("SIGNATURE", signature)
}

client_cases!(v4, s3cmd("v4"); buckets, objects, large, multipart, sync, presign, copies, listing,
    delete_many, errors, metadata, classes);
client_cases!(v2, s3cmd("v2"); buckets, objects, large, multipart, sync, presign, copies, listing,
    delete_many, errors, metadata, classes);
