//! Reads of versions and of the rows that hang on them.

use bytes::Bytes;
use shardgate_wire::{BlobId, BucketIncarnation, GroupId, VersionUid};

use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::StoredVersion;
use crate::engine::{Entry, KeyRange, Scan};
use crate::error::{CatalogError, Result};
use crate::keys;
use crate::model::{BlobState, Content, DetailRow, PartRow, VersionRow};
use crate::row::decode;

/// Parts that an object has at most, and so the rows that are read at once.
pub(crate) const MAX_PARTS: usize = 10_000;

/// Part rows that are looked through before bisecting begins.
const FIRST_PARTS: usize = 32;

/// A version with all that a small read needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRead {
    /// The version.
    pub row: VersionRow,
    /// Its detail row, if it has one.
    pub detail: Option<DetailRow>,
    /// Its bytes, if they are in the catalog.
    pub inline: Option<Bytes>,
}

impl Catalog {
    /// The newest version of a key.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchKey`].
    pub async fn object(&self, incarnation: BucketIncarnation, key: &str) -> Result<VersionRow> {
        let row = self.row(&keys::current(incarnation, key)).await?;
        row.ok_or(CatalogError::NoSuchKey)
    }

    /// The newest version of a key, its details and inline bytes, all of one
    /// version.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchKey`].
    pub async fn read_object(
        &self,
        incarnation: BucketIncarnation,
        key: &str,
    ) -> Result<ObjectRead> {
        let mut last_uid = None;
        for _ in 0..ATTEMPTS {
            let row = self.object(incarnation, key).await?;
            if let Some((detail, inline)) = self.attached_rows(&row).await? {
                return Ok(ObjectRead {
                    row,
                    detail,
                    inline,
                });
            }
            // Rows of a version go in the commit that drops it. Missing under
            // a version that is still there, they are lost.
            if last_uid.replace(row.uid) == Some(row.uid) {
                return Err(CatalogError::Damaged {
                    why: format!("version {} lacks its detail or inline row", row.uid),
                });
            }
        }
        Err(CatalogError::Conflict)
    }

    /// The newest version of a key and all its part rows, of one version.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchKey`].
    pub async fn object_with_parts(
        &self,
        incarnation: BucketIncarnation,
        key: &str,
    ) -> Result<(VersionRow, Vec<PartRow>)> {
        let mut last_uid = None;
        for _ in 0..ATTEMPTS {
            let row = self.object(incarnation, key).await?;
            let Content::Parts(count) = row.content else {
                return Ok((row, Vec::new()));
            };
            // They come in one commit and go in one: all are there, or none.
            let parts = self.parts(row.uid, 0, MAX_PARTS + 1).await?;
            if parts.len() == usize::from(count) {
                return Ok((row, parts));
            }
            if last_uid.replace(row.uid) == Some(row.uid) {
                return Err(CatalogError::Damaged {
                    why: format!("version {} has {} of {count} parts", row.uid, parts.len()),
                });
            }
        }
        Err(CatalogError::Conflict)
    }

    /// `None` if one that should be there is not.
    async fn attached_rows(
        &self,
        row: &VersionRow,
    ) -> Result<Option<(Option<DetailRow>, Option<Bytes>)>> {
        let detail = if row.has_detail {
            let Some(detail) = self.row(&keys::detail(row.uid)).await? else {
                return Ok(None);
            };
            Some(detail)
        } else {
            None
        };
        let inline = match row.content {
            Content::Inline if row.size == 0 => Some(Bytes::new()),
            Content::Inline => {
                let Some(bytes) = self.engine().get(&keys::inline(row.uid)).await? else {
                    return Ok(None);
                };
                Some(whole(row, bytes)?)
            }
            _ => None,
        };
        Ok(Some((detail, inline)))
    }

    /// The detail row of a version whose `has_detail` is set.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchKey`]: the version was dropped meanwhile.
    pub async fn detail(&self, uid: VersionUid) -> Result<DetailRow> {
        let row = self.row(&keys::detail(uid)).await?;
        row.ok_or(CatalogError::NoSuchKey)
    }

    /// The bytes of a version whose content is inline.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchKey`]: the version was dropped meanwhile.
    pub async fn inline_bytes(&self, row: &VersionRow) -> Result<Bytes> {
        if row.size == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.engine().get(&keys::inline(row.uid)).await?;
        whole(row, bytes.ok_or(CatalogError::NoSuchKey)?)
    }

