//! Pools under test: their folders, their processes, their addresses, and
//! what an operator would ask them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::client::Client;
use crate::process::{Process, binary, free_addr};
use crate::sigv4::Keys;

/// Root keys of every pool that tests make.
pub fn root_keys() -> Keys {
    Keys {
        access: "TESTROOTACCESS1".into(),
        secret: "test-root-secret-7Qm2xV9kLp4".into(),
        region: "us-east-1".into(),
    }
}

/// A pool under test: the folder, the processes, the addresses.
pub struct TestPool {
    /// Everything of the pool lies here.
    pub dir: PathBuf,
    /// The gateway's S3 address.
    pub addr: SocketAddr,
    /// The gateway's operator address.
    pub operator: SocketAddr,
    kind: Kind,
    /// More flags for the gateway, and for a restore of its catalog.
    pub flags: Vec<String>,
    /// The running gateway.
    pub gateway: Option<Process>,
    /// The running agents; `None` where one was killed.
    pub agents: Vec<Option<Process>>,
    _temp: Option<tempfile::TempDir>,
}

enum Kind {
    /// `shardgate demo` with this many disks.
    Embedded { disks: usize },
    /// Agents with so many disks each, and `shardgate serve`.
    Agents {
        addrs: Vec<SocketAddr>,
        disks_each: usize,
        class: Option<String>,
    },
}

/// Another gateway over the agents of a pool.
pub struct Second {
    /// It.
    pub process: Process,
    /// Its S3 address.
    pub addr: SocketAddr,
    /// Its operator address.
    pub operator: SocketAddr,
}

/// The secret that agents and gateway of a test pool share.
const SECRET: &str = "4f8c1d7e90ab35266b1f0c9d8e7a6543b2c1d0e9f8a7b6c5";

impl TestPool {
    /// The one-command pool, started.
    pub fn embedded(disks: usize) -> Self {
        let mut pool = Self::empty(Kind::Embedded { disks });
        pool.start();
        pool
    }

    /// As [`Self::embedded`], with more flags.
    pub fn embedded_with(disks: usize, flags: &[&str]) -> Self {
        let mut pool = Self::empty(Kind::Embedded { disks });
        pool.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        pool.start();
        pool
    }

    /// As [`Self::embedded`], with all of it in `dir`, which outlives it.
    pub fn embedded_in(dir: &Path, disks: usize) -> Self {
        let mut pool = Self::empty(Kind::Embedded { disks });
        pool.dir = dir.to_owned();
        pool.start();
        pool
    }

    /// `agents` agent processes with `disks_each` disks, and a gateway over
    /// them. `class` is the scheme of STANDARD where it is not `auto`.
    pub fn with_agents(agents: usize, disks_each: usize, class: Option<&str>) -> Self {
        Self::with_agents_in(agents, disks_each, class, |_| {})
    }

    /// The same, after `prepare` was told the folder that all of it will lie
    /// in: agent N has its disks in `agent-N/disk-1` and so on, made unless
    /// that is done.
    pub fn with_agents_in(
        agents: usize,
        disks_each: usize,
        class: Option<&str>,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let addrs = (0..agents).map(|_| free_addr()).collect();
        let class = class.map(str::to_owned);
        let mut pool = Self::empty(Kind::Agents {
            addrs,
            disks_each,
            class,
        });
        prepare(&pool.dir);
        pool.agents = (0..agents).map(|_| None).collect();
        (0..agents).for_each(|index| pool.start_agent(index));
        pool.start();
        pool
    }

    fn empty(kind: Kind) -> Self {
        let temp = tempfile::tempdir().expect("make a temporary folder");
        Self {
            dir: temp.path().to_owned(),
            addr: free_addr(),
            operator: free_addr(),
            kind,
            flags: Vec::new(),
            gateway: None,
            agents: Vec::new(),
            _temp: Some(temp),
        }
    }

    /// The folder of disk `number`, from 1; with agents, in their order.
    pub fn disk(&self, number: usize) -> PathBuf {
        match &self.kind {
            Kind::Embedded { .. } => self.dir.join(format!("disk-{number}")),
            Kind::Agents { disks_each, .. } => {
                let (agent, disk) = ((number - 1) / disks_each, (number - 1) % disks_each);
                self.dir.join(format!("agent-{agent}/disk-{}", disk + 1))
            }
        }
    }

    /// Starts the gateway and waits until it is ready.
    pub fn start(&mut self) {
        let mut gateway = self.spawn_gateway();
        gateway.wait_ready(self.operator, "/health/ready");
        self.gateway = Some(gateway);
    }

