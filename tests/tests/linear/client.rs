//! One client: asks at random, and writes down what it was told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use shardgate_tests::client::{Ask, Client, Cut, Response};
use shardgate_tests::linear::Held;
use shardgate_tests::linear::history::{self, Asked, Record, When};
use shardgate_tests::linear::listing::Listing;
use shardgate_tests::model::Object;
use shardgate_tests::{random, xml};

use crate::run::Plan;

/// In order, as they are listed.
pub const KEYS: [&str; 6] = ["a", "a/b", "b", "c", "c/d", "d"];
/// How long a client waits whose gateway does not answer.
const PAUSE: Duration = Duration::from_millis(20);

/// What all clients share.
pub struct Shared {
    /// The clock of the run.
    zero: Instant,
    /// Answered operations.
    pub answered: AtomicU64,
    /// Whether clients go on.
    pub goes_on: AtomicBool,
    /// The last number given to a write.
    numbers: AtomicU64,
    /// The writes by their ETags.
    writes: Mutex<HashMap<String, u64>>,
    /// What each key was last seen to hold, for conditions that may hold.
    last: [AtomicU64; KEYS.len()],
}

/// What a store could do wrong, done here in its stead: the test of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A GET is answered from what was there before.
    StaleRead,
    /// A condition is not looked at.
    SkippedCondition,
    /// A write is acknowledged, and nothing is stored.
    LostWrite,
    /// A listing lacks a key.
    ShortListing,
}

/// One in so many answers is a lie, where there are lies.
const LIES: u32 = 10;

/// What one client was told, or all.
#[derive(Default)]
pub struct Told {
    /// Of single keys.
    pub records: Vec<(&'static str, Record)>,
    /// Of many.
    pub listings: Vec<Listing>,
}

impl Shared {
    pub fn new() -> Self {
        Self {
            zero: Instant::now(),
            answered: AtomicU64::new(0),
            goes_on: AtomicBool::new(true),
            numbers: AtomicU64::new(0),
            writes: Mutex::new(HashMap::new()),
            last: Default::default(),
        }
    }

    /// Nanoseconds of the run.
    pub fn now(&self) -> u64 {
        self.zero.elapsed().as_nanos() as u64
    }

    /// A new write: its number and its object.
    fn new_write(&self) -> (u64, Object) {
        let number = 1 + self.numbers.fetch_add(1, Ordering::Relaxed);
        let object = object(number);
        let known = self.writes.lock().insert(object.etag.clone(), number);
        assert_eq!(known, None, "every write has an ETag of its own");
        (number, object)
    }

    fn write_of(&self, etag: &str) -> u64 {
        let number = self.writes.lock().get(etag).copied();
        number.unwrap_or_else(|| panic!("nobody wrote {etag}"))
    }
}

/// What write `number` stores: in the catalog, as copies, or coded.
fn object(number: u64) -> Object {
    let len = match number % 16 {
        0..8 => 40,
        8..14 => 3_000,
        14 => 70_000,
        _ => 300_000,
    };
    Object::single(random::bytes(number, len).into(), None)
}

pub struct Asker {
    client: Client,
    shared: Arc<Shared>,
    rng: StdRng,
    bucket: &'static str,
    lie: Option<Lie>,
    /// What it read last of each key.
    seen: [Held; KEYS.len()],
    told: Told,
}

impl Asker {
    pub fn new(client: Client, shared: Arc<Shared>, rng: StdRng, plan: &Plan) -> Self {
        Self {
            client,
            shared,
            rng,
            bucket: plan.bucket,
            lie: plan.lie,
            seen: [None; KEYS.len()],
            told: Told::default(),
        }
    }

    /// Asks until all is done.
    pub async fn run(mut self) -> Told {
        while self.shared.goes_on.load(Ordering::Relaxed) {
            self.step().await;
        }
        self.told
    }

    /// Reads every key, and lists all of them.
    pub async fn read_all(mut self) -> Told {
        for at in 0..KEYS.len() {
            self.read(at, Method::GET).await;
        }
        self.list("", "", 1000).await;
        self.told
    }

    async fn step(&mut self) {
        let at = self.rng.random_range(0..KEYS.len());
        match self.rng.random_range(0..100) {
            0..28 => self.read(at, Method::GET).await,
            28..34 => self.read(at, Method::HEAD).await,
            34..76 => self.put(at).await,
            76..90 => self.delete(at).await,
            _ => {
                let prefix = ["", "", "", "a", "c/"][self.rng.random_range(0..5)];
                let after = ["", "", "a", "b", "c/d"][self.rng.random_range(0..5)];
                let max = [1000, 1000, 1, 2, 4][self.rng.random_range(0..5)];
                self.list(prefix, after, max).await;
            }
        }
    }

    fn lies(&mut self, lie: Lie) -> bool {
        self.lie == Some(lie) && self.rng.random_ratio(1, LIES)
    }

    fn path(&self, at: usize) -> String {
        format!("/{}/{}", self.bucket, KEYS[at])
    }

    /// Writes down one operation; slows down where nobody answers.
    async fn note(&mut self, at: usize, begun: u64, asked: Asked, told: history::Told) {
        let ended = self.shared.now();
        let record = Record {
            begun,
            ended,
            asked,
            told,
        };
        self.told.records.push((KEYS[at], record));
        use history::Told::{CutOff, Failed, NotSent};
        if matches!(told, CutOff | Failed | NotSent) {
            tokio::time::sleep(PAUSE).await;
            return;
        }
        let held = match (told, asked) {
            (history::Told::Held(held), _) => held,
            (history::Told::Done, Asked::Put(number, _)) => Some(number),
            _ => None,
        };
        if let Some(number) = held {
            self.shared.last[at].store(number, Ordering::Relaxed);
        }
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
    }

