//! Random operations on the store and on the reference model of S3: every
//! answer is compared. Once over the embedded pool, once over six agents,
//! with restarts and crashes of the gateway in between.

use bytes::Bytes;
use http::Method;
use rand::Rng;
use rand::rngs::StdRng;
use shardgate_tests::client::Client;
use shardgate_tests::model::{Bucket, Object};
use shardgate_tests::pool::TestPool;
use shardgate_tests::{random, xml};

const BUCKET: &str = "model";
/// Steps of a run; a run of both pools takes under a minute.
const STEPS: usize = 400;
/// Smallest part that is not the last.
const MIN_PART: usize = 5 * 1024 * 1024;

/// Keys are few, so that they meet again, and awkward.
const KEYS: &[&str] = &[
    "a",
    "a/b",
    "a/b/c",
    "a//b",
    "/lead",
    "trail/",
    "..",
    "a/../b",
    "./x",
    "ä/ö ü",
    "日本/語",
    "plus+sign",
    "per%20cent",
    "q?x=1&y",
    "tilde~",
    "sp ace",
    "\u{1F600}",
    "a-b",
    "a.b",
    "ab",
];

struct Run {
    client: Client,
    model: Bucket,
    rng: StdRng,
    seed: u64,
    step: usize,
}

impl Run {
    fn key(&mut self) -> &'static str {
        KEYS[self.rng.random_range(0..KEYS.len())]
    }

    /// Sizes around every border of the layout, most of them small.
    fn body(&mut self) -> Bytes {
        const BORDERS: &[usize] = &[
            0, 1, 1024, 4096, 65_536, 131_072, 262_144, 524_288, 1_048_576, 2_097_152,
        ];
        let border = BORDERS[self.rng.random_range(0..BORDERS.len())];
        let len = match self.rng.random_range(0..4) {
            0 => border,
            1 => border + 1,
            2 => border.saturating_sub(1),
            _ => self.rng.random_range(0..=border),
        };
        random::bytes(self.rng.random(), len).into()
    }

    async fn put(&mut self) {
        let (key, body) = (self.key(), self.body());
        let note = self
            .rng
            .random_bool(0.3)
            .then(|| format!("note {}", self.step));
        let mut ask = self.client.put(BUCKET, key, body.clone());
        if let Some(note) = &note {
            ask = ask.header("x-amz-meta-note", note);
        }
        let condition = self.rng.random_range(0..4);
        let current = self.model.objects.get(key);
        let (header, holds) = match (condition, current) {
            (0, current) => (Some(("if-none-match", "*".to_owned())), current.is_none()),
            (1, Some(object)) => (Some(("if-match", object.etag.clone())), true),
            (2, Some(_)) => {
                let other = format!("\"{}\"", "0".repeat(32));
                (Some(("if-match", other)), false)
            }
            _ => (None, true),
        };
        if let Some((name, value)) = header {
            ask = ask.header(name, value);
        }
        if self.rng.random_bool(0.3) {
            ask = ask.signed_payload();
        }
        let answer = ask.send().await.expect("an answer");
        if holds {
            let object = Object::single(body, note);
            assert_eq!(answer.expect_status(200).header("etag"), object.etag);
            self.model.objects.insert(key.into(), object);
        } else {
            assert_eq!(answer.expect_status(412).code(), "PreconditionFailed");
        }
    }

    async fn get(&mut self) {
        let key = self.key();
        let answer = self
            .client
            .get(BUCKET, key)
            .send()
            .await
            .expect("an answer");
        match self.model.objects.get(key) {
            None => assert_eq!(answer.expect_status(404).code(), "NoSuchKey"),
            Some(object) => check_whole(&answer, object),
        }
    }

    async fn range(&mut self) {
        let key = self.key();
        let Some(object) = self.model.objects.get(key).cloned() else {
            return;
        };
        let len = object.bytes.len() as u64;
        let (first, last) = (
            self.rng.random_range(0..=len),
            self.rng.random_range(0..=len + 9),
        );
        let (text, expected) = match self.rng.random_range(0..3) {
            0 if first <= last => {
                let end = (last + 1).min(len);
                (
                    format!("bytes={first}-{last}"),
                    (first < len).then_some((first, end)),
                )
            }
            1 => {
                let count = last.min(len);
                let held = (count > 0).then_some((len - count, len));
                (format!("bytes=-{last}"), held)
            }
            _ => (
                format!("bytes={first}-"),
                (first < len).then_some((first, len)),
            ),
        };
        let ask = self.client.get(BUCKET, key).header("range", &text);
        let answer = ask.send().await.expect("an answer");
        let Some((start, end)) = expected else {
            assert_eq!(
                answer.expect_status(416).code(),
                "InvalidRange",
                "{text} of {len}"
            );
            return;
        };
        answer.expect_status(206);
        let shown = format!("bytes {start}-{}/{len}", end - 1);
        assert_eq!(answer.header("content-range"), shown);
        assert!(
            answer.body == object.bytes[start as usize..end as usize],
            "{text} of {key}"
        );
    }

    async fn head(&mut self) {
        let key = self.key();
        let ask = self.client.ask(Method::HEAD, format!("/{BUCKET}/{key}"));
        let answer = ask.send().await.expect("an answer");
        match self.model.objects.get(key) {
            None => assert!(answer.expect_status(404).body.is_empty()),
            Some(object) => {
                answer.expect_status(200);
                assert_eq!(
                    answer.header("content-length"),
                    object.bytes.len().to_string()
                );
                assert_eq!(answer.header("etag"), object.etag);
            }
        }
    }

    async fn delete(&mut self) {
        let key = self.key();
        let ask = self.client.ask(Method::DELETE, format!("/{BUCKET}/{key}"));
        ask.send().await.expect("an answer").expect_status(204);
        self.model.objects.remove(key);
    }

    async fn copy(&mut self) {
        let (from, to) = (self.key(), self.key());
        if from == to {
            return;
        }
        let source = format!(
            "/{BUCKET}{}",
            shardgate_tests::sigv4::encode_path(&format!("/{from}"))
        );
        let ask = self
            .client
            .put(BUCKET, to, Bytes::new())
            .header("x-amz-copy-source", source);
        let answer = ask.send().await.expect("an answer");
        let Some(object) = self.model.objects.get(from).cloned() else {
            assert_eq!(answer.expect_status(404).code(), "NoSuchKey");
            return;
        };
        answer.expect_status(200);
        // A copy is one object again: its ETag is the MD5 of its bytes.
        let copied = Object::single(object.bytes, object.note);
        let etag = xml::text_of(&answer.body, "ETag").expect("a copy has an ETag");
        assert_eq!(etag, copied.etag);
        self.model.objects.insert(to.into(), copied);
    }

    async fn multipart(&mut self) {
        let key = self.key();
        let path = format!("/{BUCKET}/{key}");
        let ask = self.client.ask(Method::POST, &path).query("uploads", "");
        let begun = ask.send().await.expect("an answer");
        let id = xml::text_of(&begun.expect_status(200).body, "UploadId").expect("an id");
        let mut parts = Vec::new();
        let count = self.rng.random_range(1..=3);
        for number in 1..=count {
            let extra = self.rng.random_range(0..100_000);
            let len = if number == count {
                extra
            } else {
                MIN_PART + extra
            };
            parts.push(Bytes::from(random::bytes(self.rng.random(), len)));
        }
        // Out of order, as parallel clients send them.
        for number in (1..=count).rev() {
            let ask = self
                .client
                .ask(Method::PUT, &path)
                .body(parts[number - 1].clone());
            let ask = ask
                .query("partNumber", number.to_string())
                .query("uploadId", &id);
            ask.send().await.expect("an answer").expect_status(200);
        }
        if self.rng.random_bool(0.2) {
            let ask = self
                .client
                .ask(Method::DELETE, &path)
                .query("uploadId", &id);
            ask.send().await.expect("an answer").expect_status(204);
            let ask = self.client.ask(Method::GET, &path).query("uploadId", &id);
            let answer = ask.send().await.expect("an answer");
            assert_eq!(answer.expect_status(404).code(), "NoSuchUpload");
            return;
        }
        let object = Object::multipart(&parts, None);
        let mut list = String::from("<CompleteMultipartUpload>");
        for (index, part) in parts.iter().enumerate() {
            let etag = Object::single(part.clone(), None).etag;
            list += &format!(
                "<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>",
                index + 1
            );
        }
        list += "</CompleteMultipartUpload>";
        let ask = self
            .client
            .ask(Method::POST, &path)
            .query("uploadId", &id)
            .body(list);
        let answer = ask.send().await.expect("an answer");
        let etag = xml::text_of(&answer.expect_status(200).body, "ETag");
        assert_eq!(etag.expect("a completed upload has an ETag"), object.etag);
        self.model.objects.insert(key.into(), object);
    }

    async fn list(&mut self) {
        let prefix = ["", "a", "a/", "trail", "nothing", "日"][self.rng.random_range(0..6)];
        let delimiter = [None, Some("/"), Some("b"), Some("//")][self.rng.random_range(0..4)];
        let after = if self.rng.random_bool(0.3) {
            self.key()
        } else {
            ""
        };
        let max = self.rng.random_range(0..12);
        let ask = self
            .client
            .ask(Method::GET, format!("/{BUCKET}"))
            .query("list-type", "2");
        let mut ask = ask
            .query("prefix", prefix)
            .query("max-keys", max.to_string());
        if let Some(delimiter) = delimiter {
            ask = ask.query("delimiter", delimiter);
        }
        if !after.is_empty() {
            ask = ask.query("start-after", after);
        }
        let answer = ask.send().await.expect("an answer");
        let body = &answer.expect_status(200).body;
        let page = self.model.list(prefix, delimiter, after, max);
        let what = format!("prefix {prefix:?} delimiter {delimiter:?} after {after:?} max {max}");
        assert_eq!(xml::texts_of(body, "Key"), page.keys, "{what}");
        let mut prefixes = xml::texts_of(body, "Prefix");
        prefixes.remove(0);
        assert_eq!(prefixes, page.prefixes, "{what}");
        let truncated = xml::text_of(body, "IsTruncated").expect("always there");
        assert_eq!(truncated, page.truncated.to_string(), "{what}");
    }

    /// All pages of a listing, followed by their tokens.
    async fn list_all(&mut self) {
        let max = self.rng.random_range(1..5).to_string();
        let (mut keys, mut token) = (Vec::new(), None::<String>);
        loop {
            let ask = self
                .client
                .ask(Method::GET, format!("/{BUCKET}"))
                .query("list-type", "2");
            let mut ask = ask.query("max-keys", &max);
            if let Some(token) = &token {
                ask = ask.query("continuation-token", token);
            }
            let answer = ask.send().await.expect("an answer");
            keys.extend(xml::texts_of(&answer.expect_status(200).body, "Key"));
            token = xml::text_of(&answer.body, "NextContinuationToken");
            if token.is_none() {
                break;
            }
        }
        let expected: Vec<_> = self.model.objects.keys().cloned().collect();
        assert_eq!(keys, expected);
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..35 => self.put().await,
            35..50 => self.get().await,
            50..65 => self.range().await,
            65..70 => self.head().await,
            70..78 => self.delete().await,
            78..84 => self.copy().await,
            84..88 => self.multipart().await,
            88..97 => self.list().await,
            _ => self.list_all().await,
        }
    }

    async fn check_everything(&mut self) {
        for (key, object) in &self.model.objects {
            let answer = self
                .client
                .get(BUCKET, key)
                .send()
                .await
                .expect("an answer");
            check_whole(&answer, object);
        }
        self.list_all().await;
    }
}

