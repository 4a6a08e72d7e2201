//! rclone with both of its signatures.

use shardgate_s3_compat_tests::client::{Client, required};
use shardgate_s3_compat_tests::client_cases;

fn rclone(v2_auth: &str) -> Client {
    required("/usr/bin/rclone".into());
    Client::new("/bin/bash", "rclone/run.sh").with("RCLONE_CONFIG_SG_V2_AUTH", v2_auth)
}

client_cases!(v4, rclone("false"); buckets, objects, large, multipart, sync, presign, ranges, copies,
    listing, delete_many, errors, metadata, classes);
client_cases!(v2, rclone("true"); objects, multipart, sync, errors);
