//! A gateway of the model: starts, shows, commits, changes the journal disks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use shardgate_journal::copies::{copy, plan_copies};
use shardgate_journal::disks::{JournalMap, MapStep, choose_journal, follow_maps};
use shardgate_journal::memory::MemoryLink;
use shardgate_journal::recover::Request;
use shardgate_journal::{
    JournalError, Member, Position, Record, Recovered, Refusal, Writer, WriterOptions, recover,
};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{
    CallContext, ClusterId, CommitNumber, DiskId, Epoch, InstanceId, LineageId, Purpose,
};
use tokio::time::sleep;

use crate::world::{World, payload};

const ANSWER: Duration = Duration::from_secs(20);
pub const SEGMENT_BYTES: usize = 96 * 1024;

pub struct Gateway {
    pub world: World,
    pub instance: u128,
    pub links: Vec<MemoryLink>,
    pub rng: StdRng,
    /// Set when it is to stop cleanly.
    pub stop: Arc<AtomicBool>,
    /// Set when it has committed something.
    pub served: Arc<AtomicBool>,
}

impl Gateway {
    pub fn new(world: World, instance: u128, seed: u64) -> Self {
        Self {
            links: world.disks.iter().map(|disk| disk.link()).collect(),
            world,
            instance,
            rng: StdRng::seed_from_u64(seed),
            stop: Arc::default(),
            served: Arc::default(),
        }
    }

    fn disks(&self) -> Vec<Arc<dyn JournalDisk>> {
        let link = |link: &MemoryLink| Arc::new(link.clone()) as Arc<dyn JournalDisk>;
        self.links.iter().map(link).collect()
    }

    fn member(&self, id: DiskId) -> Member {
        let disk = self.disks().into_iter().find(|disk| disk.disk() == id);
        Member {
            disk: disk.unwrap(),
            place: self.world.place(id),
            segment_bytes: SEGMENT_BYTES as u64,
        }
    }

    /// Asks the disks that answer for their maps.
    async fn newest_map(&self) -> Option<MapStep> {
        let mut seen = BTreeMap::new();
        for disk in self.disks() {
            if disk.standing().await.is_ok()
                && let Some((_, map)) = self.world.model.lock().maps.get(&disk.disk())
            {
                seen.insert(disk.disk(), map.clone());
            }
        }
        let asked: Vec<DiskId> = self.disks().iter().map(|disk| disk.disk()).collect();
        follow_maps(&seen, &asked)
    }

