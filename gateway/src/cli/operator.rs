//! Commands that ask the running gateway on its operator port.

mod check;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use shardgate_wire::operator_token::TOKEN_FILE;
use tokio::net::TcpStream;

use super::args::{Disk, DiskCommand, Operator, environment};
use super::demo::operator_address;
use crate::admin;
use crate::config::{Sources, load};

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// Where the gateway is, and its token.
struct Target {
    addr: SocketAddr,
    token: String,
}

impl Operator {
    fn target(&self) -> Result<Target, String> {
        let (addr, state): (_, PathBuf) = match &self.data {
            Some(data) => (
                self.operator.map_or_else(|| operator_address(data), Ok)?,
                data.join("catalog"),
            ),
            None => {
                let sources = Sources {
                    file: self.config.clone(),
                    environment: environment(),
                    flags: Vec::new(),
                };
                let settings = load(&sources).map_err(|error| error.to_string())?;
                let path = settings
                    .catalog
                    .path
                    .ok_or("name the gateway: --config FILE or --data DIR")?;
                (
                    self.operator.unwrap_or(settings.gateway.operator_listen.0),
                    path,
                )
            }
        };
        let path = state.join(TOKEN_FILE);
        let token = fs::read_to_string(&path).map_err(|error| {
            format!(
                "{}: {error} (was the gateway ever started, and may you read it?)",
                path.display()
            )
        })?;
        Ok(Target {
            addr,
            token: token.trim().to_owned(),
        })
    }
}

/// Prints the pool's status.
pub fn status(operator: &Operator) -> Result<(), String> {
    let answer = ask(&operator.target()?, "GET", admin::STATUS, String::new())?;
    if operator.json {
        println!("{answer}");
        return Ok(());
    }
    let status: admin::Status = serde_json::from_str(&answer)
        .map_err(|error| format!("the gateway's answer is not of this version: {error}"))?;
    print!("{}", admin::words(&status));
    Ok(())
}

/// Runs a command about a disk.
pub fn disk(disk: &Disk) -> Result<(), String> {
    let (operator, path, body) = match &disk.command {
        DiskCommand::Replace { place, operator } => (
            operator,
            admin::REPLACE,
            serde_json::json!({ "place": place }),
        ),
        DiskCommand::Check {
            disk,
            repair,
            operator,
        } => return check::run(operator, disk, *repair),
        DiskCommand::Lost { disk, operator } => {
            (operator, admin::LOST, serde_json::json!({ "disk": disk }))
        }
    };
    println!(
        "{}",
        ask(&operator.target()?, "POST", path, body.to_string())?
    );
    Ok(())
}

/// Has a checkpoint of the catalog taken.
pub fn checkpoint(operator: &Operator) -> Result<(), String> {
    let answer = ask(
        &operator.target()?,
        "POST",
        admin::CHECKPOINT,
        String::new(),
    )?;
    println!("{answer}");
    Ok(())
}

/// Shows the hold on reclaiming, or ends it.
pub fn hold(operator: &Operator, end: bool) -> Result<(), String> {
    let target = operator.target()?;
    if end {
        println!("{}", ask(&target, "POST", admin::END_HOLD, String::new())?);
        return Ok(());
    }
    let answer = ask(&target, "GET", admin::HOLD, String::new())?;
    if operator.json {
        println!("{answer}");
        return Ok(());
    }
    let status: admin::HoldStatus = serde_json::from_str(&answer)
        .map_err(|error| format!("the gateway's answer is not of this version: {error}"))?;
    print!("{}", admin::hold_words(&status));
    Ok(())
}

fn ask(target: &Target, method: &str, path: &str, body: String) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start: {error}"))?;
    let whole = async {
        tokio::time::timeout(PATIENCE, exchange(target, method, path, body))
            .await
            .map_err(|_| format!("no answer from {} in {PATIENCE:?}", target.addr))?
    };
    runtime.block_on(whole)
}

async fn exchange(
    target: &Target,
    method: &str,
    path: &str,
    body: String,
) -> Result<String, String> {
    let addr = target.addr;
    let failed = |error: &dyn std::fmt::Display| format!("ask the gateway at {addr}: {error}");
    let stream = TcpStream::connect(addr)
        .await
        .map_err(|error| format!("no gateway at {addr}: {error} (is it running?)"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let connection = tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", addr.to_string())
        .header("authorization", format!("Bearer {}", target.token))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| failed(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| failed(&error))?.to_bytes();
    connection.abort();
    let text = String::from_utf8_lossy(&body).trim_end().to_owned();
    match status.is_success() {
        true => Ok(text),
        false => Err(text),
    }
}
