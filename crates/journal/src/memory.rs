//! Journal disks in memory, for tests: they take time, stall, stop, lose
//! power with what was not synced, and fail to sync.
//!
//! One can be made to break a rule of disks ([`Breach`]), so that a test shows
//! that it would notice. A call goes on when its caller is gone, as a request that has left does.
//! Everything random comes from the seed; time is `tokio`'s, which tests pause.

mod link;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shardgate_wire::journal::{DiskRoots, JOURNAL_PAGE, JournalFile};
use shardgate_wire::{CallContext, CommitNumber, DiskId, Epoch, LineageId, StoreError};
use tokio::time::{Instant, sleep};

const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct File {
    /// What the medium has.
    durable: Vec<u8>,
    /// Written and not yet synced.
    unsynced: Option<(usize, Bytes)>,
    /// What a cache shows after a failed sync, and the medium does not have.
    ghost: Option<(usize, Bytes)>,
    /// How far it was written since the disk was opened, and in which epoch.
    open: Option<(usize, Epoch)>,
    last: Option<(usize, Bytes)>,
}

/// A rule that a disk breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Takes calls of an epoch older than the one it has accepted.
    OlderEpochs,
    /// Takes calls of another instance under the same number.
    OtherInstances,
    /// Has its epoch in memory only.
    ForgetsEpoch,
    /// Answers before what it wrote is durable.
    AnswersUnsynced,
    /// Reads through the cache, which shows what a failed sync has lost.
    ReadsCache,
}

impl File {
    /// What was written gets to the medium.
    fn sync(&mut self) {
        if let Some((at, bytes)) = self.unsynced.take() {
            self.durable[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }
}

impl State {
    /// What a read of a file shows.
    fn read(&mut self, file: JournalFile) -> Option<Vec<u8>> {
        let held = self.files.get_mut(&file)?;
        let mut seen = held.durable.clone();
        if self.breach == Some(Breach::ReadsCache) {
            // Nothing holds it in the cache.
            if self.rng.random_bool(0.05) {
                held.ghost = None;
            }
            if let Some((at, bytes)) = &held.ghost {
                seen[*at..*at + bytes.len()].copy_from_slice(bytes);
            }
        }
        Some(seen)
    }
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    epoch: Epoch,
    last_call: Option<Instant>,
    told: (LineageId, CommitNumber),
    roots: DiskRoots,
    files: BTreeMap<JournalFile, File>,
    next_file: u64,
    last_begun: Option<JournalFile>,
    segment_bytes: usize,
    /// Raised whenever the process or the power goes.
    life: u64,
    up: bool,
    fenced: bool,
    fail_sync: bool,
    stalled_until: Option<Instant>,
    /// So many writes more are refused as too much.
    busy: u32,
    most_travel_us: u64,
    most_sync_us: u64,
    breach: Option<Breach>,
}

/// A disk in memory.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    id: DiskId,
    state: Arc<Mutex<State>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A disk as one gateway reaches it.
#[derive(Clone, Debug)]
pub struct MemoryLink {
    disk: MemoryDisk,
    cut: Arc<AtomicBool>,
}

fn unreachable() -> StoreError {
    StoreError::Unreachable {
        why: "no answer".into(),
    }
}

impl MemoryDisk {
    /// An empty disk whose segments take `segment_bytes`.
    pub fn new(id: DiskId, seed: u64, segment_bytes: usize) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            epoch: Epoch::default(),
            last_call: None,
            told: (LineageId::default(), CommitNumber::default()),
            roots: DiskRoots::default(),
            files: BTreeMap::new(),
            next_file: 1,
            last_begun: None,
            segment_bytes,
            life: 0,
            up: true,
            fenced: false,
            fail_sync: false,
            stalled_until: None,
            busy: 0,
            most_travel_us: 500,
            most_sync_us: 5_000,
            breach: None,
        };
        Self {
            id,
            state: Arc::new(Mutex::new(state)),
            turn: Arc::default(),
        }
    }

    /// Which disk it is.
    pub fn id(&self) -> DiskId {
        self.id
    }

    /// A way to the disk.
    pub fn link(&self) -> MemoryLink {
        MemoryLink {
            disk: self.clone(),
            cut: Arc::default(),
        }
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.state.lock().up
    }

