//! Appends records to the journal, and keeps on doing so when members fail.
//!
//! One batch is in flight at a time; what is committed meanwhile is the next
//! (group commit without timers). A batch is acknowledged when every member
//! of its segment has it durably. When one fails, or is late, the next segment
//! begins on others, with the same records under the same numbers.
//!
//! Invariants: everything before the batch in flight is acknowledged, so that
//! what a start finds without proof fits into one first append; an answer
//! counts only for the append that is in flight; a record once handed over is
//! never withdrawn, the writer waits for disks as long as it takes; once the
//! epoch is another's nothing is ever written again.

mod behind;
mod fleet;
mod send;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardgate_wire::journal::{JOURNAL_PAGE, JournalDisk, JournalFile};
use shardgate_wire::{CallContext, CommitNumber, DiskId, LineageId};
use tokio::time::{Instant, sleep, timeout};

use crate::chain::{Position, Record};
use crate::contact::SharedContact;
use crate::copies::Closed;
use crate::disks::{Candidate, JournalMap, Lost};
use crate::error::JournalError;
use crate::format::{
    Batch, Kind, MAX_CHECKPOINT_BYTES, MAX_CHECKPOINTS, MAX_RECORDS_BYTES, SegmentHeader,
    SegmentId, record_bytes,
};
use crate::recover::Recovered;
use fleet::Fleet;
use send::{Append, Sent};

/// Between two looks for disks while too few are usable.
const WAIT: Duration = Duration::from_millis(20);
/// How long a change of the journal disks may keep commits waiting.
const CHANGE: Duration = Duration::from_secs(5);

/// A journal disk and where it is.
#[derive(Clone, Debug)]
pub struct Member {
    /// The disk.
    pub disk: Arc<dyn JournalDisk>,
    /// What it fails together with.
    pub place: Candidate,
    /// The longest file that a segment may be on it, bytes.
    pub segment_bytes: u64,
}

/// What a writer is told besides.
#[derive(Clone, Debug, Default)]
pub struct WriterOptions {
    /// The most parity shards of any class in use.
    pub parity: usize,
    /// Disks that the operator named lost for good.
    pub lost: Lost,
    /// Hears of every answer.
    pub contact: SharedContact,
    /// Roots of the checkpoints that are kept.
    pub checkpoints: Vec<Bytes>,
}

/// The segment that is written.
#[derive(Debug)]
struct Open {
    id: SegmentId,
    members: BTreeMap<DiskId, JournalFile>,
    base: Position,
    end: u64,
    most: u64,
    since: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Writer {
    ctx: CallContext,
    map: JournalMap,
    fleet: Fleet,
    checkpoints: Vec<Bytes>,
    sequence: u64,
    open: Option<Open>,
    /// The last record that was acknowledged, or proven by the start.
    acknowledged: Position,
    /// The last segment in which a batch was acknowledged.
    predecessor: Option<SegmentId>,
    /// The segments before the open one, the oldest first.
    closed: Vec<Closed>,
    /// Up to here no record is needed any more.
    trimmed: CommitNumber,
    ended: Option<JournalError>,
}

impl Writer {
    pub(crate) fn new(recovered: &Recovered, members: Vec<Member>, options: WriterOptions) -> Self {
        let fleet = Fleet::new(members, &recovered.map, &options);
        Self {
            ctx: recovered.ctx,
            map: recovered.map.clone(),
            fleet,
            checkpoints: options.checkpoints,
            sequence: 0,
            open: None,
            acknowledged: recovered.proven,
            predecessor: recovered.predecessor,
            closed: recovered.journal.clone(),
            trimmed: CommitNumber(0),
            ended: None,
        }
    }

    /// A writer that begins the journal anew: no segment names one that there
    /// was before, and so none of these counts from the first append on.
    pub fn anew(
        ctx: CallContext,
        map: &JournalMap,
        members: Vec<Member>,
        options: WriterOptions,
    ) -> Self {
        let fleet = Fleet::new(members, map, &options);
        Self {
            ctx,
            map: map.clone(),
            fleet,
            checkpoints: options.checkpoints,
            sequence: 0,
            open: None,
            acknowledged: Position::default(),
            predecessor: None,
            closed: Vec::new(),
            trimmed: CommitNumber(0),
            ended: None,
        }
    }

    /// The last record that was acknowledged.
    pub fn acknowledged(&self) -> Position {
        self.acknowledged
    }

    /// Cluster, lineage, epoch, and what is durable.
    pub fn context(&self) -> CallContext {
        let mut ctx = self.ctx;
        ctx.committed = self.acknowledged.number;
        ctx
    }

    /// The catalog has taken another lineage: calls and the next segments
    /// name it. The chain goes on.
    pub fn set_lineage(&mut self, lineage: LineageId) {
        self.ctx.lineage = lineage;
    }

