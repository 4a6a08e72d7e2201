//! The power of a whole server goes, again and again: disks, journal and
//! catalog lose together what none of them has synced.
//!
//! All of an embedded pool lies on an ext4 in a file. What its process wrote
//! and did not sync is in the page cache of that file system alone, so a copy
//! of the file, mounted, is the server as after a loss of power at that
//! moment. Needs root and loop devices.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shardgate_tests::pool::TestPool;
use tempfile::TempDir;

use crate::load::{Acknowledged, BUCKET, Load};

const LOSSES: u64 = 4;
/// Sparse: only what is written is copied.
const IMAGE_BYTES: u64 = 6 << 30;

/// A file system in a file, mounted.
struct Image {
    dir: TempDir,
}

impl Image {
    fn file(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    fn fresh() -> Self {
        let image = Self {
            dir: tempfile::tempdir().expect("make a folder"),
        };
        let file = File::create(image.file()).expect("make the image");
        file.set_len(IMAGE_BYTES).expect("make it long");
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(image.file()));
        image.mount();
        image
    }

    /// What the device was given so far, of what is written to it the synced.
    fn after_power_loss(&self) -> Self {
        let image = Self {
            dir: tempfile::tempdir().expect("make a folder"),
        };
        let paths = [self.file(), image.file()];
        run(Command::new("cp").arg("--sparse=always").args(paths));
        image.mount();
        image
    }

    /// The file system commits by itself only after minutes.
    fn mount(&self) {
        fs::create_dir(self.mounted()).expect("make a folder to mount at");
        let paths = [self.file(), self.mounted()];
        run(Command::new("mount")
            .args(["-o", "loop,commit=300"])
            .args(paths));
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.mounted())
            .status();
    }
}

fn run(command: &mut Command) {
    let status = command.status().expect("it is installed");
    assert!(status.success(), "{command:?}");
}

/// Written and not synced: what is lost if anything is.
fn write_unsynced(folder: &Path, loss: u64) -> PathBuf {
    let name = format!("unsynced-{loss}");
    fs::write(folder.join(&name), vec![7; 100_000]).expect("write a file");
    name.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_a_server_loses_its_power() {
    let mut image = Image::fresh();
    let mut pool = TestPool::embedded_in(&image.mounted(), 6);
    pool.client().make_bucket(BUCKET).await;
    let acknowledged = Acknowledged::default();
    for loss in 0..LOSSES {
        let load = Load::start(&pool.client(), 8, &acknowledged, false);
        tokio::time::sleep(Duration::from_millis(300 + 500 * loss)).await;
        let unsynced = write_unsynced(&image.mounted(), loss);
        pool.kill();
        load.end().await;
        let after = image.after_power_loss();
        let left = fs::read(after.mounted().join(unsynced)).unwrap_or_default();
        assert!(left.len() < 100_000, "nothing is lost: this proves nothing");
        pool.dir = after.mounted();
        image = after;
        pool.start();
        acknowledged.check(&pool.client()).await;
    }
    assert!(acknowledged.len() > 0, "nothing was acknowledged at all");
    pool.stop();
}
