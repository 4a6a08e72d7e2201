//! A folder for one pool, the programs that run on it, and commands.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use shardgate_tests::client::Client;
use shardgate_tests::pool::root_keys;
use shardgate_tests::process::{Process, free_addr};
use shardgate_tests::random;

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where everything of a pool lies.
pub struct Place {
    dir: tempfile::TempDir,
    /// S3.
    pub addr: SocketAddr,
    /// Metrics, health, commands.
    pub operator: SocketAddr,
}

impl Place {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("make a temporary folder"),
            addr: free_addr(),
            operator: free_addr(),
        }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn make(&self, names: &[&str]) {
        for name in names {
            fs::create_dir_all(self.path(name)).expect("make a folder");
        }
    }

    fn spawn(&self, program: &str, args: &[&str], log: &str) -> Process {
        let keys = root_keys();
        let env = [
            ("SHARDGATE_ROOT_ACCESS_KEY", keys.access.as_str()),
            ("SHARDGATE_ROOT_SECRET_KEY", keys.secret.as_str()),
        ];
        let log = self.path(log);
        let _ = fs::remove_file(&log);
        Process::start(program, args, &env, &log)
    }

    /// `shardgate demo` with more flags, without waiting.
    pub fn spawn_demo(&self, flags: &[&str]) -> Process {
        let (addr, operator) = (self.addr.to_string(), self.operator.to_string());
        let data = self.text("");
        let mut args = vec!["demo", "--data", &data];
        args.extend(["--listen", &addr, "--operator-listen", &operator]);
        args.extend(flags);
        self.spawn("shardgate", &args, "demo.log")
    }

    /// The same, serving.
    pub fn demo(&self, flags: &[&str]) -> Process {
        self.ready(self.spawn_demo(flags))
    }

    pub fn ready(&self, mut process: Process) -> Process {
        process.wait_ready(self.operator, "/health/ready");
        process
    }

    /// Writes the gateway's configuration, with this in `[pool]`.
    pub fn configure(&self, pool: &str) {
        let text = format!(
            "[gateway]\nlisten = '{}'\noperator_listen = '{}'\n[catalog]\npath = '{}'\n[pool]\n{pool}\n",
            self.addr,
            self.operator,
            self.text("catalog"),
        );
        fs::write(self.path("shardgate.toml"), text).expect("write the configuration");
    }

    /// `shardgate serve` with that configuration, without waiting.
    pub fn spawn_serve(&self) -> Process {
        let config = self.text("shardgate.toml");
        self.spawn("shardgate", &["serve", "--config", &config], "serve.log")
    }

    /// The same, serving.
    pub fn serve(&self) -> Process {
        self.ready(self.spawn_serve())
    }

    /// An agent of these folders and no secret, serving.
    pub fn agent(&self, name: &str, addr: SocketAddr, disks: &[&str]) -> Process {
        self.agent_with(name, addr, disks, free_addr())
    }

    /// The same, with its metrics at `operator`.
    pub fn agent_with(
        &self,
        name: &str,
        addr: SocketAddr,
        disks: &[&str],
        operator: SocketAddr,
    ) -> Process {
        let mut text = format!(
            "name = '{name}'\nserver = '{name}'\nlisten = '{addr}'\noperator_listen = '{operator}'\nstate_dir = '{}'\n",
            self.text(&format!("{name}-state")),
        );
        for disk in disks {
            text.push_str(&format!("[[disks]]\npath = '{}'\n", self.text(disk)));
        }
        // What a test damages is found when the test says so.
        text.push_str("[limits]\nscrub_days = 0\n");
        let config = format!("{name}.toml");
        fs::write(self.path(&config), text).expect("write the configuration");
        let args = ["--config", &self.text(&config)];
        let mut agent = self.spawn("shardgate-agent", &args, &format!("{name}.log"));
        agent.wait_ready(addr, "/healthz");
        agent
    }

    /// A command to its end; whether it went well, and what it said.
    pub fn command(&self, words: &[&str]) -> (bool, String) {
        let (data, config) = (self.text(""), self.text("shardgate.toml"));
        let which = match Path::new(&config).exists() {
            true => ["--config", &config],
            false => ["--data", &data],
        };
        let args: Vec<&str> = words.iter().copied().chain(which).collect();
        let mut process = self.spawn("shardgate", &args, "command.log");
        let done = process.wait_end();
        (done, process.output())
    }

    /// What `shardgate status` shows.
    pub fn status(&self) -> String {
        let (done, said) = self.command(&["status"]);
        assert!(done, "{said}");
        said
    }

    /// Waits until `status` shows what is looked for.
    pub fn wait_status(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if is(&status) {
                return status;
            }
            assert!(Instant::now() < until, "{what}:\n{status}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.addr, root_keys())
    }
}

/// Lines of `status` about disks in this state.
pub fn disks_in(status: &str, state: &str) -> Vec<String> {
    let disks = status
        .lines()
        .skip_while(|line| *line != "Disks:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let state = format!(" {state}");
    let of = disks.filter(|line| line.ends_with(&state) || line.contains(&format!("{state}: ")));
    of.map(str::to_owned).collect()
}

/// Ids of the disks in this state.
pub fn ids_in(status: &str, state: &str) -> Vec<String> {
    let id = |line: &String| line.split_whitespace().next().map(str::to_owned);
    disks_in(status, state).iter().filter_map(id).collect()
}

const BUCKET: &str = "kept";
/// Inline, copies, one stripe, several.
const SIZES: [usize; 5] = [10, 2_000, 70_000, 1_048_576, 3_000_001];

fn body(round: usize, size: usize) -> Bytes {
    random::bytes((round * 7 + size) as u64, size).into()
}

pub async fn make_bucket(place: &Place) {
    place.client().make_bucket(BUCKET).await;
}

/// Writes objects of all sizes.
pub async fn write(place: &Place, round: usize) {
    let client = place.client();
    for size in SIZES {
        let key = format!("{round}/{size}");
        let body = body(round, size);
        client.put_as_disks_go(BUCKET, &key, body).await;
    }
}

/// Reads what a round has written, byte for byte.
pub async fn read(place: &Place, round: usize) {
    let client = place.client();
    for size in SIZES {
        let ask = client.get(BUCKET, &format!("{round}/{size}"));
        let answer = ask.send().await.expect("an answer");
        let same = answer.expect_status(200).body == body(round, size);
        assert!(same, "size {size} of round {round}");
    }
}