    async fn read(&mut self, at: usize, method: Method) {
        let begun = self.shared.now();
        let path = self.path(at);
        let answer = self.client.ask(method.clone(), path).send().await;
        let mut told = match answer {
            Ok(answer) if answer.status == 200 => {
                let number = self.shared.write_of(answer.header("etag"));
                if method == Method::GET {
                    assert!(
                        answer.body == object(number).bytes,
                        "write {number} has other bytes"
                    );
                }
                history::Told::Held(Some(number))
            }
            Ok(answer) if answer.status == 404 => {
                // The answer to a HEAD has no words.
                let code = answer.code();
                assert!(method == Method::HEAD || code == "NoSuchKey", "{code}");
                history::Told::Held(None)
            }
            failed => unknown(failed),
        };
        if let history::Told::Held(held) = &mut told {
            let before = std::mem::replace(&mut self.seen[at], *held);
            if self.lies(Lie::StaleRead) {
                *held = before;
            }
        }
        self.note(at, begun, Asked::Read, told).await;
    }

    fn any_condition(&mut self, at: usize) -> When {
        match self.rng.random_range(0..3) {
            0 => When::Always,
            1 => When::HoldsNothing,
            _ => match self.shared.last[at].load(Ordering::Relaxed) {
                0 => When::Always,
                number => When::Holds(number),
            },
        }
    }

    async fn put(&mut self, at: usize) {
        let when = self.any_condition(at);
        let (number, object) = self.shared.new_write();
        let begun = self.shared.now();
        let kept = if self.lies(Lie::SkippedCondition) {
            When::Always
        } else {
            when
        };
        let is_lost = when == When::Always && self.lies(Lie::LostWrite);
        let ask = self.client.put(self.bucket, KEYS[at], object.bytes);
        let told = if is_lost {
            history::Told::Done
        } else {
            changed(with_condition(ask, kept).send().await)
        };
        self.note(at, begun, Asked::Put(number, when), told).await;
    }

    async fn delete(&mut self, at: usize) {
        let when = match self.any_condition(at) {
            When::HoldsNothing => When::Always,
            when => when,
        };
        let begun = self.shared.now();
        let path = self.path(at);
        let ask = self.client.ask(Method::DELETE, path);
        let told = changed(with_condition(ask, when).send().await);
        self.note(at, begun, Asked::Delete(when), told).await;
    }

    async fn list(&mut self, prefix: &str, after: &str, max: usize) {
        let begun = self.shared.now();
        let ask = self.client.ask(Method::GET, format!("/{}", self.bucket));
        let ask = ask
            .query("list-type", "2")
            .query("prefix", prefix)
            .query("start-after", after)
            .query("max-keys", max.to_string());
        let answer = match ask.send().await {
            Ok(answer) if answer.status == 200 => answer,
            failed => {
                unknown(failed);
                tokio::time::sleep(PAUSE).await;
                return;
            }
        };
        let ended = self.shared.now();
        let mut shown = self.shown(&answer, prefix, after, max);
        if self.lies(Lie::ShortListing)
            && let Some(held) = shown.values_mut().find(|held| held.is_some())
        {
            *held = None;
        }
        self.told.listings.push(Listing {
            begun,
            ended,
            shown,
        });
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// What a page says of every key that it covers.
    fn shown(
        &self,
        answer: &Response,
        prefix: &str,
        after: &str,
        max: usize,
    ) -> BTreeMap<String, Held> {
        let names = xml::texts_of(&answer.body, "Key");
        let etags = xml::texts_of(&answer.body, "ETag");
        assert_eq!(names.len(), etags.len(), "every key has an ETag");
        assert!(names.is_sorted() && names.len() <= max, "{names:?}");
        let mut shown: BTreeMap<_, _> = names
            .iter()
            .zip(&etags)
            .map(|(name, etag)| (name.clone(), Some(self.shared.write_of(etag))))
            .collect();
        assert_eq!(shown.len(), names.len(), "a key twice: {names:?}");
        let in_range = |key: &str| key.starts_with(prefix) && key > after;
        let known = |key: &String| in_range(key) && KEYS.contains(&key.as_str());
        assert!(shown.keys().all(known), "{names:?} after {after:?}");
        // Behind the last of a page that goes on it says nothing.
        let goes_on = xml::text_of(&answer.body, "IsTruncated").expect("always there") == "true";
        assert!(!goes_on || names.len() == max, "{names:?} of {max}");
        let last = names.last().filter(|_| goes_on);
        for key in KEYS {
            if in_range(key) && last.is_none_or(|last| key < last.as_str()) {
                shown.entry(key.to_owned()).or_insert(None);
            }
        }
        shown
    }
}

fn with_condition(ask: Ask<'_>, when: When) -> Ask<'_> {
    match when {
        When::Always => ask,
        When::HoldsNothing => ask.header("if-none-match", "*"),
        When::Holds(number) => ask.header("if-match", object(number).etag),
    }
}

/// What the answer to a change says.
fn changed(answer: Result<Response, Cut>) -> history::Told {
    match answer.as_ref().map(|answer| answer.status.as_u16()) {
        Ok(200 | 204) => history::Told::Done,
        Ok(412) => history::Told::Refused,
        Ok(404) => history::Told::Missing,
        Ok(409) => history::Told::Disturbed,
        _ => unknown(answer),
    }
}

/// Cut off, or a failure that says so: it may have happened. Anything else is
/// no answer that this test knows.
fn unknown(answer: Result<Response, Cut>) -> history::Told {
    match answer {
        Ok(answer) => {
            assert!(answer.status.is_server_error(), "{answer:?}");
            history::Told::Failed
        }
        Err(cut) if cut.connected => history::Told::CutOff,
        Err(_) => history::Told::NotSent,
    }
}
