//! What clients were told, and whether they find it.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use shardgate_tests::client::Client;
use shardgate_tests::model::Object;
use shardgate_tests::{random, xml};

const MIN_PART: usize = 5 << 20;
/// Nothing, inline, copies, shortened codes, several stripes.
const SIZES: [usize; 7] = [0, 10, 1_000, 5_000, 70_000, 400_000, 2_500_000];

/// A part that was stored.
#[derive(Clone, Debug)]
struct Part {
    bytes: Bytes,
    etag: String,
}

/// An upload that is open.
#[derive(Clone, Debug)]
struct Upload {
    bucket: String,
    key: String,
    id: String,
    parts: BTreeMap<u16, Part>,
}

/// An object with its headers.
#[derive(Clone, Debug)]
struct Stored {
    object: Object,
    headers: Headers,
}

/// What a client gave with an object, and gets with it.
type Headers = BTreeMap<&'static str, String>;

/// All that are compared: one that was not given is not there.
const HEADERS: [&str; 6] = [
    "content-type",
    "cache-control",
    "content-disposition",
    "content-language",
    "x-amz-meta-note",
    "x-amz-meta-long",
];

/// See the module.
pub struct Told {
    rng: StdRng,
    objects: BTreeMap<(String, String), Stored>,
    deleted: Vec<(String, String)>,
    buckets: Vec<String>,
    deleted_buckets: Vec<String>,
    uploads: Vec<Upload>,
}

