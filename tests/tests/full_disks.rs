//! Disks that are full: clients are refused with an error of its own, what is
//! stored reads and can be deleted, `status` says so in words, and with space
//! again all is well. Needs root, for a file system of its own.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use shardgate_tests::client::Client;
use shardgate_tests::pool::TestPool;
use shardgate_tests::random;

const MIB: u64 = 1 << 20;
/// Of this three disks keep 50 MiB from clients, and two segments of the
/// journal each take 384.
const FILE_SYSTEM: u64 = 800 * MIB;
/// What is left: too little for clients, enough for copies in the background.
const LEFT: u64 = 43 * MIB;
const BUCKET: &str = "full";
const PATIENCE: Duration = Duration::from_secs(30);

struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("make a folder to mount at");
        let size = format!("size={FILE_SYSTEM}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .status();
        assert!(mounted.is_ok_and(|status| status.success()), "root mounts");
        for disk in 1..=3 {
            std::fs::create_dir(at.join(format!("disk-{disk}"))).expect("make a disk's folder");
        }
        Self(at.to_owned())
    }

    /// Something else takes all but [`LEFT`].
    fn fill(&self) -> PathBuf {
        let path = self.0.join("something-else");
        let file = File::create(&path).expect("make a file");
        let stat = rustix::fs::statvfs(&self.0).expect("ask for space");
        let taken = (stat.f_bavail * stat.f_frsize).saturating_sub(LEFT);
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(file.as_fd(), flags, 0, taken).expect("take it");
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn body(number: u64) -> Bytes {
    random::bytes(number, 200_000).into()
}

/// The answer's status once it is `wanted`, or the last one.
async fn put_until(client: &Client, key: &str, wanted: u16) -> (u16, String) {
    let until = Instant::now() + PATIENCE;
    loop {
        let put = client.put(BUCKET, key, body(9)).send().await;
        let answer = put.expect("an answer");
        let status = answer.status.as_u16();
        if status == wanted || Instant::now() > until {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            return (status, text);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What `status` says once it is as wanted: disks are asked now and then.
async fn status_until(pool: &TestPool, wanted: impl Fn(&str) -> bool) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let said = pool.status_words();
        if wanted(&said) {
            return said;
        }
        assert!(Instant::now() < until, "{said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_refuse_clients_and_still_delete() {
    let mut mount = None;
    let pool = TestPool::with_agents_in(1, 3, None, |dir| {
        mount = Some(Mount::tmpfs(&dir.join("agent-0")));
    });
    let mount = mount.expect("it was mounted");
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    for number in 0..8 {
        let put = client.put(BUCKET, &format!("key-{number}"), body(number));
        put.send().await.expect("an answer").expect_status(200);
    }
    let filler = mount.fill();
    let (status, text) = put_until(&client, "refused", 507).await;
    assert_eq!(status, 507, "{text}");
    assert!(text.contains("InsufficientStorage"), "{text}");
    let words = "is full: client writes are refused; background copies, checkpoints, the journal \
                 and deletes go on";
    let said = status_until(&pool, |said| said.contains(words)).await;
    assert!(said.contains("left for client writes"), "{said}");
    for number in 0..8 {
        let get = client.get(BUCKET, &format!("key-{number}")).send().await;
        let answer = get.expect("an answer");
        assert!(answer.expect_status(200).body == body(number));
    }
    for number in 0..4 {
        let path = format!("/{BUCKET}/key-{number}");
        let deleted = client.ask(Method::DELETE, path).send().await;
        deleted.expect("an answer").expect_status(204);
    }
    std::fs::remove_file(filler).expect("space again");
    let (status, text) = put_until(&client, "taken", 200).await;
    assert_eq!(status, 200, "{text}");
    status_until(&pool, |said| !said.contains("full:")).await;
    drop(pool);
}
