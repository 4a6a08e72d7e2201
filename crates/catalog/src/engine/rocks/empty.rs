//! Where no row lives: stretches of keys between two rows that do, so that a
//! scan goes past the deleted rows there by one seek.
//!
//! RocksDB steps over every deleted row, about a microsecond each, until
//! compaction has dropped it. What is known to be empty is kept in memory,
//! and only there: what is forgotten costs time alone.
//!
//! Invariants: a stretch is added only if no key in it was put since before
//! the iterator that found it empty was opened; it is withdrawn before a row
//! in it becomes visible. A scan uses those that it saw before it opened its
//! iterator and still sees after: such a stretch was empty in between.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};

/// Stretches that are kept; then the shortest goes.
const MOST: usize = 512;

/// Keys from `from` up to, not with, `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: Vec<u8>,
    /// `None`: up to the end.
    pub(super) to: Option<Vec<u8>>,
    /// Deleted rows that were there when it was found.
    pub(super) rows: u64,
}

impl Stretch {
    fn holds(&self, key: &[u8]) -> bool {
        *self.from <= *key && self.to.as_deref().is_none_or(|to| key < to)
    }

    /// Whether the two overlap, or one begins where the other ends.
    fn touches(&self, other: &Self) -> bool {
        let reaches = |one: &Self, next: &Self| one.to.as_ref().is_none_or(|to| *to >= next.from);
        reaches(self, other) && reaches(other, self)
    }

    /// Both as one; they touch.
    fn joined(self, other: &Self) -> Self {
        let to = match (self.to, &other.to) {
            (Some(one), Some(two)) => Some(one.max(two.clone())),
            _ => None,
        };
        Self {
            from: self.from.min(other.from.clone()),
            to,
            rows: self.rows + other.rows,
        }
    }
}

/// In order, none touching another.
type Stretches = Vec<Arc<Stretch>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Empty {
    seen: RwLock<Arc<Stretches>>,
    /// What is put while somebody looks. Who writes rows holds it meanwhile.
    watch: Mutex<Option<Watch>>,
}

/// The keys put since a look began, as far as they may matter.
#[derive(Debug)]
struct Watch {
    /// The look is at the surroundings of this key.
    around: Vec<u8>,
    /// The nearest put below or at it, and the nearest above.
    below: Option<Vec<u8>>,
    above: Option<Vec<u8>>,
}

impl Watch {
    fn note(&mut self, key: &[u8]) {
        if *key <= *self.around {
            if self.below.as_deref().is_none_or(|below| below < key) {
                self.below = Some(key.to_vec());
            }
        } else if self.above.as_deref().is_none_or(|above| key < above) {
            self.above = Some(key.to_vec());
        }
    }

    fn was_put_in(&self, stretch: &Stretch) -> bool {
        let put = self.below.iter().chain(&self.above);
        put.into_iter().any(|key| stretch.holds(key))
    }
}

/// Held by who writes rows, from before they are noted until they are written.
pub(super) struct Writing<'a> {
    empty: &'a Empty,
    watch: MutexGuard<'a, Option<Watch>>,
}

impl Writing<'_> {
    /// Withdraws the stretch that a put of this key ends.
    pub(super) fn note_put(&mut self, key: &[u8]) {
        if let Some(watch) = self.watch.as_mut() {
            watch.note(key);
        }
        let held = Arc::clone(&self.empty.seen.read());
        if let Some(at) = find(&held, key) {
            let mut stretches = Stretches::clone(&held);
            stretches.remove(at);
            *self.empty.seen.write() = Arc::new(stretches);
        }
    }
}

/// The stretch that holds a key.
fn find(stretches: &Stretches, key: &[u8]) -> Option<usize> {
    let behind = stretches.partition_point(|of| *of.from <= *key);
    let at = behind.checked_sub(1)?;
    stretches[at].holds(key).then_some(at)
}

impl Empty {
    /// To be held while rows are written.
    pub(super) fn writing(&self) -> Writing<'_> {
        Writing {
            empty: self,
            watch: self.watch.lock(),
        }
    }

    /// Begins a look around a key; to be called before its iterator is
    /// opened. One look at a time: a further one ends the first.
    pub(super) fn begin_look(&self, around: &[u8]) {
        *self.watch.lock() = Some(Watch {
            around: around.to_vec(),
            below: None,
            above: None,
        });
    }

    /// Ends a look. What it found is kept, unless a key in it was put since.
    /// Whether it is.
    pub(super) fn end_look(&self, found: Option<Stretch>) -> bool {
        let mut watch = self.watch.lock();
        let (Some(watch), Some(found)) = (watch.take(), found) else {
            return false;
        };
        if watch.was_put_in(&found) {
            return false;
        }
        let held = Arc::clone(&self.seen.read());
        let (touching, mut kept): (Stretches, Stretches) =
            held.iter().cloned().partition(|of| of.touches(&found));
        let joined = touching.iter().fold(found, |all, of| all.joined(of));
        let at = kept.partition_point(|of| of.from < joined.from);
        kept.insert(at, Arc::new(joined));
        if kept.len() > MOST {
            let shortest = (0..kept.len()).min_by_key(|at| kept[*at].rows);
            kept.remove(shortest.expect("there are some"));
        }
        *self.seen.write() = Arc::new(kept);
        true
    }

    /// What is empty now, for a scan that is about to open its iterator.
    pub(super) fn before(&self) -> Before<'_> {
        Before {
            empty: self,
            stretches: Arc::clone(&self.seen.read()),
        }
    }
}

/// What was empty before an iterator was opened.
pub(super) struct Before<'a> {
    empty: &'a Empty,
    stretches: Arc<Stretches>,
}