impl Told {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: random::rng(seed),
            objects: BTreeMap::new(),
            deleted: Vec::new(),
            buckets: Vec::new(),
            deleted_buckets: Vec::new(),
            uploads: Vec::new(),
        }
    }

    /// Makes more of everything.
    pub async fn fill(&mut self, client: &Client, steps: usize) {
        for _ in 0..1 + steps / 20 {
            let name = format!("bucket-{}", self.buckets.len());
            client.make_bucket(&name).await;
            self.buckets.push(name);
        }
        for _ in 0..steps {
            match self.rng.random_range(0..20) {
                0..15 => self.put(client).await,
                15..18 => self.delete(client).await,
                18 => self.multipart(client).await,
                _ => self.upload(client).await,
            }
        }
        // Whatever the seed.
        self.multipart(client).await;
        self.upload(client).await;
        self.abort(client).await;
        self.bucket_that_goes(client).await;
    }

    /// One that is given up again.
    async fn abort(&mut self, client: &Client) {
        let mut upload = self.begin(client).await;
        self.part(client, &mut upload, 1, 40_000).await;
        let path = format!("/{}/{}", upload.bucket, upload.key);
        let gone = client
            .ask(Method::DELETE, path)
            .query("uploadId", &upload.id);
        gone.send().await.expect("an answer").expect_status(204);
    }

    async fn bucket_that_goes(&mut self, client: &Client) {
        let name = format!("gone-{}", self.deleted_buckets.len());
        client.make_bucket(&name).await;
        let gone = client.ask(Method::DELETE, format!("/{name}")).send().await;
        gone.expect("an answer").expect_status(204);
        self.deleted_buckets.push(name);
    }

    fn place(&mut self) -> (String, String) {
        let bucket = self.rng.random_range(0..self.buckets.len());
        let key = match self.rng.random_range(0..3) {
            0 => format!("plain-{}", self.rng.random_range(0..40)),
            1 => format!("a/b/{}", self.rng.random_range(0..40)),
            _ => format!("日/ä {}", self.rng.random_range(0..40)),
        };
        (self.buckets[bucket].clone(), key)
    }

    fn bytes(&mut self, len: usize) -> Bytes {
        random::bytes(self.rng.next_u64(), len).into()
    }

    async fn put(&mut self, client: &Client) {
        let (bucket, key) = self.place();
        let size = SIZES[self.rng.random_range(0..SIZES.len())];
        let body = self.bytes(size);
        let headers = self.headers();
        let mut put = client.put(&bucket, &key, body.clone());
        for (name, value) in &headers {
            put = put.header(name, value);
        }
        put.send().await.expect("an answer").expect_status(200);
        let object = Object::single(body, None);
        self.is_told(bucket, key, object, headers);
    }

    /// Some of those that a client may give.
    fn headers(&mut self) -> Headers {
        let number = self.rng.random_range(0..1000);
        let mut headers = Headers::from([("content-type", format!("text/x-{number}"))]);
        let long = "long ".repeat(300);
        for (name, value) in [
            ("cache-control", format!("max-age={number}")),
            (
                "content-disposition",
                format!("attachment; filename=\"{number}\""),
            ),
            ("content-language", "de, en".to_owned()),
            ("x-amz-meta-note", format!("note {number}")),
            // Too long for the row that listings read.
            ("x-amz-meta-long", long.trim().to_owned()),
        ] {
            if self.rng.random_range(0..3) == 0 {
                headers.insert(name, value);
            }
        }
        headers
    }

    fn is_told(&mut self, bucket: String, key: String, object: Object, headers: Headers) {
        self.deleted
            .retain(|gone| *gone != (bucket.clone(), key.clone()));
        let stored = Stored { object, headers };
        self.objects.insert((bucket, key), stored);
    }

    async fn delete(&mut self, client: &Client) {
        let count = self.objects.len();
        if count == 0 {
            return;
        }
        let index = self.rng.random_range(0..count);
        let (bucket, key) = self
            .objects
            .keys()
            .nth(index)
            .expect("below the count")
            .clone();
        let path = format!("/{bucket}/{key}");
        let gone = client.ask(Method::DELETE, path).send().await;
        gone.expect("an answer").expect_status(204);
        self.objects.remove(&(bucket.clone(), key.clone()));
        self.deleted.push((bucket, key));
    }

    async fn begin(&mut self, client: &Client) -> Upload {
        let (bucket, key) = self.place();
        let path = format!("/{bucket}/{key}");
        let ask = client.ask(Method::POST, &path).query("uploads", "");
        let begun = ask.header("content-type", "text/x-parts").send().await;
        let begun = begun.expect("an answer");
        let id = xml::text_of(&begun.expect_status(200).body, "UploadId").expect("an id");
        Upload {
            bucket,
            key,
            id,
            parts: BTreeMap::new(),
        }
    }

    async fn part(&mut self, client: &Client, upload: &mut Upload, number: u16, len: usize) {
        let bytes = self.bytes(len);
        let put = client
            .put(&upload.bucket, &upload.key, bytes.clone())
            .query("partNumber", number.to_string())
            .query("uploadId", &upload.id);
        let etag = put
            .send()
            .await
            .expect("an answer")
            .expect_status(200)
            .header("etag")
            .to_owned();
        upload.parts.insert(number, Part { bytes, etag });
    }

    async fn complete(&mut self, client: &Client, upload: Upload) {
        let mut list = String::from("<CompleteMultipartUpload>");
        for (number, part) in &upload.parts {
            let etag = &part.etag;
            list += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        list += "</CompleteMultipartUpload>";
        let path = format!("/{}/{}", upload.bucket, upload.key);
        let ask = client
            .ask(Method::POST, &path)
            .query("uploadId", &upload.id);
        let answer = ask.body(list).send().await.expect("an answer");
        answer.expect_status(200);
        let parts: Vec<Bytes> = upload
            .parts
            .values()
            .map(|part| part.bytes.clone())
            .collect();
        let object = Object::multipart(&parts, None);
        let headers = Headers::from([("content-type", "text/x-parts".to_owned())]);
        self.is_told(upload.bucket, upload.key, object, headers);
    }

    async fn multipart(&mut self, client: &Client) {
        let mut upload = self.begin(client).await;
        self.part(client, &mut upload, 1, MIN_PART).await;
        self.part(client, &mut upload, 2, 12_345).await;
        self.complete(client, upload).await;
    }

    /// One that stays open.
    async fn upload(&mut self, client: &Client) {
        let mut upload = self.begin(client).await;
        for number in [3, 8] {
            let len = self.rng.random_range(1..300_000);
            self.part(client, &mut upload, number, len).await;
        }
        self.uploads.push(upload);
    }

    /// Everything is as it was told.
    pub async fn check(&self, client: &Client) {
        self.check_buckets(client).await;
        for bucket in &self.buckets {
            self.check_list(client, bucket).await;
            self.check_uploads(client, bucket).await;
        }
        for ((bucket, key), stored) in &self.objects {
            let answer = client.get(bucket, key).send().await.expect("an answer");
            answer.expect_status(200);
            let place = format!("{bucket}/{key}");
            assert!(
                answer.body == stored.object.bytes,
                "{place} has other bytes"
            );
            assert_eq!(answer.header("etag"), stored.object.etag, "{place}");
            for name in HEADERS {
                let given = stored.headers.get(name).map_or("", String::as_str);
                assert_eq!(answer.header(name), given, "{name} of {place}");
            }
        }
        for (bucket, key) in &self.deleted {
            let answer = client.get(bucket, key).send().await.expect("an answer");
            answer.expect_status(404);
        }
    }

    async fn check_buckets(&self, client: &Client) {
        let listed = client
            .ask(Method::GET, "/")
            .send()
            .await
            .expect("an answer");
        let mut names = xml::texts_of(&listed.expect_status(200).body, "Name");
        names.sort();
        let mut expected = self.buckets.clone();
        expected.sort();
        assert_eq!(names, expected);
        for gone in &self.deleted_buckets {
            let path = format!("/{gone}");
            let answer = client.ask(Method::GET, path).query("list-type", "2");
            answer.send().await.expect("an answer").expect_status(404);
        }
    }

    async fn check_list(&self, client: &Client, bucket: &str) {
        let (mut keys, mut etags, mut token) = (Vec::new(), Vec::new(), None::<String>);
        loop {
            let ask = client
                .ask(Method::GET, format!("/{bucket}"))
                .query("list-type", "2");
            let mut ask = ask.query("max-keys", "7");
            if let Some(token) = &token {
                ask = ask.query("continuation-token", token);
            }
            let answer = ask.send().await.expect("an answer");
            keys.extend(xml::texts_of(&answer.expect_status(200).body, "Key"));
            etags.extend(xml::texts_of(&answer.body, "ETag"));
            token = xml::text_of(&answer.body, "NextContinuationToken");
            if token.is_none() {
                break;
            }
        }
        let here = self.objects.iter().filter(|((of, _), _)| of == bucket);
        let (expected, tags): (Vec<_>, Vec<_>) = here
            .map(|((_, key), stored)| (key.clone(), stored.object.etag.clone()))
            .unzip();
        assert_eq!(keys, expected, "{bucket}");
        assert_eq!(etags, tags, "{bucket}");
    }

    async fn check_uploads(&self, client: &Client, bucket: &str) {
        let ask = client
            .ask(Method::GET, format!("/{bucket}"))
            .query("uploads", "");
        let answer = ask.send().await.expect("an answer");
        let mut ids = xml::texts_of(&answer.expect_status(200).body, "UploadId");
        ids.sort();
        let here: Vec<&Upload> = self
            .uploads
            .iter()
            .filter(|of| of.bucket == bucket)
            .collect();
        let mut expected: Vec<String> = here.iter().map(|of| of.id.clone()).collect();
        expected.sort();
        assert_eq!(ids, expected, "{bucket}");
        for upload in here {
            let path = format!("/{bucket}/{}", upload.key);
            let ask = client.ask(Method::GET, path).query("uploadId", &upload.id);
            let answer = ask.send().await.expect("an answer");
            let body = &answer.expect_status(200).body;
            let found = ["PartNumber", "Size", "ETag"].map(|name| xml::texts_of(body, name));
            let parts = upload.parts.iter();
            let each = parts.map(|(number, part)| {
                let len = part.bytes.len();
                (number.to_string(), len.to_string(), part.etag.clone())
            });
            let (mut numbers, mut sizes, mut etags) = (Vec::new(), Vec::new(), Vec::new());
            for (number, size, etag) in each {
                numbers.push(number);
                sizes.push(size);
                etags.push(etag);
            }
            assert_eq!(found, [numbers, sizes, etags], "{}", upload.key);
        }
    }

    /// Completes an upload that was open before.
    pub async fn complete_one(&mut self, client: &Client) {
        let upload = self.uploads.remove(0);
        let last = upload
            .parts
            .keys()
            .next_back()
            .copied()
            .expect("it has parts");
        // Parts before the last are too short for S3; the last alone will do.
        let upload = Upload {
            parts: upload
                .parts
                .into_iter()
                .filter(|(number, _)| *number == last)
                .collect(),
            ..upload
        };
        self.complete(client, upload).await;
    }
}
