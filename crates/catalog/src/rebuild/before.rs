//! A whole catalog of before as facts: a checkpoint, or one that the journal
//! does not go on from.
//!
//! Invariant: it counts as of its commit; what it does not have was deleted by
//! then.

use bytes::Bytes;
use shardgate_wire::NoteOrder;

use super::facts::{Facts, PAGE, fact_of};
use super::scratch::tagged;
use crate::engine::{Engine, Entry, KeyRange, Op, Scan};
use crate::error::Result;
use crate::keys::{self, space};
use crate::model::{CondemnedRow, LineageRow};
use crate::row::decode;

impl Facts {
    /// A catalog as it was at a commit: a checkpoint, or one that the journal
    /// does not go on from. Before all of the journal.
    ///
    /// # Errors
    /// The engines'; then nothing was taken over.
    pub async fn add_catalog(&mut self, catalog: &dyn Engine) -> Result<()> {
        // All of it must be readable, or none of it counts.
        for space in SPACES {
            copy_space(catalog, *space, async |_| Ok(())).await?;
        }
        let row = catalog.get(keys::LINEAGE).await?;
        let row: Option<LineageRow> = row.map(|row| decode(&row)).transpose()?;
        let order = NoteOrder {
            history: row.as_ref().map_or(0, |row| row.history),
            commit: catalog.committed(),
        };
        for space in SPACES {
            copy_space(catalog, *space, async |rows: Vec<(Bytes, Bytes)>| {
                let rows = rows.into_iter();
                let ops = rows.map(|(key, value)| match *space {
                    space::CONDEMNED => gone(&value, order),
                    _ => Ok(Op::Put(tagged(b'j', &key), fact_of(order, Some(&value)))),
                });
                self.commit(ops.collect::<Result<Vec<_>>>()?).await
            })
            .await?;
        }
        self.histories.insert(order.history);
        self.last = self.last.max(order);
        self.base = Some(order);
        if row.is_some() {
            self.lineage = row;
        }
        Ok(())
    }
}

/// The spaces of a catalog that tell what there was, and single rows.
const SPACES: &[u8] = &[
    SINGLE,
    space::BUCKET,
    space::CURRENT,
    space::DETAIL,
    space::INLINE,
    space::PART,
    space::UPLOAD,
    space::UPLOAD_PART,
    space::COMPLETED,
    space::BLOB,
    space::CONDEMNED,
    space::GROUP,
    space::CLASS,
    space::INSTANCE,
];
/// First byte of single rows.
const SINGLE: u8 = 0x01;

/// Hands on the rows of a space, a page at a time.
async fn copy_space(
    catalog: &dyn Engine,
    space: u8,
    mut each: impl AsyncFnMut(Vec<(Bytes, Bytes)>) -> Result<()>,
) -> Result<()> {
    let mut range = KeyRange::prefix(vec![space]);
    loop {
        let rows = catalog.scan(Scan::first(range.clone(), PAGE)).await?;
        let rows: Vec<_> = rows.into_iter().filter_map(Entry::into_row).collect();
        let whole = rows.len() < PAGE;
        if let Some((last, _)) = rows.last() {
            range.start = keys::after(last);
        }
        each(rows).await?;
        if whole {
            return Ok(());
        }
    }
}

/// That a condemned blob belongs to nothing.
fn gone(condemned: &Bytes, order: NoteOrder) -> Result<Op> {
    let row: CondemnedRow = decode(condemned)?;
    let key = tagged(b'j', &keys::blob(row.group, row.blob));
    Ok(Op::Put(key, fact_of(order, None)))
}
