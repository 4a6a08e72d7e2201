//! Starts the real binaries, waits until they serve, and ends them.
//!
//! Every process is ended by its own id: politely on drop, or killed when a
//! test wants a crash. Binaries are those of the release build, in the
//! folder that `SHARDGATE_BIN_DIR` names or beside the tests' own target.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to serve, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of the binaries under test.
fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("SHARDGATE_BIN_DIR") {
        return dir.into();
    }
    let own = std::env::current_exe().expect("a test knows its own path");
    let target = own
        .ancestors()
        .nth(3)
        .expect("tests lie in TARGET/PROFILE/deps");
    target.join("release")
}

/// Where a binary under test lies.
pub(crate) fn binary(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(
        path.exists(),
        "{} is missing: run `make build` first",
        path.display()
    );
    path
}

/// A port of loopback that was free a moment ago.
pub fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a listener has an address")
}

/// A process under test; its output goes to a log file.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `name` with `args`; its output is appended to `log`.
    pub fn start(name: &str, args: &[&str], env: &[(&str, &str)], log: &Path) -> Self {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("open the log");
        let err = out.try_clone().expect("share the log");
        let child = Command::new(binary(name))
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self {
            child,
            name: name.to_owned(),
            log: log.to_owned(),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap_or_else(|e| panic!("signal {}: {e}", self.name));
    }

    /// SIGKILL, as a crash.
    pub fn kill(mut self) {
        self.child.kill().expect("kill a child");
        self.child.wait().expect("wait for a child");
    }

    /// SIGTERM and its clean end.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_end();
        assert!(
            status,
            "{} did not end cleanly:\n{}",
            self.name,
            self.output()
        );
    }

    /// Waits for its end; whether it was a clean one.
    pub fn wait_end(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                return status.success();
            }
            assert!(
                Instant::now() < until,
                "{} does not end:\n{}",
                self.name,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait for a child").is_none()
    }

    /// Waits until a `GET` of `path` at `addr` is answered with 200.
    pub fn wait_ready(&mut self, addr: SocketAddr, path: &str) {
        let until = Instant::now() + PATIENCE;
        while !answers(addr, path) {
            assert!(
                self.is_running(),
                "{} ended early:\n{}",
                self.name,
                self.output()
            );
            assert!(
                Instant::now() < until,
                "{} is not ready:\n{}",
                self.name,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Resident memory, and the highest that it was: bytes.
    pub fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("read /proc");
        let field = |name: &str| {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .expect("a known field");
            let kib: u64 = line
                .split_whitespace()
                .nth(1)
                .expect("a value")
                .parse()
                .expect("a number");
            kib * 1024
        };
        Memory {
            resident: field("VmRSS:"),
            peak: field("VmHWM:"),
        }
    }

    /// CPU seconds that it has used.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("read /proc");
        let after_name = stat.rsplit_once(')').expect("the name is in parentheses").1;
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("a number"))
            .sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }
}

/// Memory of a process, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most so far.
    pub peak: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = kill_process(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<_> = output.lines().rev().take(40).collect();
            eprintln!("--- last lines of {}:", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn answers(addr: SocketAddr, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
        )?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head[9..] == b"200")
    };
    ask().unwrap_or(false)
}
