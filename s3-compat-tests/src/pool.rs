//! One `shardgate demo` process on a free port, with its data in a folder of its own.
//!
//! Invariant: the process does not outlive its `Pool`. `stop` is part of what is tested: a pool that was
//! asked to stop drains and ends with success.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Root credentials that every pool of these tests gets.
pub const ACCESS_KEY: &str = "COMPATROOTACCESSKEY1";
/// The secret that belongs to [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "9sVt0eXw3kQ5mZr8bLpD2yHn4cJfGa7uTi6oWx1E";
/// Base of the pool's virtual-host names.
pub const HOST_NAME: &str = "s3.localhost";

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A running pool of six disks.
pub struct Pool {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Pool {
    /// Starts a pool on an empty data folder and waits until S3 answers.
    ///
    /// # Panics
    /// When it does not answer in time, with what it had logged.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("make a folder for the pool");
        let address = free_address();
        let log = File::create(folder.path().join("log")).expect("make the pool's log");
        // pdeathsig: a test run that is killed takes its pools along.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(binary())
            .args(["demo", "--disks", "6", "--host-name", HOST_NAME])
            .args(["--listen", &address.to_string(), "--data"])
            .arg(folder.path().join("data"))
            .env("SHARDGATE_ROOT_ACCESS_KEY", ACCESS_KEY)
            .env("SHARDGATE_ROOT_SECRET_KEY", SECRET_KEY)
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("start shardgate");
        let mut pool = Self {
            child,
            address,
            folder,
        };
        pool.wait_until_ready();
        pool
    }

    /// Where S3 is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the pool has logged so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks the pool to stop and says how it ended.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("ask for the pool's end") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the pool did not stop:\n{}",
                tail(&self.log())
            );
            sleep(POLL);
        }
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        while !answers(self.address) {
            let ended = self.child.try_wait().expect("ask for the pool's end");
            assert!(
                ended.is_none(),
                "the pool ended: {ended:?}\n{}",
                tail(&self.log())
            );
            assert!(
                Instant::now() < deadline,
                "no answer from the pool:\n{}",
                tail(&self.log())
            );
            sleep(POLL);
        }
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It may have ended by itself, which `try_wait` finds.
        let _ = kill_process(pid.expect("a process has an id"), Signal::TERM);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The last lines of a log.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 9];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/1.1 ")
    };
    ask().unwrap_or(false)
}

/// An address that nothing listens on at this moment.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("find a free port");
    listener.local_addr().expect("a listener has an address")
}

/// The release binary: in `SHARDGATE_BIN_DIR`, else where `make build` leaves it.
fn binary() -> PathBuf {
    let folder = match std::env::var_os("SHARDGATE_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let test = std::env::current_exe().expect("a test knows its own file");
            let target = test
                .ancestors()
                .nth(3)
                .unwrap_or(Path::new("target"))
                .to_path_buf();
            target.join("release")
        }
    };
    let binary = folder.join("shardgate");
    assert!(
        binary.exists(),
        "no {}: run `make build` first",
        binary.display()
    );
    binary
}
