//! curl: links that other programs signed, and requests that it signs itself.

use shardgate_s3_compat_tests::client::{Client, required};
use shardgate_s3_compat_tests::client_cases;

fn curl() -> Client {
    required("/usr/bin/curl".into());
    Client::new("/bin/bash", "curl/run.sh")
}

client_cases!(curl_client, curl(); presigned_get, presigned_put, large, ranges, conditions, signed, errors,
    virtual_hosts);
