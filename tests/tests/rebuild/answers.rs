//! What clients were told, and whether it is so still.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use shardgate_tests::client::Client;
use shardgate_tests::{random, xml};

pub const BUCKETS: [&str; 2] = ["photos", "letters"];
/// More than what lies in the catalog alone.
const SIZES: [usize; 4] = [1_500, 20_000, 300_000, 1_500_000];
const PART: usize = 5 << 20;

/// An object as a client was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    body: Bytes,
    etag: String,
    content_type: String,
    meta: String,
}

/// Everything that clients were told.
#[derive(Default)]
pub struct Told {
    objects: BTreeMap<(String, String), Object>,
    deleted: Vec<(String, String)>,
    numbers: u64,
}

impl Told {
    pub async fn put(&mut self, client: &Client, bucket: &str, key: &str) {
        self.numbers += 1;
        let size = SIZES[(self.numbers % 4) as usize];
        let body: Bytes = random::bytes(self.numbers, size).into();
        self.put_body(client, bucket, key, body).await;
    }

    async fn put_body(&mut self, client: &Client, bucket: &str, key: &str, body: Bytes) {
        let content_type = format!("image/{}", self.numbers);
        let meta = format!("number {}", self.numbers);
        let ask = client
            .put(bucket, key, body.clone())
            .header("content-type", &content_type)
            .header("x-amz-meta-told", &meta);
        let answer = ask.send().await.expect("an answer");
        let etag = answer.expect_status(200).header("etag").to_owned();
        let object = Object {
            body,
            etag,
            content_type,
            meta,
        };
        self.take(bucket, key, object);
    }

    fn take(&mut self, bucket: &str, key: &str, object: Object) {
        let at = (bucket.to_owned(), key.to_owned());
        self.deleted.retain(|deleted| *deleted != at);
        self.objects.insert(at, object);
    }

    pub async fn delete(&mut self, client: &Client, bucket: &str, key: &str) {
        let ask = client.ask(Method::DELETE, format!("/{bucket}/{key}"));
        ask.send().await.expect("an answer").expect_status(204);
        let at = (bucket.to_owned(), key.to_owned());
        self.objects.remove(&at).expect("it was there");
        self.deleted.push(at);
    }

    /// An object of two parts, with a third that is not used.
    pub async fn put_in_parts(&mut self, client: &Client, bucket: &str, key: &str) {
        self.numbers += 1;
        let path = format!("/{bucket}/{key}");
        let ask = client.ask(Method::POST, &path).query("uploads", "");
        let ask = ask
            .header("content-type", "video/parts")
            .header("x-amz-meta-told", "in parts");
        let answer = ask.send().await.expect("an answer");
        let upload = xml::text_of(&answer.expect_status(200).body, "UploadId");
        let upload = upload.expect("an upload id");
        let mut body = Vec::new();
        let mut named = String::new();
        for (number, size) in [(1, PART), (2, 7_000), (3, 9_000)] {
            let part = random::bytes(self.numbers * 10 + number, size);
            let ask = client
                .put(bucket, key, part.clone())
                .query("partNumber", number.to_string())
                .query("uploadId", &upload);
            let answer = ask.send().await.expect("an answer");
            let etag = answer.expect_status(200).header("etag").to_owned();
            if number < 3 {
                body.extend(part);
                named.push_str(&format!(
                    "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
                ));
            }
        }
        let text = format!("<CompleteMultipartUpload>{named}</CompleteMultipartUpload>");
        let ask = client.ask(Method::POST, &path).query("uploadId", &upload);
        let answer = ask.body(text).send().await.expect("an answer");
        let etag = xml::text_of(&answer.expect_status(200).body, "ETag").expect("an ETag");
        let object = Object {
            body: body.into(),
            etag,
            content_type: "video/parts".to_owned(),
            meta: "in parts".to_owned(),
        };
        self.take(bucket, key, object);
    }

    /// Fills both buckets: objects of all sizes, some written again, some
    /// deleted, some in parts.
    pub async fn fill(&mut self, client: &Client) {
        for bucket in BUCKETS {
            client.make_bucket(bucket).await;
            for number in 0..12 {
                self.put(client, bucket, &format!("key/{number}")).await;
            }
            for number in [1, 4, 5] {
                self.put(client, bucket, &format!("key/{number}")).await;
            }
            for number in [2, 5, 9] {
                self.delete(client, bucket, &format!("key/{number}")).await;
            }
            self.put(client, bucket, "key/9").await;
            self.put_in_parts(client, bucket, "film").await;
        }
        self.put_in_parts(client, BUCKETS[0], "key/3").await;
        self.delete(client, BUCKETS[1], "film").await;
    }

    /// Small objects, which lie in the catalog alone.
    pub async fn put_inline(&mut self, client: &Client, bucket: &str, key: &str) {
        self.numbers += 1;
        let body: Bytes = random::bytes(self.numbers, 300).into();
        self.put_body(client, bucket, key, body).await;
    }

    /// Forgets what is not expected to come back.
    pub fn forget(&mut self, bucket: &str, key: &str) {
        self.objects.remove(&(bucket.to_owned(), key.to_owned()));
    }

    /// All of it is so, and nothing else is there.
    pub async fn check(&self, client: &Client) {
        for ((bucket, key), told) in &self.objects {
            let answer = client.get(bucket, key).send().await.expect("an answer");
            answer.expect_status(200);
            let found = Object {
                body: answer.body.clone(),
                etag: answer.header("etag").to_owned(),
                content_type: answer.header("content-type").to_owned(),
                meta: answer.header("x-amz-meta-told").to_owned(),
            };
            assert!(found.body == told.body, "{bucket}/{key} has other bytes");
            assert_eq!(
                (found.etag, found.content_type, found.meta),
                (
                    told.etag.clone(),
                    told.content_type.clone(),
                    told.meta.clone()
                ),
                "{bucket}/{key}"
            );
        }
        for (bucket, key) in &self.deleted {
            let answer = client.get(bucket, key).send().await.expect("an answer");
            answer.expect_status(404);
        }
        for bucket in BUCKETS {
            let ask = client
                .ask(Method::GET, format!("/{bucket}"))
                .query("list-type", "2");
            let answer = ask.send().await.expect("an answer");
            let listed = xml::texts_of(&answer.expect_status(200).body, "Key");
            let of_bucket = self.objects.keys().filter(|(of, _)| of == bucket);
            let told: Vec<String> = of_bucket.map(|(_, key)| key.clone()).collect();
            assert_eq!(listed, told, "{bucket}");
        }
    }
}
