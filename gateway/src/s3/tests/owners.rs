//! Whom things belong to, when the root identity gets another access key.

use super::client::{ACCESS, Answer, Call, SECRET, Server, server_settings};
use super::signer::Signer;
use crate::s3::S3Settings;

const NEW: &str = "another-operator";

/// What is asked by the one key and by the other.
struct Rotated {
    before: Server,
    after: Server,
}

impl Rotated {
    async fn with_bucket() -> Self {
        let before = Server::with_bucket().await;
        let store = before.store.clone();
        let after = Server::over(store, S3Settings::default(), server_settings(), NEW).await;
        Self { before, after }
    }

    fn ask(&self, method: &str, path: &str) -> Call {
        let mut call = self.after.request(method, path);
        call.signer = Signer::new(NEW, SECRET);
        call
    }

    /// The same of both.
    async fn both(&self, path: &str, query: &[(&str, &str)]) -> (Answer, Answer) {
        let with = |call: Call| {
            query
                .iter()
                .fold(call, |call, (name, value)| call.query(name, value))
        };
        let before = with(self.before.request("GET", path)).send().await;
        let after = with(self.ask("GET", path)).send().await;
        (before, after)
    }
}

#[tokio::test]
async fn a_new_access_key_owns_what_the_old_one_made() {
    let rotated = Rotated::with_bucket().await;
    rotated.before.put("/bucket/key", b"x").await;
    let begun = rotated.before.request("POST", "/bucket/big");
    let begun = begun.query("uploads", "").send().await;
    let upload = begun.element("UploadId").unwrap();

    let again = rotated.ask("PUT", "/bucket").send().await;
    again.refused(409, "BucketAlreadyOwnedByYou");
    let root = rotated.ask("GET", "/").send().await.element("ID").unwrap();
    assert_eq!(root.len(), 64, "as a canonical user id");
    let fetch = [("list-type", "2"), ("fetch-owner", "true")];
    for (path, query) in [
        ("/", &[][..]),
        ("/bucket", &[]),
        ("/bucket", &fetch),
        ("/bucket", &[("versions", "")]),
        ("/bucket", &[("uploads", "")]),
        ("/bucket", &[("acl", "")]),
        ("/bucket/key", &[("acl", "")]),
        ("/bucket/big", &[("uploadId", &upload)]),
    ] {
        let (before, after) = rotated.both(path, query).await;
        assert_eq!((before.status, after.status), (200, 200), "{after:?}");
        let ids = after.elements("ID");
        assert!(!ids.is_empty(), "{path} {query:?}: {after:?}");
        assert!(ids.iter().all(|id| *id == root), "{ids:?}");
        assert_eq!(before.text(), after.text(), "{path} {query:?}");
        assert!(!after.text().contains(ACCESS), "{after:?}");
    }
    assert_eq!(
        rotated.ask("DELETE", "/bucket/key").send().await.status,
        204
    );
}

/// Buckets and uploads whose owner was recorded as the access key of then.
#[tokio::test]
async fn what_was_recorded_before_is_the_root_identitys() {
    let rotated = Rotated::with_bucket().await;
    let catalog = &rotated.before.store.catalog;
    let made = catalog.create_bucket("older", ACCESS, 1).await;
    assert_eq!(made.unwrap().owner, ACCESS);
    for server in [&rotated.before, &rotated.after] {
        let again = match server.address == rotated.after.address {
            true => rotated.ask("PUT", "/older"),
            false => server.request("PUT", "/older"),
        };
        again.send().await.refused(409, "BucketAlreadyOwnedByYou");
    }
    let (before, after) = rotated.both("/older", &[("acl", "")]).await;
    assert_eq!(before.text(), after.text());
    // What s3cmd reads and writes back is taken.
    let back = rotated
        .ask("PUT", "/older")
        .query("acl", "")
        .body(after.body);
    let back = back.send().await;
    assert_eq!(back.status, 200, "{back:?}");
}
