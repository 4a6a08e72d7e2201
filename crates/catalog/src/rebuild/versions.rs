//! Of each key its newest version, with all its rows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shardgate_wire::{BlobId, BucketIncarnation, GroupId, NoteOrder, VersionUid};

use super::Work;
use super::decide::{Candidate, Doubt, Said, assemble, blobs_of, newest};
use super::facts::{JournalFact, PAGE, PartFact, PartIs, Sayings};
use super::scratch::{noted, parts_of, said_of, tagged};
use super::write::{condemned, owner};
use crate::error::Result;
use crate::keys::{self, space};
use crate::model::{
    BlobRef, BucketRow, BucketState, ClassRow, CondemnReason, Content, DetailRow, PartRow,
    UploadPartRow,
};
use crate::row::{Counter, decode};

/// What was said of a bucket's keys is looked through for its name this far.
const LOOKED_AT: usize = PAGE;

/// The buckets, and the classes that their objects have.
#[derive(Default)]
pub(super) struct Buckets {
    /// By incarnation: its name; the journal's row, if it has one.
    known: BTreeMap<BucketIncarnation, (String, Option<BucketRow>)>,
    /// The life of each name that counts, and since when the name was free.
    living: BTreeMap<String, BucketIncarnation>,
    freed: BTreeMap<String, NoteOrder>,
    written: BTreeSet<BucketIncarnation>,
    classes: BTreeMap<u16, String>,
}

