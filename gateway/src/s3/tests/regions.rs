//! Where buckets are, in whichever region the store says it is.

use super::client::{Answer, Call, Server};
use crate::s3::S3Settings;

fn in_region(server: &Server, region: &str, method: &str, path: &str) -> Call {
    let mut call = server.request(method, path);
    call.signer.region = region.to_owned();
    call
}

async fn make(server: &Server, region: &str, path: &str, constraint: &str) -> Answer {
    let body = format!(
        "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{constraint}</LocationConstraint></CreateBucketConfiguration>"
    );
    in_region(server, region, "PUT", path)
        .body(body)
        .send()
        .await
}

#[tokio::test]
async fn a_bucket_is_where_the_store_is() {
    let west = "eu-west-1";
    for (region, location) in [("us-east-1", ""), (west, west)] {
        let server = Server::with(S3Settings {
            region: region.to_owned(),
            ..S3Settings::default()
        })
        .await;
        let other = if region == west { "us-east-1" } else { west };
        for constraint in [other, "EU", "nowhere-9"] {
            let refused = make(&server, region, "/elsewhere", constraint).await;
            refused.refused(400, "InvalidLocationConstraint");
        }
        let absent = in_region(&server, region, "GET", "/elsewhere").query("location", "");
        absent.send().await.refused(404, "NoSuchBucket");
        assert_eq!(make(&server, region, "/named", region).await.status, 200);
        assert_eq!(make(&server, region, "/empty", "").await.status, 200);
        let plain = in_region(&server, region, "PUT", "/plain").send().await;
        assert_eq!(plain.status, 200, "{plain:?}");
        for bucket in ["/named", "/empty", "/plain"] {
            let asked = in_region(&server, region, "GET", bucket).query("location", "");
            let answer = asked.send().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.text().contains("LocationConstraint"), "{answer:?}");
            // The first region has no name here.
            let text = answer.text();
            let said = text.contains(&format!(">{location}</LocationConstraint>"));
            assert!(
                said || (location.is_empty() && !text.contains("us-east-1")),
                "{text}"
            );
            let head = in_region(&server, region, "HEAD", bucket).send().await;
            assert_eq!(head.header("x-amz-bucket-region"), Some(region));
        }
        // Signed for another region: the answer says which is right.
        let wrong = in_region(&server, other, "GET", "/named").send().await;
        wrong.refused(400, "AuthorizationHeaderMalformed");
        assert_eq!(wrong.element("Region").as_deref(), Some(region));
        let listed = in_region(&server, region, "GET", "/").query("bucket-region", other);
        assert!(listed.send().await.elements("Name").is_empty());
    }
}