    /// Writes a map until it counts; false if another epoch is in force.
    async fn write_map(&self, ctx: CallContext, map: &JournalMap) -> bool {
        let mut durable = Vec::new();
        while !map.has_enough(&durable, &[]) {
            for id in map.all() {
                let link = self.links.iter().find(|link| link.disk() == id).unwrap();
                match link.raise(&ctx).await {
                    Ok(()) => {
                        // As the disk would judge: in the moment of writing.
                        if self.world.disk(id).epoch() != ctx.epoch {
                            return false;
                        }
                        let mut model = self.world.model.lock();
                        model.maps.insert(id, (ctx.epoch, map.clone()));
                        durable.push(id);
                    }
                    Err(shardgate_wire::StoreError::StaleEpoch { .. }) => return false,
                    Err(_) => {}
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        true
    }

    async fn find(&mut self, map: &JournalMap) -> Result<(Recovered, Position), JournalError> {
        let (from, begun) = {
            let model = self.world.model.lock();
            let last = model.kept.len() as u64;
            let at = match self.rng.random_range(0..4) {
                0 => model.checkpoint,
                1 => self.rng.random_range(model.checkpoint..=last),
                _ => last,
            };
            (model.position(at), last > 0)
        };
        let request = Request {
            ctx: CallContext {
                cluster: ClusterId(1),
                epoch: Epoch {
                    number: 0,
                    instance: InstanceId(self.instance),
                },
                lineage: LineageId(1),
                committed: CommitNumber(0),
                purpose: Purpose::Client,
            },
            map: map.clone(),
            lost: Vec::new(),
            from,
            begun,
            answer_within: ANSWER,
        };
        Ok((recover(&self.disks(), request).await?, from))
    }

    /// Starts: maps, recovery, what is shown. None if it has to try again.
    async fn start(&mut self) -> Option<(Writer, JournalMap)> {
        let step = self.newest_map().await?;
        let (MapStep::Complete(mut map) | MapStep::Settled(mut map)) = step.clone() else {
            panic!("all disks are asked");
        };
        let (recovered, from) = match self.find(&map).await {
            Ok(found) => found,
            Err(JournalError::Refused(Refusal::NoMajority { .. }))
            | Err(JournalError::Disk { .. } | JournalError::Fenced(_)) => {
                self.world.model.lock().counts.refused += 1;
                return None;
            }
            // Once the journal disks have changed, older segments lie on others,
            // which may be down now; then it waits for them.
            Err(JournalError::Refused(Refusal::MissingSegment { reached, .. }))
                if self.world.model.lock().counts.changes > 0
                    && reached.len() < self.world.disks.len() =>
            {
                self.world.model.lock().counts.refused += 1;
                return None;
            }
            Err(other) => {
                let why = format!("refused without a loss: {other}");
                self.world.model.lock().fail(why);
                return None;
            }
        };
        // Only now nobody else can write a map that counts.
        let again = self.newest_map().await?;
        let (MapStep::Complete(newest) | MapStep::Settled(newest)) = again.clone() else {
            panic!("all disks are asked");
        };
        if newest.number != map.number {
            return None;
        }
        let unproven = recovered.unproven() as u64;
        let ctx = recovered_ctx(&recovered, self.instance);
        if matches!(again, MapStep::Complete(_)) && !self.write_map(ctx, &map).await {
            return None;
        }
        let members = map.all().into_iter().map(|id| self.member(id)).collect();
        let options = WriterOptions {
            parity: self.world.parity,
            ..WriterOptions::default()
        };
        let (mut writer, mut replay) = recovered.settle(members, options).await.ok()?;
        let mut records = Vec::new();
        loop {
            match replay.next().await {
                Ok(Some(more)) => records.extend(more),
                Ok(None) => break,
                // The start is given up; nothing of it was shown.
                Err(
                    JournalError::Refused(Refusal::MissingSegment { .. })
                    | JournalError::Fenced(_)
                    | JournalError::Disk { .. },
                ) => return None,
                Err(other) => {
                    self.world.model.lock().fail(format!("replay: {other}"));
                    return None;
                }
            }
        }
        {
            let mut model = self.world.model.lock();
            model.shown(from, &records);
            model.counts.starts += 1;
            model.counts.rewritten += unproven;
        }
        if self.rng.random_bool(0.7) {
            let void = replay.remove_void().await as u64;
            self.world.model.lock().counts.void += void;
        }
        if map.old.is_some() {
            writer.change_done();
            map = self.without_old(&map);
            self.write_map(writer.context(), &map).await;
        }
        Some((writer, map))
    }

    fn without_old(&self, map: &JournalMap) -> JournalMap {
        JournalMap {
            number: map.number + 1,
            disks: map.disks.clone(),
            old: None,
        }
    }

    /// Its life: ends when another has taken over, or on a clean stop.
    pub async fn run(mut self) {
        let (mut writer, mut map) = loop {
            if let Some(started) = self.start().await {
                break started;
            }
            sleep(Duration::from_millis(self.rng.random_range(50..500))).await;
        };
        let mut counter = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if self.rng.random_range(0..60) == 0 {
                match self.change(&mut writer, &map).await {
                    Ok(Some(changed)) => map = changed,
                    Ok(None) => {}
                    Err(_) => return self.fenced(),
                }
            }
            match self.rng.random_range(0..120) {
                0 => self.copy(&mut writer).await,
                1 => self.trim(&mut writer).await,
                _ => {}
            }
            let mut at = writer.acknowledged();
            let records: Vec<Record> = (0..self.rng.random_range(1..5))
                .map(|_| {
                    counter += 1;
                    let len = match self.rng.random_range(0..8) {
                        0 => 9_000,
                        _ => self.rng.random_range(0..300),
                    };
                    let record = Record::after(&at, payload(self.instance, counter, len));
                    at = record.position;
                    record
                })
                .collect();
            let hashes = records.iter().map(|record| record.position.hash);
            self.world.model.lock().submitted.extend(hashes);
            match writer.append(records.clone()).await {
                Ok(_) => self.world.model.lock().acknowledged(&records),
                Err(_) => return self.fenced(),
            }
            self.served.store(true, Ordering::Relaxed);
            sleep(Duration::from_micros(self.rng.random_range(0..3_000))).await;
        }
        if writer.close().await {
            self.world.model.lock().counts.closed += 1;
        }
    }

    /// Copies what too few living disks hold.
    async fn copy(&self, writer: &mut Writer) {
        let living: Vec<DiskId> = {
            let gone = self.world.gone.lock();
            let living = |id: &DiskId| self.world.disk(*id).is_up() && !gone.contains(id);
            self.world
                .disks
                .iter()
                .map(|d| d.id())
                .filter(living)
                .collect()
        };
        let tasks = plan_copies(writer.closed(), &living, self.world.parity);
        for task in tasks.into_iter().take(3) {
            let closed = writer.closed().iter().find(|of| of.segment == task.segment);
            let closed = closed.unwrap().clone();
            let disk = |id: DiskId| self.member(id).disk;
            let (from, to) = (disk(task.from.0), disk(task.to));
            if let Ok(file) = copy(&closed, &from, &to, writer.context()).await {
                writer.copied(task.segment, task.to, file);
                self.world.model.lock().counts.copies += 1;
            }
        }
    }

    /// A checkpoint: what is before it is needed no more.
    async fn trim(&mut self, writer: &mut Writer) {
        let last = writer.acknowledged().number.0;
        let checkpoint = {
            let mut model = self.world.model.lock();
            model.checkpoint = self
                .rng
                .random_range(model.checkpoint..=last.max(model.checkpoint));
            model.checkpoint
        };
        for closed in writer.trim(CommitNumber(checkpoint)) {
            for (disk, file) in closed.holders {
                let _ = self
                    .member(disk)
                    .disk
                    .remove(&writer.context(), &[file])
                    .await;
            }
            self.world.model.lock().counts.trimmed += 1;
        }
    }

    fn fenced(&self) {
        self.world.model.lock().counts.fenced += 1;
    }

    async fn change(
        &mut self,
        writer: &mut Writer,
        map: &JournalMap,
    ) -> Result<Option<JournalMap>, JournalError> {
        let living: Vec<_> = {
            let gone = self.world.gone.lock();
            let disks = self.world.disks.iter();
            let living = disks.filter(|d| d.is_up() && !gone.contains(&d.id()));
            living.map(|disk| self.world.place(disk.id())).collect()
        };
        let disks = if self.world.servers > 1 {
            choose_journal(&living, &[], self.world.parity)
        } else {
            // Any others: what holds must not hang on the sets being alike.
            let mut ids: Vec<DiskId> = living.iter().map(|place| place.disk).collect();
            ids.shuffle(&mut self.rng);
            ids.truncate(map.disks.len());
            ids
        };
        if disks.len() != map.disks.len() || disks == map.disks {
            return Ok(None);
        }
        let changed = JournalMap {
            number: map.number + 1,
            disks,
            old: Some(map.disks.clone()),
        };
        let members = changed.all().into_iter().map(|id| self.member(id));
        writer
            .change_journal(members.collect(), changed.clone())
            .await?;
        if !self.write_map(writer.context(), &changed).await {
            // Another has taken over.
            return Err(JournalError::Closed);
        }
        writer.change_done();
        self.world.model.lock().counts.changes += 1;
        let settled = self.without_old(&changed);
        self.write_map(writer.context(), &settled).await;
        Ok(Some(settled))
    }
}

fn recovered_ctx(recovered: &Recovered, instance: u128) -> CallContext {
    let ctx = recovered.context();
    assert_eq!(ctx.epoch.instance, InstanceId(instance));
    ctx
}
