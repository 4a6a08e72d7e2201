//! The space that the gateway's own folder keeps for deletes.
//!
//! Owns its size and the task that measures it: below it clients' writes are
//! refused, through [`CatalogRoom`], until there is space again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::object::CatalogRoom;

/// How often the file system is asked. What a second of writes adds is little
/// beside the reserve: rows and inline objects of at most 16 KiB.
const EVERY: Duration = Duration::from_secs(1);
/// What is kept: 1 %, within these bounds. The catalog's log and compactions
/// need room of their own to delete in.
const LEAST_BYTES: u64 = 256 << 20;
const MOST_BYTES: u64 = 2 << 30;

/// What is kept of a file system of this size; no more than a quarter of it.
fn reserve_of(capacity: u64) -> u64 {
    (capacity / 100)
        .clamp(LEAST_BYTES, MOST_BYTES)
        .min(capacity / 4)
}

/// Free bytes of the folder's file system, and what must stay free.
fn measure(folder: &Path) -> std::io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(folder)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let capacity = stat.f_blocks.saturating_mul(stat.f_frsize);
    Ok((free, reserve_of(capacity)))
}

/// Measures the folder now, and from then on until `stop`.
pub(super) fn watch(
    folder: PathBuf,
    room: CatalogRoom,
    tracker: &TaskTracker,
    stop: CancellationToken,
) {
    look(&folder, &room);
    tracker.spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let (folder, room) = (folder.clone(), room.clone());
            // A file system that hangs must not hold a thread of the runtime.
            let looked = tokio::task::spawn_blocking(move || look(&folder, &room));
            if looked.await.is_err() {
                return;
            }
        }
    });
}

fn look(folder: &Path, room: &CatalogRoom) {
    match measure(folder) {
        Ok((free, reserve)) => say(free, reserve, room),
        Err(error) => tracing::warn!(%error, "the gateway's folder does not tell its space"),
    }
}

fn say(free: u64, reserve: u64, room: &CatalogRoom) {
    let short = free < reserve;
    match (room.set_short(short), short) {
        (true, true) => tracing::error!(
            free,
            reserve,
            "the gateway's folder is full: writes are refused, deletes go on"
        ),
        (true, false) => tracing::info!(free, "the gateway's folder has space again"),
        (false, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_every_file_system_is_kept() {
        for (capacity, reserve) in [
            (0, 0),
            (400 << 20, 100 << 20),
            (10 << 30, LEAST_BYTES),
            (100 << 30, 1 << 30),
            (4 << 40, MOST_BYTES),
        ] {
            assert_eq!(reserve_of(capacity), reserve, "{capacity}");
        }
    }

    #[test]
    fn writes_stop_below_the_reserve_and_come_back_above_it() {
        let room = CatalogRoom::default();
        for (free, short) in [
            (101, false),
            (100, false),
            (99, true),
            (0, true),
            (100, false),
        ] {
            say(free, 100, &room);
            assert_eq!(room.is_short(), short, "{free}");
        }
    }

    #[tokio::test]
    async fn a_folder_is_measured_at_once() {
        let dir = tempfile::tempdir().expect("make a folder");
        let (free, reserve) = measure(dir.path()).expect("a file system");
        let (room, tracker) = (CatalogRoom::default(), TaskTracker::new());
        // The other way round than it is, so that a look is seen.
        room.set_short(free >= reserve);
        let stop = CancellationToken::new();
        watch(dir.path().to_owned(), room.clone(), &tracker, stop.clone());
        assert_eq!(room.is_short(), free < reserve);
        stop.cancel();
        tracker.close();
        tracker.wait().await;
    }
}
