//! What a gateway of the model does beside commits: checkpoints and trimming,
//! copies, other journal disks, and saying when everything is fully stored.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;
use shardgate_journal::JournalError;
use shardgate_journal::copies::{
    copy, is_whole, list_segments, not_fully_stored, plan_copies, plan_looks,
};
use shardgate_journal::disks::choose_journal;
use shardgate_journal::map::PoolMap;
use shardgate_wire::{DiskId, StoreError};
use tokio::time::{sleep, timeout};

use crate::catalog::{Root, Stored};
use crate::gateway::{Gateway, Running, WRITE};

impl Gateway {
    /// Now and then one of these.
    pub async fn care(&mut self, run: &mut Running) -> Result<(), JournalError> {
        match self.rng.random_range(0..120) {
            0 | 1 => self.change(run).await,
            2 => self.checkpoint(run).await,
            3 => self.sweep(run).await,
            4..=6 => {
                self.copy(run).await;
                self.report(run);
                Ok(())
            }
            7..=10 => {
                self.flush(run);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Looks at the copies of earlier gateways, then copies what too few living
    /// disks hold.
    async fn copy(&self, run: &mut Running) {
        let living = self.world.living();
        for (segment, disk, file) in plan_looks(run.writer.closed(), &living) {
            let mut closed = run.writer.closed().iter();
            let closed = closed.find(|of| of.segment == segment).unwrap().clone();
            let (disk, ctx) = (self.link(disk), run.writer.context());
            match is_whole(&closed, &disk, file, ctx).await {
                Ok(true) => run.writer.copied(segment, disk.disk(), file),
                Ok(false) => {
                    run.writer.not_copied(segment, disk.disk());
                    let _kept = disk.remove(&ctx, &[file]).await;
                    self.world.model.lock().counts.one("unfinished copies");
                }
                Err(_) => {}
            }
        }
        let tasks = plan_copies(run.writer.closed(), &living, self.world.parity);
        for task in tasks {
            let mut closed = run.writer.closed().iter();
            let closed = closed.find(|of| of.segment == task.segment);
            let closed = closed.unwrap().clone();
            let (from, to) = (self.link(task.from.0), self.link(task.to));
            if let Ok(file) = copy(&closed, &from, &to, run.writer.context()).await {
                run.writer.copied(task.segment, task.to, file);
                self.world.model.lock().counts.one("copies");
            }
        }
    }

    /// If everything is said to be fully stored, it must be: then any m more
    /// disks may go.
    fn report(&self, run: &Running) {
        let (living, parity) = (self.world.living(), self.world.parity);
        let lacking = not_fully_stored(run.writer.closed(), &living, parity);
        let members = run.writer.members();
        let on_living = members.iter().filter(|disk| living.contains(disk));
        let gone = self.world.gone.lock().clone();
        let journal = run.writer.map();
        if !lacking.is_empty()
            || on_living.count() <= parity
            || journal.old.is_some()
            || journal.disks.iter().any(|disk| gone.contains(disk))
        {
            return;
        }
        // Behind the older checkpoint, if the newest has all of its disks.
        let from = {
            let model = self.world.model.lock();
            let stored = run
                .roots
                .0
                .iter()
                .map(|root| model.checkpoints.get(&root.id));
            let whole = stored
                .flatten()
                .all(|of| of.disks.iter().all(|d| !gone.contains(d)));
            if !whole {
                return;
            }
            run.roots.journal_from().map_or(0, |number| number.0)
        };
        // Segments that none of the disks had that answered when it started are
        // not known of: their disks must come back, and it start again.
        let mut known = run.writer.closed().iter().map(|of| of.base.number.0);
        if known.next().is_some_and(|base| base > from) {
            self.world.model.lock().counts.one("not known back");
            return;
        }
        let mut chain: Vec<_> = run
            .writer
            .closed()
            .iter()
            .map(|of| (of.segment, of.base.number.0 + 1..=of.last.number.0))
            .collect();
        let behind = chain.last().map_or(0, |(_, of)| *of.end());
        let open = run.writer.segment().into_iter();
        chain.extend(open.map(|of| (of, behind + 1..=run.catalog.position.number.0)));
        let remaining = self.world.remaining();
        let few = self.world.on_fewer(from, &chain, &remaining, parity + 1);
        let mut model = self.world.model.lock();
        if let Some(number) = few {
            model.fail(format!("commit {number} is not on {} disks", parity + 1));
        }
        model.counts.one("fully stored");
        model.weak = false;
        model.mended = gone;
    }

    /// Takes a checkpoint: its files, its root on enough journal disks, then
    /// what nothing needs any more.
    async fn checkpoint(&mut self, run: &mut Running) -> Result<(), JournalError> {
        let parity = self.world.parity;
        let mut disks = self.world.living();
        disks.shuffle(&mut self.rng);
        disks.truncate(2 * parity + 2);
        if disks.len() <= parity {
            return Ok(());
        }
        self.flush(run);
        let root = {
            let mut model = self.world.model.lock();
            model.checkpoint_ids += 1;
            let stored = Stored {
                catalog: run.catalog.clone(),
                need: disks.len() - parity,
                disks,
            };
            let id = model.checkpoint_ids;
            model.checkpoints.insert(id, stored);
            let position = run.catalog.position;
            Root { position, id }
        };
        sleep(Duration::from_millis(self.rng.random_range(0..20))).await;
        let before = run.roots.clone();
        run.roots = before.with(root);
        self.tell_roots(run).await?;
        run.writer.set_checkpoints(run.roots.encode_each());
        let kept: Vec<u64> = run.roots.0.iter().map(|root| root.id).collect();
        {
            let mut model = self.world.model.lock();
            model.checkpoints.retain(|id, _| kept.contains(id));
            model.counts.one("checkpoints");
        }
        self.trim(run).await;
        Ok(())
    }

    /// Until they count.
    async fn tell_roots(&self, run: &Running) -> Result<(), JournalError> {
        let (ctx, bytes) = (run.writer.context(), run.roots.encode());
        let mut told: BTreeSet<DiskId> = BTreeSet::new();
        loop {
            for disk in self.disks() {
                if told.contains(&disk.disk()) {
                    continue;
                }
                let set = timeout(WRITE, disk.set_checkpoint(&ctx, bytes.clone())).await;
                match set {
                    Ok(Ok(())) => {
                        told.insert(disk.disk());
                    }
                    Ok(Err(StoreError::StaleEpoch { held })) => {
                        return Err(JournalError::Fenced(held));
                    }
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            let durable: Vec<DiskId> = told.iter().copied().collect();
            let lost = self.world.lost.all();
            if run.map.journal_map().has_enough(&durable, &lost) {
                return Ok(());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn trim(&self, run: &mut Running) {
        let Some(from) = run.roots.journal_from() else {
            return;
        };
        let named = run.roots.encode();
        let told = |disk: &DiskId| self.world.disk(*disk).root_record().checkpoint == named;
        if !self.world.is_on_enough(&run.map.journal, told) {
            let why = "trimmed before the root that names both checkpoints counts";
            self.world.model.lock().fail(why.to_owned());
        }
        for closed in run.writer.trim(from) {
            for (disk, file) in closed.holders {
                let ctx = run.writer.context();
                let _kept = self.link(disk).remove(&ctx, &[file]).await;
            }
            let mut model = self.world.model.lock();
            let last = closed.last.number;
            if last > from {
                model.fail(format!("trimmed to {last}, needed from {from}"));
            }
            model.trimmed.insert(closed.segment, last.0);
            model.counts.one("trimmed");
        }
    }

    /// Removes what a disk has of segments that are void or were trimmed.
    async fn sweep(&mut self, run: &mut Running) -> Result<(), JournalError> {
        let ids = self.world.living();
        let Some(id) = ids.get(self.rng.random_range(0..ids.len().max(1))) else {
            return Ok(());
        };
        let (disk, ctx) = (self.link(*id), run.writer.context());
        let Ok(listed) = list_segments(&disk, ctx).await else {
            return Ok(());
        };
        let writer = &run.writer;
        let over = listed
            .iter()
            .filter(|(of, _)| writer.is_void(*of) || writer.is_trimmed(*of));
        let files: Vec<_> = over.map(|(_, file)| *file).collect();
        let swept = files.len() as u64;
        let _kept = disk.remove(&ctx, &files).await;
        self.world.model.lock().counts.many("swept", swept);
        Ok(())
    }

    /// Other journal disks: for one that is lost, or for none.
    async fn change(&mut self, run: &mut Running) -> Result<(), JournalError> {
        let living = self.world.living();
        let places: Vec<_> = living.iter().map(|id| self.world.place(*id)).collect();
        let disks = if self.world.servers > 1 || self.rng.random_bool(0.5) {
            choose_journal(&places, &run.map.journal, self.world.parity)
        } else {
            // Any others: what holds must not hang on the sets being alike.
            let mut ids = living;
            ids.shuffle(&mut self.rng);
            ids.truncate(run.map.journal.len());
            ids
        };
        if disks.len() < run.map.journal.len().min(2) || disks == run.map.journal {
            return Ok(());
        }
        let changed = PoolMap {
            number: run.map.number + 1,
            epoch: run.writer.context().epoch,
            old: Some(run.map.journal.clone()),
            journal: disks,
            disks: self.map_disks(),
            ..run.map.clone()
        };
        let journal = changed.journal_map();
        let members = journal.all().into_iter().map(|id| self.member(id));
        let begun = run.writer.change_journal(members.collect(), journal);
        match begun.await {
            Err(JournalError::NotChanged) => {
                self.world.model.lock().counts.one("not changed");
                return Ok(());
            }
            begun => begun?,
        }
        run.serve_by_writers_map();
        let ctx = run.writer.context();
        self.write_map(&ctx, &changed).await?;
        run.writer.change_done();
        run.serve_by_writers_map();
        run.map = changed.settled(ctx.epoch);
        self.write_map(&ctx, &run.map).await?;
        self.world.model.lock().counts.one("changes");
        Ok(())
    }
}
