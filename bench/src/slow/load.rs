//! The slow clients' own process.

use std::io::{BufRead, BufReader, Error, Read, Result};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use shardgate_tests::client::Client;
use shardgate_tests::pool::root_keys;
use shardgate_tests::slow::{self, Ended, SlowClients};

/// What the process says when all clients have begun.
const BEGUN: &str = "begun";
/// Then they are past their first bytes.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Figures {
    /// Slow downloads at once.
    #[arg(long, default_value_t = 2000)]
    pub(crate) gets: usize,
    /// Slow uploads at once.
    #[arg(long, default_value_t = 200)]
    pub(crate) puts: usize,
    /// Bytes per second of each.
    #[arg(long, default_value_t = 50_000)]
    pub(crate) rate: u64,
    /// Seconds in which they begin, one after another; 0: all at once.
    #[arg(long, default_value_t = 5)]
    ramp: u64,
}

/// The command of the process.
#[derive(clap::Args)]
pub(crate) struct Load {
    #[arg(long)]
    addr: SocketAddr,
    #[command(flatten)]
    figures: Figures,
}

/// Serves as the process: runs until its input ends, then says what became
/// of the clients.
pub(crate) async fn run(load: Load) -> Result<()> {
    let client = Client::new(load.addr, root_keys());
    let wanted = slow::Load {
        gets: load.figures.gets,
        puts: load.figures.puts,
        rate: load.figures.rate,
        ramp: Duration::from_secs(load.figures.ramp),
    };
    let clients = SlowClients::start(&client, &wanted).await;
    tokio::time::sleep(SETTLE).await;
    println!("{BEGUN}");
    let told = || std::io::stdin().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(told).await??;
    println!("{}", serde_json::to_string(&clients.end().await?)?);
    Ok(())
}

/// The process, from outside.
pub(crate) struct LoadProcess {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl LoadProcess {
    /// Starts it at the lowest priority, and waits until all clients are past
    /// their first bytes.
    pub(crate) fn start(addr: SocketAddr, figures: &Figures) -> Result<Self> {
        let mut child = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe()?)
            .arg("slow-load")
            .args(["--addr", &addr.to_string()])
            .args(["--gets", &figures.gets.to_string()])
            .args(["--puts", &figures.puts.to_string()])
            .args(["--rate", &figures.rate.to_string()])
            .args(["--ramp", &figures.ramp.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().expect("its output is piped");
        let mut process = Self {
            child,
            output: BufReader::new(output),
        };
        match process.line()?.as_str() {
            BEGUN => Ok(process),
            other => Err(Error::other(format!("the slow clients said {other:?}"))),
        }
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Ends it; what became of the clients.
    pub(crate) fn end(mut self) -> Result<Ended> {
        drop(self.child.stdin.take());
        let ended = self.line()?;
        self.child.wait()?;
        serde_json::from_str(&ended).map_err(Error::other)
    }
}

impl Drop for LoadProcess {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