    /// Ends the process: what was written stays in the system's cache.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.up = false;
        state.life += 1;
    }

    /// Takes the power: of what was not synced, any sectors may be there.
    pub fn lose_power(&self) {
        let mut state = self.state.lock();
        state.up = false;
        state.life += 1;
        let state = &mut *state;
        if state.breach == Some(Breach::ForgetsEpoch) {
            state.epoch = Epoch::default();
        }
        for file in state.files.values_mut() {
            file.ghost = None;
            if let Some((at, bytes)) = file.unsynced.take() {
                for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                    if state.rng.random_bool(0.5) {
                        let from = at + index * SECTOR;
                        file.durable[from..from + sector.len()].copy_from_slice(sector);
                    }
                }
            }
        }
    }

    /// Starts the process.
    pub fn open(&self) {
        let mut state = self.state.lock();
        state.up = true;
        state.fenced = false;
        state.fail_sync = false;
        state.stalled_until = None;
        state.last_call = None;
        state.last_begun = None;
        for file in state.files.values_mut() {
            file.open = None;
            file.last = None;
        }
    }

    /// Answers nothing for a time.
    pub fn stall(&self, time: Duration) {
        self.state.lock().stalled_until = Some(Instant::now() + time);
    }

    /// Refuses so many writes as too much at once.
    pub fn be_busy(&self, writes: u32) {
        self.state.lock().busy = writes;
    }

    /// Lets the next sync fail: the disk is fenced until it is opened again.
    pub fn fail_next_sync(&self) {
        self.state.lock().fail_sync = true;
    }

    /// Makes it break a rule from now on.
    pub fn breach(&self, rule: Breach) {
        self.state.lock().breach = Some(rule);
    }

    /// Flips a byte of what the medium has.
    pub fn flip(&self, file: JournalFile, offset: usize) {
        let mut state = self.state.lock();
        let file = state.files.get_mut(&file).expect("a file of the disk");
        file.durable[offset] ^= 0xff;
    }

    /// Its files with what the medium has, for assertions.
    pub fn contents(&self) -> Vec<(JournalFile, Vec<u8>)> {
        let state = self.state.lock();
        let files = state.files.iter();
        files
            .map(|(id, file)| (*id, file.durable.clone()))
            .collect()
    }

    /// What its root record says, for assertions.
    pub fn root_record(&self) -> DiskRoots {
        self.state.lock().roots.clone()
    }

    /// The epoch in force.
    pub fn epoch(&self) -> Epoch {
        self.state.lock().epoch
    }

    fn travel(&self) -> Duration {
        let mut state = self.state.lock();
        let most = state.most_travel_us;
        Duration::from_micros(state.rng.random_range(10..=most))
    }

    /// Waits for the process, its turn and a stall; then whoever holds the
    /// turn may go on until the life ends.
    async fn enter(&self) -> Result<(tokio::sync::OwnedMutexGuard<()>, u64), StoreError> {
        sleep(self.travel()).await;
        let life = {
            let state = self.state.lock();
            if !state.up {
                return Err(unreachable());
            }
            state.life
        };
        let turn = self.turn.clone().lock_owned().await;
        loop {
            let until = {
                let state = self.state.lock();
                if state.life != life {
                    return Err(unreachable());
                }
                state.stalled_until.filter(|until| *until > Instant::now())
            };
            match until {
                // In steps: the process may end meanwhile.
                Some(until) => {
                    let step = (until - Instant::now()).min(Duration::from_millis(100));
                    sleep(step).await;
                }
                None => return Ok((turn, life)),
            }
        }
    }

    fn admit(state: &mut State, ctx: &CallContext) -> Result<(), StoreError> {
        let admits = match state.breach {
            Some(Breach::OlderEpochs) => true,
            Some(Breach::OtherInstances) => ctx.epoch.number >= state.epoch.number,
            _ => state.epoch.admits(&ctx.epoch),
        };
        if !admits {
            return Err(StoreError::StaleEpoch { held: state.epoch });
        }
        if state.fenced {
            return Err(StoreError::Fenced {
                why: "a sync failed".into(),
            });
        }
        state.epoch = ctx.epoch;
        state.last_call = Some(Instant::now());
        if state.told.0 != ctx.lineage || state.told.1 < ctx.committed {
            state.told = (ctx.lineage, ctx.committed);
        }
        Ok(())
    }

    async fn leave<T>(&self, life: u64, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        sleep(self.travel()).await;
        if self.state.lock().life == life {
            answer
        } else {
            Err(unreachable())
        }
    }

    /// Runs a call that does not write to files.
    async fn run<T: Send + 'static>(
        self,
        ctx: Option<CallContext>,
        run: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let task = tokio::spawn(async move {
            let (turn, life) = self.enter().await?;
            let answer = {
                let mut state = self.state.lock();
                match ctx {
                    Some(ctx) => Self::admit(&mut state, &ctx),
                    None => Ok(()),
                }
                .and_then(|()| run(&mut state))
            };
            drop(turn);
            self.leave(life, answer).await
        });
        task.await.unwrap_or_else(|_| Err(unreachable()))
    }

    /// Judges a write, puts it into the cache, and after a time makes it
    /// durable.
    async fn write(
        self,
        ctx: CallContext,
        target: Option<(JournalFile, usize)>,
        bytes: Bytes,
    ) -> Result<JournalFile, StoreError> {
        let task = tokio::spawn(async move {
            let (turn, life) = self.enter().await?;
            let written = {
                let mut state = self.state.lock();
                if state.busy > 0 {
                    state.busy -= 1;
                    return Err(StoreError::Busy);
                }
                Self::admit(&mut state, &ctx).and_then(|()| match target {
                    None => start(&mut state, &ctx, &bytes),
                    Some((file, at)) => go_on(&mut state, &ctx, file, at, &bytes),
                })
            };
            let answer = match written {
                Ok((file, false)) => self.sync(life, file).await,
                Ok((file, true)) => Ok(file),
                Err(error) => Err(error),
            };
            drop(turn);
            self.leave(life, answer).await
        });
        task.await.unwrap_or_else(|_| Err(unreachable()))
    }

    async fn sync(&self, life: u64, file: JournalFile) -> Result<JournalFile, StoreError> {
        let time = {
            let mut state = self.state.lock();
            let most = state.most_sync_us;
            Duration::from_micros(state.rng.random_range(100..=most))
        };
        sleep(time).await;
        let mut state = self.state.lock();
        if state.life != life {
            return Err(unreachable());
        }
        if state.breach == Some(Breach::AnswersUnsynced) {
            return Ok(file);
        }
        let failed = std::mem::take(&mut state.fail_sync);
        state.fenced |= failed;
        let held = state.files.get_mut(&file).expect("it was just written");
        let (at, bytes) = held.unsynced.take().expect("it was just written");
        if failed {
            held.ghost = Some((at, bytes));
            return Err(StoreError::Fenced {
                why: "a sync failed".into(),
            });
        }
        held.durable[at..at + bytes.len()].copy_from_slice(&bytes);
        Ok(file)
    }
}