    /// Disks of the open segment.
    pub fn members(&self) -> Vec<DiskId> {
        let open = self.open.iter();
        open.flat_map(|open| open.members.keys().copied()).collect()
    }

    /// The open segment.
    pub fn segment(&self) -> Option<SegmentId> {
        self.open.as_ref().map(|open| open.id)
    }

    /// The pool map's journal disks that it writes to.
    pub fn map(&self) -> &JournalMap {
        &self.map
    }

    /// Roots of the checkpoints that the next segments name.
    pub fn set_checkpoints(&mut self, roots: Vec<Bytes>) {
        assert!(roots.len() <= MAX_CHECKPOINTS, "two are kept");
        assert!(roots.iter().all(|root| root.len() <= MAX_CHECKPOINT_BYTES));
        self.checkpoints = roots;
    }

    /// Returns when all of these are acknowledged, in order, behind those
    /// before. Waits while too few disks are usable.
    ///
    /// # Errors
    /// Another gateway has taken over, or a record is too long for any batch;
    /// in the first case nothing is ever appended again.
    ///
    /// # Panics
    /// The records are not the next of the chain.
    pub async fn append(&mut self, records: Vec<Record>) -> Result<Position, JournalError> {
        self.check_open()?;
        let most = self.most_records_bytes();
        for record in &records {
            if record_bytes(&record.payload) > most {
                return Err(JournalError::TooLong(record.payload.len()));
            }
        }
        let mut batch: Vec<Record> = Vec::new();
        let mut size = 0;
        for record in records {
            let more = record_bytes(&record.payload);
            if size + more > most {
                let full = std::mem::take(&mut batch);
                self.write(full).await?;
                size = 0;
            }
            size += more;
            batch.push(record);
        }
        if !batch.is_empty() {
            self.write(batch).await?;
        }
        Ok(self.acknowledged)
    }

    /// Writes what a start found and could not prove, always into a new
    /// segment.
    pub(crate) async fn rewrite(&mut self, records: Vec<Record>) -> Result<(), JournalError> {
        assert!(self.open.is_none(), "a start comes before all else");
        self.write(records).await
    }

    /// Begins a new segment without records: before a change of the journal
    /// disks counts, and to end an open one.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub async fn begin_segment(&mut self) -> Result<(), JournalError> {
        self.check_open()?;
        self.seal();
        self.write(Vec::new()).await
    }

    /// Changes the journal disks: the next segment's members are a majority
    /// of the old and of the new, durable on all when this returns. Then the
    /// caller writes `map` to a majority of both, and calls
    /// [`Self::change_done`]; until then segments keep to both.
    ///
    /// Commits wait meanwhile, and the old journal disks alone might do for
    /// them: so it is given up after a time. No map with the new ones was
    /// written then, and a segment on them counts for nothing once there is
    /// a later one.
    ///
    /// # Errors
    /// [`JournalError::NotChanged`], and the journal goes on as before; else
    /// as [`Self::append`].
    pub async fn change_journal(
        &mut self,
        members: Vec<Member>,
        map: JournalMap,
    ) -> Result<(), JournalError> {
        assert_eq!(map.old.as_ref(), Some(&self.map.disks), "map names the old");
        self.check_open()?;
        let before = self.map.clone();
        self.fleet.change(members, &map);
        self.map = map;
        let begun = timeout(CHANGE, self.begin_segment()).await;
        begun.unwrap_or_else(|_| {
            self.fleet.keep(&before);
            self.map = before;
            Err(JournalError::NotChanged)
        })
    }

    /// The changed map counts: the old journal disks are needed no more.
    pub fn change_done(&mut self) {
        self.map.old = None;
        self.fleet.keep(&self.map);
        let mut members = self.members().into_iter();
        if !members.all(|member| self.map.disks.contains(&member)) {
            self.seal();
        }
    }

    /// Ends the journal: a closing batch proves to the next start that all
    /// before it was acknowledged. True if it was written.
    pub async fn close(mut self) -> bool {
        if self.check_open().is_err() {
            return false;
        }
        let Some(open) = &self.open else {
            return false;
        };
        let batch = self.batch(open.id, open.end, Kind::Closing, &[]);
        let bytes = batch.encode();
        if open.end + bytes.len() as u64 > open.most {
            return false;
        }
        let append = Append::next(open.members.clone(), open.end, bytes);
        let ctx = self.context();
        // The writer ends here whatever comes: no segment follows.
        matches!(self.fleet.send(ctx, append).await, Sent::All(_))
    }

    fn check_open(&self) -> Result<(), JournalError> {
        match &self.ended {
            Some(ended) => Err(ended.clone()),
            None => Ok(()),
        }
    }