    /// The part that contains the byte at `from`, and those behind it, at most
    /// `limit`. Empty if the version was dropped, or ends before `from`.
    pub async fn parts(&self, uid: VersionUid, from: u64, limit: usize) -> Result<Vec<PartRow>> {
        let mut range = KeyRange::prefix(keys::parts(uid));
        if from > 0 {
            match self.last_part_at(uid, from).await? {
                Some(part) => range.start = keys::part(uid, part.start),
                None => return Ok(Vec::new()),
            }
        }
        let rows = self.rows(range, limit, |_| Ok(())).await?;
        let rows = rows.into_iter().map(|((), row)| row);
        Ok(rows
            .skip_while(|row: &PartRow| row.start + row.len <= from && row.len > 0)
            .collect())
    }

    /// The last part that starts at or before `offset`.
    async fn last_part_at(&self, uid: VersionUid, offset: u64) -> Result<Option<PartRow>> {
        let range = KeyRange {
            start: keys::parts(uid),
            end: Some(keys::after(&keys::part(uid, offset))),
        };
        let entries = self.engine().scan(Scan::last(range)).await?;
        let row = entries.into_iter().find_map(Entry::into_row);
        Ok(row.map(|(_, value)| decode(&value)).transpose()?)
    }

    /// The part of a number, as the client gave it.
    ///
    /// # Errors
    /// [`CatalogError::InvalidPart`] if there is none.
    pub async fn part_by_number(&self, uid: VersionUid, number: u16) -> Result<PartRow> {
        let missing = CatalogError::InvalidPart { number };
        let first = self.parts(uid, 0, FIRST_PARTS).await?;
        match first.binary_search_by_key(&number, |part| part.number) {
            Ok(at) => return Ok(first[at].clone()),
            Err(at) if at < first.len() || first.len() < FIRST_PARTS => return Err(missing),
            Err(_) => {}
        }
        // Numbers ascend with offsets: bisect the offsets.
        let Some(last) = self.last_part_at(uid, u64::MAX).await? else {
            return Err(missing);
        };
        let (mut low, mut high) = (0, last.start);
        while low <= high {
            let middle = low + (high - low) / 2;
            let Some(part) = self.last_part_at(uid, middle).await? else {
                return Err(missing);
            };
            match part.number.cmp(&number) {
                std::cmp::Ordering::Equal => return Ok(part),
                std::cmp::Ordering::Less => low = (part.start + part.len).max(middle + 1),
                std::cmp::Ordering::Greater => match part.start.checked_sub(1) {
                    Some(below) => high = below,
                    None => return Err(missing),
                },
            }
        }
        Err(missing)
    }

    /// What the catalog knows of a blob.
    pub async fn blob(&self, group: GroupId, blob: BlobId) -> Result<Option<BlobState>> {
        self.row(&keys::blob(group, blob)).await
    }

    /// The blobs of a group in order of id, those behind `after`.
    pub async fn blobs(
        &self,
        group: GroupId,
        after: Option<BlobId>,
        limit: usize,
    ) -> Result<Vec<(BlobId, BlobState)>> {
        let mut range = KeyRange::prefix(keys::blobs(group));
        if let Some(blob) = after {
            range.start = keys::after(&keys::blob(group, blob));
        }
        self.rows(range, limit, keys::decode_blob).await
    }

    /// The newest version of a key from its bytes, with its parts.
    pub(crate) async fn with_parts(&self, raw: Bytes) -> Result<StoredVersion> {
        let row: VersionRow = decode(&raw)?;
        let mut parts = Vec::new();
        if let Content::Parts(_) = row.content {
            let range = KeyRange::prefix(keys::parts(row.uid));
            for (key, value) in self.raw_rows(range, MAX_PARTS + 1).await? {
                let part = decode(&value)?;
                parts.push((key, value, part));
            }
        }
        Ok(StoredVersion { raw, row, parts })
    }
}

fn whole(row: &VersionRow, bytes: Bytes) -> Result<Bytes> {
    if bytes.len() as u64 == row.size {
        return Ok(bytes);
    }
    Err(CatalogError::Damaged {
        why: format!(
            "inline row of version {} has {} bytes of {}",
            row.uid,
            bytes.len(),
            row.size
        ),
    })
}