    /// What `shardgate status` says.
    pub fn status_words(&self) -> String {
        let mut status = Command::new(binary("shardgate"));
        match &self.kind {
            Kind::Embedded { .. } => status.args(["status", "--data"]).arg(&self.dir),
            Kind::Agents { .. } => status
                .args(["status", "--config"])
                .arg(self.write_gateway_config()),
        };
        let keys = root_keys();
        let output = status
            .env("SHARDGATE_ROOT_ACCESS_KEY", keys.access)
            .env("SHARDGATE_ROOT_SECRET_KEY", keys.secret)
            .output()
            .expect("run status");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// How many disks keep the journal, by the `status` of the pool.
    pub fn journal_disks(&self) -> usize {
        let text = self.status_words();
        let lines = text
            .lines()
            .skip_while(|line| !line.starts_with("Journal:"));
        let ids = lines
            .skip(1)
            .filter(|line| !line.trim_start().starts_with('!'));
        ids.count()
    }

    /// Starts the gateway without waiting.
    pub fn spawn_gateway(&self) -> Process {
        let keys = root_keys();
        let operator = self.operator.to_string();
        let env = [
            ("SHARDGATE_ROOT_ACCESS_KEY", keys.access.as_str()),
            ("SHARDGATE_ROOT_SECRET_KEY", keys.secret.as_str()),
        ];
        let log = self.dir.join("gateway.log");
        match &self.kind {
            Kind::Embedded { disks } => {
                let (dir, disks) = (self.dir.display().to_string(), disks.to_string());
                let addr = self.addr.to_string();
                let mut args = vec!["demo", "--data", &dir, "--disks", &disks];
                args.extend(["--listen", &addr, "--operator-listen", &operator]);
                args.extend(["--host-name", "s3.localhost"]);
                args.extend(self.flags.iter().map(String::as_str));
                Process::start("shardgate", &args, &env, &log)
            }
            Kind::Agents { .. } => {
                let config = self.write_gateway_config();
                let mut args = vec!["serve", "--config", config.to_str().expect("UTF-8 path")];
                args.extend(self.flags.iter().map(String::as_str));
                Process::start("shardgate", &args, &env, &log)
            }
        }
    }

    /// Starts the gateway of a pool of agents with more flags, without
    /// waiting.
    pub fn spawn_with(&self, flags: &[&str]) -> Process {
        let keys = root_keys();
        let env = [
            ("SHARDGATE_ROOT_ACCESS_KEY", keys.access.as_str()),
            ("SHARDGATE_ROOT_SECRET_KEY", keys.secret.as_str()),
        ];
        let config = self.write_gateway_config();
        let mut args = vec!["serve", "--config", config.to_str().expect("UTF-8 path")];
        args.extend(flags);
        Process::start("shardgate", &args, &env, &self.dir.join("gateway.log"))
    }

    /// Starts another gateway over the same agents, with a folder, ports and
    /// a log of its own, without waiting.
    pub fn spawn_second(&self, folder: &Path, flags: &[&str]) -> Second {
        let keys = root_keys();
        let env = [
            ("SHARDGATE_ROOT_ACCESS_KEY", keys.access.as_str()),
            ("SHARDGATE_ROOT_SECRET_KEY", keys.secret.as_str()),
        ];
        let (addr, operator) = (free_addr(), free_addr());
        let config = self.write_gateway_config();
        let set = format!("catalog.path=\"{}\"", folder.display());
        let (listen, operator_listen) = (addr.to_string(), operator.to_string());
        let config = config.to_str().expect("UTF-8 path");
        let mut args = vec!["serve", "--config", config, "--set", &set];
        args.extend(["--listen", &listen, "--operator-listen", &operator_listen]);
        args.extend(flags);
        let log = self.dir.join("second.log");
        Second {
            process: Process::start("shardgate", &args, &env, &log),
            addr,
            operator,
        }
    }

    /// Which pool a command is for, as its flags say it.
    pub fn which(&self) -> Vec<String> {
        match &self.kind {
            Kind::Embedded { .. } => vec!["--data".to_owned(), self.dir.display().to_string()],
            Kind::Agents { .. } => {
                let config = self.write_gateway_config();
                vec!["--config".to_owned(), config.display().to_string()]
            }
        }
    }

    /// A `shardgate` command about this pool, to its end; whether it went
    /// well, and what it said.
    pub fn command(&self, words: &[&str]) -> (bool, String) {
        let done = Command::new(binary("shardgate"))
            .args(words)
            .args(self.which())
            .stdin(Stdio::null())
            .output()
            .expect("run shardgate");
        let said = [done.stdout, done.stderr].map(|of| String::from_utf8_lossy(&of).into_owned());
        (done.status.success(), said.concat())
    }

    /// Has a checkpoint of the catalog taken.
    ///
    /// # Panics
    /// If it is not.
    pub fn checkpoint(&self) -> String {
        let (done, said) = self.command(&["catalog", "checkpoint"]);
        assert!(done && said.contains("is kept"), "{said}");
        said
    }

    /// Restores the catalog without asking, with more flags; whether it was,
    /// and what was said.
    pub fn restore(&self, flags: &[&str]) -> (bool, String) {
        let mut words = vec!["catalog", "restore", "--yes"];
        words.extend(flags);
        self.command(&words)
    }

    /// As [`Self::command`], without waiting for its end.
    pub fn spawn_command(&self, words: &[&str]) -> Process {
        let which = self.which();
        let words = words.iter().copied();
        let args: Vec<&str> = words.chain(which.iter().map(String::as_str)).collect();
        Process::start("shardgate", &args, &[], &self.dir.join("command.log"))
    }

    /// The gateway's metrics.
    pub fn metrics(&self) -> String {
        let token = fs::read_to_string(self.dir.join("catalog/operator-token"));
        let token = token.expect("the gateway has started");
        let mut stream = TcpStream::connect(self.operator).expect("the gateway listens");
        let addr = self.operator;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {}\r\n\
             Connection: close\r\n\r\n",
            token.trim()
        )
        .expect("ask for metrics");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// The status of the gateway, as JSON.
    pub fn status(&self) -> String {
        let (done, said) = self.command(&["status", "--json"]);
        assert!(done, "{said}");
        said
    }

    fn write_gateway_config(&self) -> PathBuf {
        let Kind::Agents { addrs, class, .. } = &self.kind else {
            unreachable!("only pools of agents have a configuration file")
        };
        let agents: Vec<_> = addrs
            .iter()
            .map(|addr| format!("\"http://{addr}\""))
            .collect();
        let mut text = format!(
            "[gateway]\nlisten = \"{}\"\noperator_listen = \"{}\"\nhost_names = [\"s3.localhost\"]\n\n[catalog]\npath = \"{}\"\n\n[pool]\nagents = [{}]\nsecret = \"{SECRET}\"\n",
            self.addr,
            self.operator,
            self.dir.join("catalog").display(),
            agents.join(", "),
        );
        if let Some(scheme) = class {
            text.push_str(&format!("\n[classes.STANDARD]\nscheme = \"{scheme}\"\n"));
        }
        let path = self.dir.join("shardgate.toml");
        fs::write(&path, text).expect("write the configuration");
        path
    }

    /// Starts agent `index`, from 0, and waits until it is ready.
    pub fn start_agent(&mut self, index: usize) {
        let Kind::Agents {
            addrs, disks_each, ..
        } = &self.kind
        else {
            panic!("an embedded pool has no agents")
        };
        let dir = self.dir.join(format!("agent-{index}"));
        let disks: Vec<_> = (1..=*disks_each)
            .map(|disk| dir.join(format!("disk-{disk}")))
            .collect();
        if !dir.exists() {
            disks
                .iter()
                .for_each(|disk| fs::create_dir_all(disk).expect("make a disk's folder"));
        }
        let mut text = format!(
            "name = \"agent-{index}\"\nserver = \"server-{index}\"\nlisten = \"{}\"\nstate_dir = \"{}\"\nsecret = \"{SECRET}\"\n",
            addrs[index],
            dir.join("state").display(),
        );
        for disk in &disks {
            text.push_str(&format!("\n[[disks]]\npath = \"{}\"\n", disk.display()));
        }
        let config = dir.join("agent.toml");
        fs::write(&config, text).expect("write the agent's configuration");
        let args = ["--config", config.to_str().expect("UTF-8 path")];
        let mut agent = Process::start("shardgate-agent", &args, &[], &dir.join("agent.log"));
        agent.wait_ready(addrs[index], "/healthz");
        self.agents[index] = Some(agent);
    }

    /// Where the agents listen; none of an embedded pool.
    pub fn agent_addrs(&self) -> &[SocketAddr] {
        match &self.kind {
            Kind::Embedded { .. } => &[],
            Kind::Agents { addrs, .. } => addrs,
        }
    }

    /// Kills agent `index`.
    pub fn kill_agent(&mut self, index: usize) {
        self.agents[index].take().expect("the agent runs").kill();
    }

    /// Stops the gateway cleanly.
    pub fn stop(&mut self) {
        self.gateway.take().expect("the gateway runs").stop();
    }

    /// Kills the gateway.
    pub fn kill(&mut self) {
        self.gateway.take().expect("the gateway runs").kill();
    }

    /// A client with the root keys.
    pub fn client(&self) -> Client {
        Client::new(self.addr, root_keys())
    }
}