    /// What the records of one batch may take, in any segment.
    fn most_records_bytes(&self) -> usize {
        let roots: usize = self.checkpoints.iter().map(|root| root.len() + 4).sum();
        let least = usize::try_from(self.fleet.least_segment_bytes()).unwrap_or(usize::MAX);
        // A closing batch has room behind the first.
        MAX_RECORDS_BYTES.min(least.saturating_sub(roots + 3 * JOURNAL_PAGE))
    }

    fn batch(&self, segment: SegmentId, offset: u64, kind: Kind, records: &[Record]) -> Batch {
        let last = records.last().map_or(self.acknowledged, |r| r.position);
        Batch {
            segment,
            offset,
            kind,
            before: self.acknowledged.number,
            acknowledged: self.acknowledged.number,
            last,
            payloads: records.iter().map(|r| r.payload.clone()).collect(),
        }
    }

    /// Writes one batch until every member of some segment has it.
    async fn write(&mut self, records: Vec<Record>) -> Result<(), JournalError> {
        if let Some(first) = records.first() {
            let next = self.acknowledged.next(&first.payload);
            assert_eq!(first.position, next, "records come in order");
        }
        self.fleet.probe(self.context());
        if self.widens() {
            self.seal();
        }
        if self.open.is_some() && self.write_next(&records).await? {
            return Ok(());
        }
        self.seal();
        while !self.write_first(&records).await? {}
        Ok(())
    }

    /// Whether the open segment has fewer members than it could have.
    fn widens(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let better = || self.fleet.choose(&self.members(), true);
            open.since.elapsed() > send::BETWEEN_SWITCHES
                && open.members.len() < self.fleet.target()
                && better().is_some_and(|members| members.len() > open.members.len())
        })
    }

    /// The open segment gets no further batch.
    fn seal(&mut self) {
        if let Some(open) = self.open.take() {
            self.closed.push(Closed {
                segment: open.id,
                base: open.base,
                last: self.acknowledged,
                file_bytes: open.most,
                holders: open.members,
                doubtful: BTreeMap::new(),
            });
        }
    }

    /// Appends to the open segment. False if the records need another.
    async fn write_next(&mut self, records: &[Record]) -> Result<bool, JournalError> {
        let open = self.open.as_ref().expect("the caller looked");
        let batch = self.batch(open.id, open.end, Kind::Next, records);
        let bytes = batch.encode();
        let len = bytes.len() as u64;
        // Room for a closing batch stays.
        if open.end + len + JOURNAL_PAGE as u64 > open.most {
            return Ok(false);
        }
        let append = Append::next(open.members.clone(), open.end, bytes);
        match self.send(append).await? {
            Sent::All(_) => {
                let open = self.open.as_mut().expect("only this task changes it");
                open.end += len;
                self.acknowledged = batch.last;
                Ok(true)
            }
            Sent::Failed | Sent::Late => Ok(false),
        }
    }

    /// Begins the next segment with these records. False if a member failed.
    async fn write_first(&mut self, records: &[Record]) -> Result<bool, JournalError> {
        let last = self.last_members();
        let punctual = self.fleet.choose(&last, true);
        let Some(members) = punctual.or_else(|| self.fleet.choose(&last, false)) else {
            self.check_fenced()?;
            sleep(WAIT).await;
            self.fleet.probe(self.context());
            return Ok(false);
        };
        self.sequence += 1;
        let id = SegmentId {
            epoch: self.ctx.epoch,
            sequence: self.sequence,
        };
        let header = SegmentHeader {
            cluster: self.ctx.cluster,
            lineage: self.ctx.lineage,
            members: members.clone(),
            map_number: self.map.number,
            predecessor: self.predecessor,
            base: self.acknowledged,
            checkpoints: self.checkpoints.clone(),
        };
        let base = self.acknowledged;
        let batch = self.batch(id, 0, Kind::First(header), records);
        let bytes = batch.encode();
        let end = bytes.len() as u64;
        match self.send(Append::first(members, bytes)).await? {
            Sent::All(members) => {
                self.open = Some(Open {
                    id,
                    members,
                    base,
                    end,
                    most: self.fleet.least_segment_bytes(),
                    since: Instant::now(),
                });
                self.acknowledged = batch.last;
                self.predecessor = Some(id);
                Ok(true)
            }
            Sent::Failed | Sent::Late => Ok(false),
        }
    }

    fn last_members(&self) -> Vec<DiskId> {
        let last = self.closed.last();
        last.map_or_else(Vec::new, |last| last.holders.keys().copied().collect())
    }

    async fn send(&mut self, append: Append) -> Result<Sent, JournalError> {
        let ctx = self.context();
        let sent = self.fleet.send(ctx, append).await;
        self.check_fenced()?;
        Ok(sent)
    }

    /// An older gateway stops for ever, and never fences in turn.
    fn check_fenced(&mut self) -> Result<(), JournalError> {
        if let Some(held) = self.fleet.taken_over() {
            self.ended = Some(JournalError::Fenced(held));
        }
        self.check_open()
    }
}
