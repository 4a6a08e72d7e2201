//! The hold on reclaiming, as the operator sees it: why, and what would go.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use shardgate_catalog::model::CondemnReason;
use shardgate_catalog::{Catalog, CatalogError, CondemnedCursor};
use tokio::sync::Mutex;

use crate::pool::lineage::in_words;

/// Blobs that are counted at most.
const MOST_COUNTED: u64 = 10_000_000;
/// Blobs that are listed.
const LISTED: usize = 1000;
/// Rows of one look.
const PAGE: usize = 10_000;

/// Why nothing is reclaimed, and what would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// Whether there is a hold.
    pub held: bool,
    /// Since when, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Why, a sentence each.
    pub why: Vec<String>,
    /// Blobs that would be deleted.
    pub blobs: u64,
    /// Whether there are more than were counted.
    pub more: bool,
    /// The first of them.
    pub first: Vec<HeldBlob>,
}

/// A blob that would be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBlob {
    /// Its group.
    pub group: String,
    /// Its id.
    pub blob: String,
    /// The commit that condemned it.
    pub commit: u64,
    /// Why, in a word.
    pub reason: String,
}

/// What was counted so far. While there is a hold nothing leaves the queue,
/// and so only what came since is counted the next time.
#[derive(Default)]
pub struct Counted(Mutex<Count>);

#[derive(Clone, Default)]
struct Count {
    since_ms: Option<u64>,
    after: Option<CondemnedCursor>,
    blobs: u64,
    more: bool,
    first: Vec<HeldBlob>,
}

/// Why nothing is reclaimed, a sentence each, and since when; `None` if there
/// is no hold.
///
/// # Errors
/// The catalog's.
pub async fn why(catalog: &Catalog) -> Result<Option<(u64, Vec<String>)>, CatalogError> {
    let hold = catalog.lineage().await?.and_then(|lineage| lineage.hold);
    Ok(hold.map(|hold| (hold.since, hold.why.iter().map(in_words).collect())))
}

/// Looks; without a hold nothing is counted.
///
/// # Errors
/// The catalog's.
pub async fn look(catalog: &Catalog, counted: &Counted) -> Result<HoldStatus, CatalogError> {
    let mut count = counted.0.lock().await;
    let Some((since_ms, why)) = why(catalog).await? else {
        *count = Count::default();
        return Ok(HoldStatus::default());
    };
    if count.since_ms != Some(since_ms) {
        *count = Count {
            since_ms: Some(since_ms),
            ..Count::default()
        };
    }
    count_on(catalog, &mut count).await?;
    Ok(HoldStatus {
        held: true,
        since_ms: Some(since_ms),
        why,
        blobs: count.blobs,
        more: count.more,
        first: count.first.clone(),
    })
}

async fn count_on(catalog: &Catalog, count: &mut Count) -> Result<(), CatalogError> {
    while count.blobs < MOST_COUNTED {
        let page = catalog.condemned_page(count.after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        count.after = Some(last);
        count.blobs += (page.rows.len() + page.damaged.len()) as u64;
        let room = LISTED - count.first.len();
        count
            .first
            .extend(page.rows.iter().take(room).map(|held| HeldBlob {
                group: held.row.group.to_string(),
                blob: held.row.blob.to_string(),
                commit: held.cursor.commit.0,
                reason: word(held.row.reason).to_owned(),
            }));
    }
    count.more = true;
    Ok(())
}

fn word(reason: CondemnReason) -> &'static str {
    match reason {
        CondemnReason::Deleted => "deleted",
        CondemnReason::Overwritten => "overwritten",
        CondemnReason::UploadEnded => "upload-ended",
        CondemnReason::NeverPublished => "never-published",
        CondemnReason::CheckpointDropped => "checkpoint-dropped",
    }
}

/// The status as people read it.
pub fn words(status: &HoldStatus) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        writeln!(text, "{words}").expect("writing to a string does not fail");
    };
    if !status.held {
        line("There is no hold: what was deleted is reclaimed.".to_owned());
        return text;
    }
    line("Nothing is reclaimed:".to_owned());
    for why in &status.why {
        line(format!("  {why}"));
    }
    let more = if status.more { "more than " } else { "" };
    line(format!(
        "Without the hold {more}{} blobs would be deleted.",
        status.blobs
    ));
    for held in &status.first {
        line(format!(
            "  group {} blob {}: {} by commit {}",
            held.group, held.blob, held.reason, held.commit
        ));
    }
    if status.blobs > status.first.len() as u64 {
        line("  and others".to_owned());
    }
    line("`shardgate catalog hold --end` ends the hold.".to_owned());
    text
}

#[cfg(test)]
mod tests {
    use shardgate_catalog::NewLineage;
    use shardgate_catalog::model::{ClusterRow, CondemnedRow, HoldReason};
    use shardgate_wire::{BlobId, BlobLayout, ClusterId, CommitNumber, Epoch, GroupId, LineageId};

    use super::*;

    #[tokio::test]
    async fn the_operator_sees_why_and_what() {
        let catalog = Catalog::in_memory();
        let cluster = ClusterRow {
            cluster: ClusterId(1),
            lineage: LineageId(1),
            epoch: Epoch::default(),
            created: 1,
        };
        catalog.init_cluster(&cluster).await.unwrap();
        let counted = Counted::default();
        let none = look(&catalog, &counted).await.unwrap();
        assert_eq!(none, HoldStatus::default());
        assert!(words(&none).contains("no hold"));
        let why = HoldReason::Rebuilt {
            vouched: CommitNumber(17),
            last: CommitNumber(23),
        };
        let new = NewLineage {
            lineage: LineageId(2),
            history: 3,
            last_before: CommitNumber(23),
            others: Vec::new(),
            why: vec![why],
            now: 99,
        };
        catalog.take_lineage(&new).await.unwrap();
        let row = |blob| CondemnedRow {
            group: GroupId(1),
            blob: BlobId(blob),
            layout: BlobLayout { data: 1, parity: 2 },
            reason: CondemnReason::NeverPublished,
        };
        let rows: Vec<_> = (1..=1500).map(row).collect();
        catalog.condemn(&rows).await.unwrap();
        let status = look(&catalog, &counted).await.unwrap();
        assert_eq!((status.held, status.since_ms), (true, Some(99)));
        assert_eq!((status.blobs, status.first.len()), (1500, LISTED));
        let text = words(&status);
        for part in [
            "up to 17",
            "up to 23",
            "1500 blobs",
            "never-published",
            "and others",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // Only what came since is looked at: the rest is known.
        let counted_to = counted.0.lock().await.after;
        assert!(counted_to.is_some());
        catalog.condemn(&[row(9000), row(9001)]).await.unwrap();
        let again = look(&catalog, &counted).await.unwrap();
        assert_eq!((again.blobs, again.first), (1502, status.first));
        assert!(counted.0.lock().await.after > counted_to);
        catalog.end_hold().await.unwrap();
        let ended = look(&catalog, &counted).await.unwrap();
        assert_eq!(ended, HoldStatus::default());
    }
}
