//! Whether a commit's expectations hold: one evaluation for every engine that
//! keeps its own order of commits.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::{Change, Commit, EngineError, Expect, KeyRange};

/// What is applied.
pub(super) trait Base {
    /// Whether the key has this value.
    fn holds(&self, key: &[u8], value: Option<&[u8]>) -> Result<bool, EngineError>;
    /// The first `limit` rows of a range.
    fn rows(&self, range: &KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, EngineError>;
}

/// Changed keys and their new values.
pub(super) type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// What is applied, with what is pending laid over it.
pub(super) struct Overlay<'b, B: Base> {
    base: &'b B,
    pending: Changes,
}

impl<'b, B: Base> Overlay<'b, B> {
    pub(super) fn new(base: &'b B) -> Self {
        Self {
            base,
            pending: Changes::new(),
        }
    }

    /// The first expectation of `commit` that does not hold, if any.
    pub(super) fn first_failure(&self, commit: &Commit) -> Result<Option<usize>, EngineError> {
        for (index, expect) in commit.expect.iter().enumerate() {
            let holds = match expect {
                Expect::Value(key, value) => self.holds(key, value.as_deref())?,
                Expect::Rows(range, rows) => self.holds_rows(range, rows)?,
            };
            if !holds {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Adds the changes of a commit whose expectations hold.
    pub(super) fn add(&mut self, changes: Vec<Change>) {
        self.pending.extend(changes);
    }

    /// All that is pending.
    pub(super) fn into_changes(self) -> Changes {
        self.pending
    }

    fn holds(&self, key: &[u8], value: Option<&[u8]>) -> Result<bool, EngineError> {
        match self.pending.get(key) {
            Some(pending) => Ok(pending.as_deref() == value),
            None => self.base.holds(key, value),
        }
    }

    fn holds_rows(
        &self,
        range: &KeyRange,
        expected: &[(Bytes, Bytes)],
    ) -> Result<bool, EngineError> {
        if range.is_empty() {
            return Ok(expected.is_empty());
        }
        let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let pending: Vec<_> = self
            .pending
            .range::<Bytes, _>((Bound::Included(&range.start), end))
            .collect();
        // Every pending change can hide at most one row of the base.
        let limit = expected.len() + pending.len() + 1;
        let base = self.base.rows(range, limit)?;
        if pending.is_empty() {
            return Ok(base == expected);
        }
        let mut rows: BTreeMap<_, _> = base.into_iter().collect();
        for (key, value) in pending {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(rows.len() == expected.len() && rows.into_iter().eq(expected.iter().cloned()))
    }
}