impl Work<'_> {
    /// Writes the newest version of each key.
    pub(super) async fn write_versions(&mut self) -> Result<()> {
        self.find_buckets().await?;
        let (mut after, mut ends): (Option<Bytes>, bool) = (None, false);
        let mut of_key: Option<(BucketIncarnation, String, Sayings)> = None;
        while !ends {
            let page: Vec<(Bytes, Said)> = self.facts.page(b"k", after.as_ref()).await?;
            ends = page.len() < PAGE;
            for (at, said) in page {
                let (incarnation, key, order) = said_of(&at)?;
                match &mut of_key {
                    Some(of) if of.0 == incarnation && of.1 == key => of.2.push((order, said)),
                    _ => {
                        let next = Some((incarnation, key, vec![(order, said)]));
                        if let Some(whole) = std::mem::replace(&mut of_key, next) {
                            self.write_key(whole).await?;
                        }
                    }
                }
                after = Some(at);
            }
        }
        if let Some(whole) = of_key {
            self.write_key(whole).await?;
        }
        Ok(())
    }

    /// The buckets that there are, by the journal and by what shards say.
    async fn find_buckets(&mut self) -> Result<()> {
        for (incarnation, (name, row)) in self.facts.journal_buckets().await? {
            self.buckets.known.insert(incarnation, (name, Some(row)));
        }
        let rows: Vec<(Bytes, JournalFact)> = self.facts.all(&[b'j', space::BUCKET]).await?;
        for (key, fact) in rows {
            if fact.value.is_none() {
                let name = keys::decode_bucket(&key[1..])?;
                self.buckets.freed.insert(name, fact.order);
            }
        }
        let mut next = BucketIncarnation(0);
        while let Some(incarnation) = self.next_incarnation(next).await? {
            if !self.buckets.known.contains_key(&incarnation)
                && let Some(name) = self.name_of(incarnation).await?
            {
                self.buckets.known.insert(incarnation, (name, None));
            }
            let Some(behind) = incarnation.0.checked_add(1) else {
                break;
            };
            next = BucketIncarnation(behind);
        }
        for (incarnation, (name, _)) in &self.buckets.known {
            // In order: of two lives of a name the later one counts.
            self.buckets.living.insert(name.clone(), *incarnation);
        }
        for (incarnation, (_, row)) in self.buckets.known.clone() {
            if row.is_some() {
                self.write_bucket(incarnation).await?;
            }
        }
        let highest = self.buckets.known.keys().last().map_or(0, |of| of.0);
        let last = self.counter(keys::LAST_INCARNATION).await?.max(highest);
        let key = keys::LAST_INCARNATION.into();
        self.writer.put(key, &Counter(last)).await
    }

    /// The first incarnation from `next` on of whose keys something was said.
    async fn next_incarnation(&self, next: BucketIncarnation) -> Result<Option<BucketIncarnation>> {
        let page: Vec<(Bytes, Said)> = match next.0 {
            0 => self.facts.page(b"k", None).await?,
            _ => {
                // A key never begins with this byte, UTF-8 has none.
                let last = BucketIncarnation(next.0 - 1).to_be_bytes();
                let behind = [&tagged(b'k', &last)[..], &[0xFF]].concat();
                self.facts.page(b"k", Some(&behind.into())).await?
            }
        };
        page.first().map(|(key, _)| Ok(said_of(key)?.0)).transpose()
    }

    /// The name of a bucket, as a shard of one of its objects has it.
    async fn name_of(&self, incarnation: BucketIncarnation) -> Result<Option<String>> {
        let prefix = tagged(b'k', &incarnation.to_be_bytes());
        let page: Vec<(Bytes, Said)> = self.facts.page(&prefix, None).await?;
        for (_, said) in page.into_iter().take(LOOKED_AT) {
            let Said::Published(candidate) = said else {
                continue;
            };
            let parts = self.part_facts(candidate.row.uid).await?;
            let blob = match &candidate.row.content {
                Content::Blob(blob) => Some(*blob),
                _ => parts.first().map(|part| part.blob),
            };
            if let Some(blob) = blob
                && let Some(name) = self.bucket_by_header(&blob, incarnation).await
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    async fn bucket_by_header(
        &self,
        blob: &BlobRef,
        incarnation: BucketIncarnation,
    ) -> Option<String> {
        let header = self.headers.header(blob.group, blob.blob).await?;
        (header.object.incarnation == incarnation).then_some(header.object.bucket)
    }

    /// Whether what was committed then of this life of a bucket is there
    /// still; `None`: its name is not known. Makes its row.
    pub(super) async fn bucket_lives(
        &mut self,
        incarnation: BucketIncarnation,
        order: NoteOrder,
        blob: Option<&BlobRef>,
    ) -> Result<Option<bool>> {
        if !self.buckets.known.contains_key(&incarnation) {
            let Some(blob) = blob else { return Ok(None) };
            let Some(name) = self.bucket_by_header(blob, incarnation).await else {
                return Ok(None);
            };
            self.buckets
                .living
                .entry(name.clone())
                .or_insert(incarnation);
            self.buckets.known.insert(incarnation, (name, None));
        }
        let (name, _) = &self.buckets.known[&incarnation];
        let freed = self.buckets.freed.get(name);
        let lives = self.buckets.living.get(name) == Some(&incarnation)
            && freed.is_none_or(|freed| *freed < order);
        if lives {
            self.write_bucket(incarnation).await?;
        }
        Ok(Some(lives))
    }

    async fn write_bucket(&mut self, incarnation: BucketIncarnation) -> Result<()> {
        if !self.buckets.written.insert(incarnation) {
            return Ok(());
        }
        let (name, row) = self.buckets.known[&incarnation].clone();
        let row = BucketRow {
            // A deletion that was under way is over.
            state: BucketState::Active,
            ..row.unwrap_or(BucketRow {
                incarnation,
                created: self.new.now,
                owner: self.new.owner.clone(),
                state: BucketState::Active,
            })
        };
        self.done.buckets += 1;
        self.writer.put(keys::bucket(&name), &row).await
    }

    /// Registers the name of a class, where the journal has none.
    pub(super) async fn use_class(&mut self, number: u16, name: &str) -> Result<()> {
        if name.is_empty() || self.buckets.classes.contains_key(&number) {
            return Ok(());
        }
        self.buckets.classes.insert(number, name.to_owned());
        let held = self.facts.journal(&keys::class(number)).await?;
        if held.is_some_and(|held| held.value.is_some()) {
            return Ok(());
        }
        let row = ClassRow {
            number,
            name: name.to_owned(),
        };
        self.writer.put(keys::class(number), &row).await
    }

    async fn write_key(
        &mut self,
        (incarnation, key, said): (BucketIncarnation, String, Sayings),
    ) -> Result<()> {
        let last = newest(&said).map(|at| said[at].0);
        // What is said of one version at several times is one; the last first.
        let mut versions: Vec<Candidate> = Vec::new();
        for (_, said) in said.into_iter().rev() {
            let Said::Published(candidate) = said else {
                continue;
            };
            let uid = candidate.row.uid;
            match versions.iter_mut().find(|of| of.row.uid == uid) {
                Some(held) => *held = held.clone().merged(*candidate),
                None => versions.push(*candidate),
            }
        }
        let mut versions = versions.into_iter();
        if let Some(order) = last
            && let Some(newest) = versions.next()
        {
            // Where that was deleted, nothing came back that was there before.
            match self.is_deleted_since(&newest).await? {
                true => self.drop_version(&newest, CondemnReason::Deleted).await?,
                false => self.write_newest(incarnation, &key, order, newest).await?,
            }
        }
        for older in versions {
            self.drop_version(&older, CondemnReason::Overwritten)
                .await?;
        }
        Ok(())
    }

    /// Whether notes say that a version which the journal has was deleted
    /// after the journal's end.
    async fn is_deleted_since(&self, candidate: &Candidate) -> Result<bool> {
        if !candidate.in_journal {
            return Ok(false);
        }
        let parts = self.journal_parts(candidate.row.uid).await?;
        for blob in blobs_of(&candidate.row, &parts) {
            if self.facts.is_deleted(&blob).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn write_newest(
        &mut self,
        incarnation: BucketIncarnation,
        key: &str,
        order: NoteOrder,
        candidate: Candidate,
    ) -> Result<()> {
        let uid = candidate.row.uid;
        let facts = self.part_facts(uid).await?;
        let known = self.parts_of(&candidate, &facts).await?;
        let first = blobs_of(&candidate.row, &known).into_iter().next();
        let any = first.or_else(|| facts.first().map(|part| part.blob));
        match self.bucket_lives(incarnation, order, any.as_ref()).await? {
            None => {
                let (group, blob) = any.map_or(NO_ONE, |blob| (blob.group, blob.blob));
                self.doubt(group, blob, Doubt::NoHeader).await;
                return Ok(());
            }
            Some(false) => return self.drop_version(&candidate, CondemnReason::Deleted).await,
            Some(true) => {}
        }
        if let Content::Parts(count) = candidate.row.content
            && known.len() != usize::from(count)
        {
            for part in &facts {
                let blob = part.blob;
                self.doubt(blob.group, blob.blob, Doubt::MissingParts).await;
            }
            return Ok(());
        }
        let lacking = self.lacking_all(&candidate, order, &known).await?;
        for blob in &lacking {
            self.doubt(blob.group, blob.blob, Doubt::NoShard).await;
        }
        if !lacking.is_empty() {
            return Ok(());
        }
        self.write_version(incarnation, key, candidate, &known)
            .await?;
        let used: BTreeSet<BlobId> = known
            .iter()
            .filter_map(|part| part.blob)
            .map(|of| of.blob)
            .collect();
        for part in facts.iter().filter(|part| !used.contains(&part.blob.blob)) {
            self.condemn(&part.blob, CondemnReason::UploadEnded).await?;
        }
        Ok(())
    }

    /// The parts of a version, as the journal has them, or else notes.
    async fn parts_of(&self, candidate: &Candidate, facts: &[PartFact]) -> Result<Vec<PartRow>> {
        let Content::Parts(count) = candidate.row.content else {
            return Ok(Vec::new());
        };
        if candidate.in_journal {
            let parts = self.journal_parts(candidate.row.uid).await?;
            if parts.len() == usize::from(count) {
                return Ok(parts);
            }
        }
        Ok(known_parts(candidate, facts))
    }

    /// The blobs of a version without any shard, where that leaves open
    /// whether it is there still.
    async fn lacking_all(
        &self,
        candidate: &Candidate,
        order: NoteOrder,
        parts: &[PartRow],
    ) -> Result<Vec<BlobRef>> {
        let mut lacking = Vec::new();
        if !self.facts.is_known_since(order) {
            for blob in blobs_of(&candidate.row, parts) {
                if !self.facts.has_shards(&blob).await? {
                    lacking.push(blob);
                }
            }
        }
        Ok(lacking)
    }

    async fn write_version(
        &mut self,
        incarnation: BucketIncarnation,
        key: &str,
        candidate: Candidate,
        parts: &[PartRow],
    ) -> Result<()> {
        let Candidate {
            mut row,
            class,
            detail,
            in_journal,
            ..
        } = candidate;
        let blobs = blobs_of(&row, parts);
        if row.content == Content::Inline && row.size > 0 {
            let held = self.facts.journal(&keys::inline(row.uid)).await?;
            let Some(bytes) = held.and_then(|held| held.value) else {
                self.doubt(NO_ONE.0, NO_ONE.1, Doubt::NoHeader).await;
                return Ok(());
            };
            self.writer
                .put_raw(keys::inline(row.uid), bytes.into())
                .await?;
        }
        if row.has_detail {
            let found = self.detail_of(row.uid, detail, in_journal, &blobs).await?;
            match found {
                Some(detail) => self.writer.put(keys::detail(row.uid), &detail).await?,
                None => {
                    row.has_detail = false;
                    let (group, blob) = blobs.first().map_or(NO_ONE, |of| (of.group, of.blob));
                    self.doubt(group, blob, Doubt::NoHeader).await;
                }
            }
        }
        self.use_class(row.class, &class).await?;
        self.writer
            .put(keys::current(incarnation, key), &row)
            .await?;
        if let Content::Blob(blob) = row.content {
            let owner = owner(incarnation, key, row.uid, 0, &blob);
            self.own(&blob, owner).await?;
        }
        for part in parts {
            self.writer
                .put(keys::part(row.uid, part.start), part)
                .await?;
            if let Some(blob) = &part.blob {
                let owner = owner(incarnation, key, row.uid, part.number, blob);
                self.own(blob, owner).await?;
            }
        }
        self.done.objects += 1;
        Ok(())
    }

    /// Gives a blob its owner.
    pub(super) async fn own(&mut self, blob: &BlobRef, owner: crate::model::BlobRow) -> Result<()> {
        let fact = self.facts.get(&noted(blob.group, blob.blob)).await?;
        let group = self.facts.groups.get(&blob.group).map(|(_, row)| row);
        let fact = fact.unwrap_or_default();
        self.writer.put_blob(blob, owner, group, &fact).await
    }

    async fn detail_of(
        &self,
        uid: VersionUid,
        noted: Option<(NoteOrder, DetailRow)>,
        in_journal: bool,
        blobs: &[BlobRef],
    ) -> Result<Option<DetailRow>> {
        if in_journal {
            let held = self.facts.journal(&keys::detail(uid)).await?;
            let later = |held: &JournalFact| noted.as_ref().is_none_or(|of| held.order >= of.0);
            if let Some(value) = held.filter(later).and_then(|held| held.value) {
                return Ok(Some(decode(&value)?));
            }
        }
        match noted {
            Some((_, detail)) => Ok(Some(detail)),
            None => Ok(self.detail_by_header(blobs).await),
        }
    }

    /// The details that the shards of a blob were written with.
    pub(super) async fn detail_by_header(&self, blobs: &[BlobRef]) -> Option<DetailRow> {
        for blob in blobs {
            if let Some(header) = self.headers.header(blob.group, blob.blob).await {
                return match header.object.metadata.is_empty() {
                    true => None,
                    false => postcard::from_bytes(&header.object.metadata).ok(),
                };
            }
        }
        None
    }

    /// A version that is not the newest any more: its blobs go.
    async fn drop_version(&mut self, candidate: &Candidate, reason: CondemnReason) -> Result<()> {
        let uid = candidate.row.uid;
        let mut blobs: BTreeMap<BlobId, BlobRef> = BTreeMap::new();
        let parts = match candidate.in_journal {
            true => self.journal_parts(uid).await?,
            false => Vec::new(),
        };
        for blob in blobs_of(&candidate.row, &parts) {
            blobs.insert(blob.blob, blob);
        }
        for part in self.part_facts(uid).await? {
            blobs.insert(part.blob.blob, part.blob);
        }
        for blob in blobs.values() {
            // One that was noted as deleted is condemned for that.
            if !self.facts.is_deleted(blob).await? {
                self.condemn(blob, reason).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn condemn(&mut self, blob: &BlobRef, reason: CondemnReason) -> Result<()> {
        self.done.condemned += 1;
        self.writer.condemn(&condemned(blob, reason)).await
    }

    /// The part rows of a version that the journal has.
    async fn journal_parts(&self, uid: VersionUid) -> Result<Vec<PartRow>> {
        let prefix = tagged(b'j', &keys::parts(uid));
        let rows: Vec<(Bytes, JournalFact)> = self.facts.all(&prefix).await?;
        let values = rows.into_iter().filter_map(|(_, fact)| fact.value);
        values.map(|value| Ok(decode(&value)?)).collect()
    }

    /// The blobs that are parts of a version or upload, the last noted of each
    /// number first.
    pub(super) async fn part_facts(&self, uid: VersionUid) -> Result<Vec<PartFact>> {
        let rows: Vec<(Bytes, PartFact)> = self.facts.all(&parts_of(uid)).await?;
        let mut parts: Vec<PartFact> = rows.into_iter().map(|(_, part)| part).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.order));
        Ok(parts)
    }
}

/// What stands for a blob where there is none.
pub(super) const NO_ONE: (GroupId, BlobId) = (GroupId(0), BlobId(0));

/// The parts of an object by what notes say; none if they do not make it.
fn known_parts(candidate: &Candidate, facts: &[PartFact]) -> Vec<PartRow> {
    let of_version = facts.iter().filter_map(|part| match &part.is {
        PartIs::OfVersion(row) => Some(row.clone()),
        PartIs::OfUpload(_) => None,
    });
    let of_upload = facts.iter().filter_map(|part| match &part.is {
        PartIs::OfUpload(row) => Some(row.clone()),
        PartIs::OfVersion(_) => None,
    });
    let (of_version, of_upload): (Vec<PartRow>, Vec<UploadPartRow>) =
        (of_version.collect(), of_upload.collect());
    let empty = candidate.empty_last.as_ref();
    assemble(&candidate.row, &of_version, &of_upload, empty).unwrap_or_default()
}