impl Before<'_> {
    /// What was empty when the iterator was opened, which is now.
    pub(super) fn opened(self) -> Passes {
        let after = Arc::clone(&self.empty.seen.read());
        if Arc::ptr_eq(&self.stretches, &after) {
            return Passes(after);
        }
        let held = |of: &&Arc<Stretch>| {
            let at = find(&after, &of.from);
            at.is_some_and(|at| Arc::ptr_eq(&after[at], of))
        };
        Passes(Arc::new(
            self.stretches.iter().filter(held).cloned().collect(),
        ))
    }
}

/// The stretches that one iterator may pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Passes(Arc<Stretches>);

impl Passes {
    /// Where the first row at or behind `key` can be; `key` itself where
    /// nothing is known, `None` if there is none.
    pub(super) fn pass<'a>(&'a self, key: &'a [u8]) -> Option<&'a [u8]> {
        match find(&self.0, key) {
            Some(at) => self.0[at].to.as_deref(),
            None => Some(key),
        }
    }

    /// The stretch that holds `key` or ends at it.
    pub(super) fn up_to(&self, key: &[u8]) -> Option<&Stretch> {
        let behind = self.0.partition_point(|of| *of.from <= *key);
        let of = &self.0[behind.checked_sub(1)?];
        let reaches = of.to.as_deref().is_none_or(|to| to >= key);
        reaches.then_some(&**of)
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(from: &str, to: Option<&str>) -> Stretch {
        Stretch {
            from: from.into(),
            to: to.map(Into::into),
            rows: 10,
        }
    }

    fn look(empty: &Empty, found: Stretch) -> bool {
        empty.begin_look(&found.from);
        empty.end_look(Some(found))
    }

    fn put(empty: &Empty, key: &str) {
        empty.writing().note_put(key.as_bytes());
    }

    fn known(empty: &Empty) -> Vec<(String, Option<String>)> {
        let text = |key: &Vec<u8>| String::from_utf8(key.clone()).unwrap();
        let seen = empty.seen.read();
        let all = seen.iter();
        all.map(|of| (text(&of.from), of.to.as_ref().map(text)))
            .collect()
    }

    #[test]
    fn stretches_that_touch_become_one() {
        let empty = Empty::default();
        for (from, to) in [("m", "p"), ("a", "c"), ("x", "z"), ("c", "m")] {
            assert!(look(&empty, stretch(from, Some(to))));
        }
        let ends = |from: &str, to: Option<&str>| (from.to_owned(), to.map(str::to_owned));
        assert_eq!(known(&empty), [ends("a", Some("p")), ends("x", Some("z"))]);
        assert!(look(&empty, stretch("y", None)));
        assert_eq!(known(&empty), [ends("a", Some("p")), ends("x", None)]);
        let passes = empty.before().opened();
        assert_eq!(passes.pass(b"a"), Some(&b"p"[..]));
        assert_eq!(passes.pass(b"ozz"), Some(&b"p"[..]));
        assert_eq!(passes.pass(b"p"), Some(&b"p"[..]));
        assert_eq!(passes.pass(b"0"), Some(&b"0"[..]));
        assert_eq!(passes.pass(b"xx"), None);
        assert_eq!(passes.up_to(b"p").map(|of| &*of.from), Some(&b"a"[..]));
        assert_eq!(passes.up_to(b"q"), None);
        assert_eq!(passes.up_to(b"0"), None);
    }

    #[test]
    fn a_put_withdraws_its_stretch_and_no_other() {
        let empty = Empty::default();
        for (from, to) in [("a", "c"), ("e", "g")] {
            assert!(look(&empty, stretch(from, Some(to))));
        }
        for outside in ["0", "c", "d", "g"] {
            put(&empty, outside);
            assert_eq!(known(&empty).len(), 2, "{outside}");
        }
        put(&empty, "f");
        assert_eq!(known(&empty).len(), 1);
        put(&empty, "a");
        assert_eq!(known(&empty).len(), 0);
    }

    #[test]
    fn what_is_put_during_a_look_is_not_empty() {
        for (inside, key) in [
            (true, "b"),
            (true, "c"),
            (true, "f"),
            (false, "0"),
            (false, "g"),
        ] {
            let empty = Empty::default();
            empty.begin_look(b"c");
            for key in ["00", key, "zz"] {
                put(&empty, key);
            }
            let kept = empty.end_look(Some(stretch("a", Some("g"))));
            assert_eq!(kept, !inside, "{key}");
        }
    }

    /// An iterator that was opened between two moments must not pass what was
    /// withdrawn, or found, in between.
    #[test]
    fn only_what_was_empty_before_and_after_is_passed() {
        let empty = Empty::default();
        look(&empty, stretch("a", Some("c")));
        look(&empty, stretch("e", Some("g")));
        let before = empty.before();
        put(&empty, "b");
        look(&empty, stretch("x", Some("z")));
        let passes = before.opened();
        assert_eq!(passes.pass(b"b"), Some(&b"b"[..]), "withdrawn");
        assert_eq!(passes.pass(b"f"), Some(&b"g"[..]));
        assert_eq!(passes.pass(b"y"), Some(&b"y"[..]), "found later");
        // Withdrawn and found again is another.
        let before = empty.before();
        put(&empty, "f");
        look(&empty, stretch("e", Some("g")));
        assert_eq!(before.opened().pass(b"f"), Some(&b"f"[..]));
    }

    #[test]
    fn no_more_are_kept_than_the_bound() {
        let empty = Empty::default();
        for n in 0..MOST + 10 {
            let (from, to) = (format!("{n:05}a"), format!("{n:05}b"));
            look(&empty, stretch(&from, Some(&to)));
        }
        assert_eq!(known(&empty).len(), MOST);
    }
}