type Written = (JournalFile, bool);

/// A new file; true if the call is a repeat.
fn start(state: &mut State, ctx: &CallContext, bytes: &Bytes) -> Result<Written, StoreError> {
    check(bytes, 0, state.segment_bytes)?;
    if let Some(last) = state.last_begun
        && state.files.get(&last).and_then(|file| file.last.clone()) == Some((0, bytes.clone()))
    {
        return Ok((last, true));
    }
    let file = JournalFile(state.next_file);
    state.next_file += 1;
    state.last_begun = Some(file);
    state.files.insert(
        file,
        File {
            durable: vec![0; state.segment_bytes],
            unsynced: Some((0, bytes.clone())),
            ghost: None,
            open: Some((bytes.len(), ctx.epoch)),
            last: Some((0, bytes.clone())),
        },
    );
    Ok((file, false))
}

fn go_on(
    state: &mut State,
    ctx: &CallContext,
    file: JournalFile,
    at: usize,
    bytes: &Bytes,
) -> Result<Written, StoreError> {
    check(bytes, at, state.segment_bytes)?;
    let held = state.files.get_mut(&file).ok_or(StoreError::NoHandle)?;
    let (end, _) = held
        .open
        .filter(|(_, epoch)| *epoch == ctx.epoch)
        .ok_or(StoreError::NoHandle)?;
    if held.last.as_ref() == Some(&(at, bytes.clone())) {
        return Ok((file, true));
    }
    if at != end {
        return Err(StoreError::WrongOffset {
            expected: end as u64,
            given: at as u64,
        });
    }
    held.sync();
    held.unsynced = Some((at, bytes.clone()));
    held.open = Some((end + bytes.len(), ctx.epoch));
    held.last = Some((at, bytes.clone()));
    Ok((file, false))
}

fn check(bytes: &Bytes, at: usize, most: usize) -> Result<(), StoreError> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(JOURNAL_PAGE) {
        return Err(StoreError::BadCall {
            what: "not whole pages".into(),
        });
    }
    if at + bytes.len() > most {
        return Err(StoreError::NoSpace);
    }
    Ok(())
}
