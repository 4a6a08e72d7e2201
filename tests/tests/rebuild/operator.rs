//! What the operator types, and what is said.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shardgate_tests::pool::{TestPool, root_keys};
use shardgate_tests::process::Process;

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(90);

fn spawn(pool: &TestPool, words: &[&str], log: &str) -> Process {
    let keys = root_keys();
    let env = [
        ("SHARDGATE_ROOT_ACCESS_KEY", keys.access.as_str()),
        ("SHARDGATE_ROOT_SECRET_KEY", keys.secret.as_str()),
    ];
    let log = pool.dir.join(log);
    let _ = fs::remove_file(&log);
    let which = pool.which();
    let which = which.iter().map(String::as_str);
    let args: Vec<&str> = words.iter().copied().chain(which).collect();
    Process::start("shardgate", &args, &env, &log)
}

/// Runs a command; whether it succeeded, and what it said.
fn run(pool: &TestPool, words: &[&str]) -> (bool, String) {
    let mut process = spawn(pool, words, "command.log");
    let done = process.wait_end();
    (done, process.output())
}

/// Begins a rebuild.
pub fn begin_rebuild(pool: &TestPool) -> Process {
    spawn(pool, &["catalog", "rebuild", "--yes"], "rebuild.log")
}

/// Rebuilds; what was said.
pub fn rebuild(pool: &TestPool, flags: &[&str]) -> (bool, String) {
    run(pool, &[&["catalog", "rebuild", "--yes"], flags].concat())
}

pub fn status(pool: &TestPool) -> String {
    let (done, said) = run(pool, &["status"]);
    assert!(done, "{said}");
    said
}

pub fn hold(pool: &TestPool, flags: &[&str]) -> String {
    let (done, said) = run(pool, &[&["catalog", "hold"], flags].concat());
    assert!(done, "{said}");
    said
}

/// Waits until a status says something.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what} does not come");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Waits until all disks that answer know what became of their blobs. Disks
/// in `but` are not waited for.
pub fn wait_for_notes(pool: &TestPool, but: usize) {
    wait_for("the last note", || {
        let said = status(pool);
        let lines = said.lines().skip_while(|line| !line.starts_with("Notes:"));
        let mut lines = lines.map(str::to_owned);
        let words = lines.next().expect("a line about notes");
        let numbers: Vec<u64> = words
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let behind = lines
            .take_while(|line| line.contains("up to commit"))
            .count();
        let told = numbers[0] == numbers[1];
        told || (but > 0 && behind == but)
    });
}

/// Files of shards, and of volumes, on all disks: their bytes.
pub fn purged(pool: &TestPool) -> u64 {
    let token = fs::read_to_string(pool.dir.join("catalog/operator-token"));
    let token = token.expect("the operator's token");
    let metrics = fetch(pool, token.trim());
    let line = metrics
        .lines()
        .find(|line| line.contains("data_path_events") && line.contains("\"blobs_purged\""));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value
        .and_then(|value| value.parse::<f64>().ok())
        .expect("a number") as u64
}

fn fetch(pool: &TestPool, token: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(pool.operator).expect("the operator's port");
    let request = format!(
        "GET /metrics HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n",
        pool.operator
    );
    stream.write_all(request.as_bytes()).expect("ask");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

/// The gateway's own folder is gone.
pub fn lose_gateway(pool: &TestPool) {
    fs::remove_dir_all(pool.dir.join("catalog")).expect("remove the gateway's folder");
}

/// Every segment of the journal is gone.
pub fn lose_journal(pool: &TestPool, disks: usize) {
    for disk in 1..=disks {
        for file in journal_files(pool, disk) {
            fs::remove_file(file).expect("remove a segment");
        }
    }
}

fn journal_files(pool: &TestPool, disk: usize) -> Vec<PathBuf> {
    let folder = pool.disk(disk).join("journal");
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

pub fn take_away(pool: &TestPool, disk: usize) {
    let folder = pool.disk(disk);
    fs::rename(&folder, folder.with_extension("away")).expect("take a disk away");
}

pub fn bring_back(pool: &TestPool, disk: usize) {
    let folder = pool.disk(disk);
    fs::rename(folder.with_extension("away"), &folder).expect("bring a disk back");
}
