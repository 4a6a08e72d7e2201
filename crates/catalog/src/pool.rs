//! Rows about the pool: groups, disks, classes.

use shardgate_wire::{DiskId, GroupId};

use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::Draft;
use crate::engine::KeyRange;
use crate::error::{CatalogError, Result};
use crate::keys::{self, space};
use crate::model::{ClassRow, DiskRow, GroupRow};
use crate::row::{Counter, Row};

/// Longest name of a class that a note has, bytes.
pub(crate) const MAX_CLASS_BYTES: usize = 64;
/// More rows than a pool has of any kind.
const ALL: usize = usize::MAX;

impl Catalog {
    /// Puts a group's record, in place of exactly `expect`. Its disks are to
    /// be told if it is new or has moved.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`].
    pub async fn put_group(&self, row: &GroupRow, expect: Option<&GroupRow>) -> Result<()> {
        let key = keys::group(row.id);
        let (raw, held) = self.stored::<GroupRow>(&key).await?.unzip();
        if held.as_ref() != expect {
            return Err(CatalogError::Conflict);
        }
        let mut draft = Draft::new();
        draft.expect(key.clone(), raw);
        draft.put(key, row);
        if held.is_none_or(|held| held.generation != row.generation) {
            draft.note_group(row.id);
        }
        self.commit(draft).await?;
        Ok(())
    }

    /// A group's record.
    pub async fn group(&self, id: GroupId) -> Result<Option<GroupRow>> {
        self.row(&keys::group(id)).await
    }

    /// All groups, in order of id.
    pub async fn groups(&self) -> Result<Vec<GroupRow>> {
        self.all(space::GROUP).await
    }

    /// An id that no group had or will have.
    pub async fn next_group_id(&self) -> Result<GroupId> {
        let _turn = self.inner.counter_turn.lock().await;
        for _ in 0..ATTEMPTS {
            let held = self.stored::<Counter>(keys::LAST_GROUP).await?;
            let (raw, last) = held.unzip();
            let next = last.map_or(0, |last| last.0) + 1;
            let mut draft = Draft::new();
            draft.expect(keys::LAST_GROUP.into(), raw);
            draft.put(keys::LAST_GROUP.into(), &Counter(next));
            match self.commit(draft).await {
                Ok(_) => return Ok(GroupId(next)),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    /// Puts a disk's record, in place of exactly `expect`.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`].
    pub async fn put_disk(&self, row: &DiskRow, expect: Option<&DiskRow>) -> Result<()> {
        self.replace(keys::disk(row.id), row, expect).await?;
        Ok(())
    }

    /// A disk's record.
    pub async fn disk(&self, id: DiskId) -> Result<Option<DiskRow>> {
        self.row(&keys::disk(id)).await
    }

    /// All disks, in order of id.
    pub async fn disks(&self) -> Result<Vec<DiskRow>> {
        self.all(space::DISK).await
    }

    /// All classes that were ever used, in order of number.
    pub async fn classes(&self) -> Result<Vec<ClassRow>> {
        self.all(space::CLASS).await
    }

    /// The number of a class of this name; registered on first use, the same
    /// for ever.
    pub async fn class_number(&self, name: &str) -> Result<u16> {
        let find = |rows: &[ClassRow]| {
            let row = rows.iter().find(|row| row.name == name);
            row.map(|row| row.number)
        };
        if let Some(number) = find(&self.inner.classes.read()) {
            return Ok(number);
        }
        let _turn = self.inner.counter_turn.lock().await;
        for _ in 0..ATTEMPTS {
            let rows = self.classes().await?;
            let known = find(&rows);
            let next = rows.last().map_or(0, |row| row.number.saturating_add(1));
            *self.inner.classes.write() = rows;
            if let Some(number) = known {
                return Ok(number);
            }
            let row = ClassRow {
                number: next,
                name: name.to_owned(),
            };
            match self.replace(keys::class(next), &row, None).await {
                Ok(_) => return Ok(next),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    /// The name of a class as notes have it; empty if no class has the number,
    /// or its name is longer than [`MAX_CLASS_BYTES`].
    pub(crate) async fn class_name(&self, number: u16) -> Result<String> {
        let find = |rows: &[ClassRow]| {
            let row = rows.iter().find(|row| row.number == number);
            row.map(|row| row.name.clone())
        };
        let known = find(&self.inner.classes.read());
        let name = match known {
            Some(name) => Some(name),
            None => {
                let row: Option<ClassRow> = self.row(&keys::class(number)).await?;
                row.map(|row| row.name)
            }
        };
        let fits = |name: &String| name.len() <= MAX_CLASS_BYTES;
        Ok(name.filter(fits).unwrap_or_default())
    }

    /// All rows of a space that a pool bounds.
    pub(crate) async fn all<R: Row>(&self, space: u8) -> Result<Vec<R>> {
        let range = KeyRange::prefix(vec![space]);
        let rows = self.rows(range, ALL, |_| Ok(())).await?;
        Ok(rows.into_iter().map(|((), row)| row).collect())
    }
}
