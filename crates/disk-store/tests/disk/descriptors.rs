//! A process without a descriptor left still makes names durable.

use std::path::Path;
use std::process::Command;

use shardgate_disk_store::io::{DiskIo, OpenHow, RealIo};

use crate::power::Image;

const CHILD_FOLDER: &str = "SHARDGATE_FOLDER_WITHOUT_DESCRIPTORS";
const NAME: &str = "name";

fn io(folder: &Path) -> RealIo {
    RealIo::open_folder(folder, 256 * 1024).unwrap()
}

/// Makes a name, opens whatever it can, and syncs the folder.
#[test]
#[ignore = "is run by the test below, with few descriptors"]
fn child_without_descriptors() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else {
        return;
    };
    let io = io(Path::new(&folder));
    io.open(Path::new(NAME), OpenHow::CreateNew).unwrap();
    let mut open = Vec::new();
    let refused = loop {
        match std::fs::File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) => break error,
        }
    };
    let too_many = rustix::io::Errno::MFILE.raw_os_error();
    assert_eq!(refused.raw_os_error(), Some(too_many));
    assert!(io.read_dir(Path::new("")).is_err(), "none is left");
    io.sync_dir(Path::new("")).unwrap();
}

/// A file system in a file that commits by itself only after minutes: what
/// its copy has was durable.
#[test]
fn a_folder_is_durable_after_its_sync_without_a_descriptor() {
    let image = Image::fresh();
    std::fs::create_dir(image.disk()).unwrap();
    io(&image.disk().join(".."))
        .sync_dir(Path::new(""))
        .unwrap();
    let child = Command::new("sh")
        .args(["-c", "ulimit -n 48 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("descriptors::child_without_descriptors")
        .env(CHILD_FOLDER, image.disk())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{child:?}"
    );
    let after = Image::after_power_loss(&image);
    assert!(after.disk().join(NAME).exists(), "it was only in the cache");
}