fn check_whole(answer: &shardgate_tests::client::Response, object: &Object) {
    answer.expect_status(200);
    assert!(answer.body == object.bytes, "bytes differ");
    assert_eq!(answer.header("etag"), object.etag);
    assert_eq!(
        answer.header("x-amz-meta-note"),
        object.note.as_deref().unwrap_or("")
    );
}

async fn run(name: &str, mut pool: TestPool) {
    let seed = random::seed(name);
    let mut run = Run {
        client: pool.client(),
        model: Bucket::default(),
        rng: random::rng(seed),
        seed,
        step: 0,
    };
    run.client.make_bucket(BUCKET).await;
    for step in 0..STEPS {
        run.step = step;
        run.step().await;
        // What was acknowledged survives a clean end and a crash alike. The
        // client is a new one: connections of the old one have ended unseen.
        if step == STEPS / 3 {
            pool.stop();
            pool.start();
            run.client = pool.client();
        } else if step == 2 * STEPS / 3 {
            pool.kill();
            pool.start();
            run.client = pool.client();
        }
    }
    println!(
        "{name}: {} objects after {STEPS} steps, seed {}",
        run.model.objects.len(),
        run.seed
    );
    run.check_everything().await;
    pool.stop();
}

#[tokio::test]
async fn embedded_pool_does_what_the_model_does() {
    run(
        "embedded_pool_does_what_the_model_does",
        TestPool::embedded(6),
    )
    .await;
}

#[tokio::test]
async fn six_agents_do_what_the_model_does() {
    run(
        "six_agents_do_what_the_model_does",
        TestPool::with_agents(6, 1, None),
    )
    .await;
}
