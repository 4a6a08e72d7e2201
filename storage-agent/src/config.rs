//! What an agent is told: file, environment, flags, in rising order.
//!
//! Owns the keys, their bounds and their defaults. Invariant: a key that is
//! not known and a value that is not allowed are refused, with the file and
//! line, or the flag, and with what is allowed; a secret is in no message.

mod limits;

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use shardgate_wire::log_filter::words_are_levels;
use shardgate_wire::mac::{MAX_SECRET_BYTES, MIN_SECRET_BYTES, Secret};
use shardgate_wire::secret_file::read_secret_file;
use shardgate_wire::{ClusterId, Medium};
use thiserror::Error;
use toml::Spanned;
use tracing_subscriber::EnvFilter;

use crate::flags::Flags;
use crate::limits::Limits;
use limits::{LimitTable, limits};

/// The variable that holds the secret.
pub const SECRET_VARIABLE: &str = "SHARDGATE_AGENT_SECRET";
/// Most disks of one agent.
const MAX_DISKS: usize = 128;

/// A configured folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// The folder.
    pub path: PathBuf,
    /// Its medium, where the kernel is not to be asked.
    pub medium: Option<Medium>,
    /// A folder on a faster disk for copies of its directories.
    pub index_dir: Option<PathBuf>,
}

/// Everything an agent is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// For gateways.
    pub listen: Vec<SocketAddr>,
    /// For the operator.
    pub operator_listen: Option<SocketAddr>,
    /// What the agent is called.
    pub name: String,
    /// Its server.
    pub server: String,
    /// Its site.
    pub site: String,
    /// The cluster's secret; none only where every address is loopback.
    pub secret: Option<Secret>,
    /// Where its own id lies.
    pub state_dir: PathBuf,
    /// The only cluster whose disks it opens.
    pub cluster: Option<ClusterId>,
    /// Its folders.
    pub disks: Vec<DiskConfig>,
    /// Its bounds.
    pub limits: Limits,
    /// Between looks at folders that are not open.
    pub check_every: Duration,
    /// Log filter.
    pub log: String,
    /// Whether logs are JSON.
    pub log_json: bool,
}

/// A configuration that is refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{at}: {what}")]
pub struct ConfigError {
    /// File and line, or flag and variable.
    pub at: String,
    /// What is wrong, and what is allowed.
    pub what: String,
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Spanned<OneOrMore>>,
    operator_listen: Option<Spanned<String>>,
    name: Option<Spanned<String>>,
    server: Option<Spanned<String>>,
    site: Option<Spanned<String>>,
    secret: Option<Spanned<String>>,
    secret_file: Option<Spanned<String>>,
    state_dir: Option<Spanned<String>>,
    cluster: Option<Spanned<String>>,
    index_dir: Option<Spanned<String>>,
    #[serde(default)]
    disks: Vec<Spanned<DiskTable>>,
    log: Option<Spanned<String>>,
    log_format: Option<Spanned<String>>,
    check_secs: Option<Spanned<u64>>,
    #[serde(default)]
    limits: LimitTable,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskTable {
    path: String,
    medium: Option<Medium>,
    index_dir: Option<String>,
}

/// A value and where it was said.
struct Said<T> {
    value: T,
    at: String,
}

impl<T> Said<T> {
    fn refuse(&self, what: impl Display) -> ConfigError {
        ConfigError {
            at: self.at.clone(),
            what: what.to_string(),
        }
    }
}

/// Where the values come from.
struct Sources<'a> {
    path: String,
    text: &'a str,
}

impl Sources<'_> {
    fn line(&self, at: usize) -> String {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        format!("{}:{line}", self.path)
    }

    fn in_file<T>(&self, value: Spanned<T>) -> Said<T> {
        let at = self.line(value.span().start);
        let value = value.into_inner();
        Said { value, at }
    }

    /// A flag or its variable goes before the file.
    fn pick<T>(&self, key: &str, flag: Option<T>, file: Option<Spanned<T>>) -> Option<Said<T>> {
        match flag {
            Some(value) => Some(Said {
                value,
                at: flag_name(key),
            }),
            None => file.map(|value| self.in_file(value)),
        }
    }

    fn number(
        &self,
        key: &str,
        flag: Option<u64>,
        file: Option<Spanned<u64>>,
        default: u64,
        allowed: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let Some(said) = self.pick(key, flag, file) else {
            return Ok(default);
        };
        if allowed.contains(&said.value) {
            return Ok(said.value);
        }
        let (low, high) = (allowed.start(), allowed.end());
        Err(said.refuse(format!(
            "{key} is {}, allowed are {low} to {high}",
            said.value
        )))
    }
}

fn flag_name(key: &str) -> String {
    let flag = key.replace('_', "-");
    format!("--{flag} or SHARDGATE_AGENT_{}", key.to_uppercase())
}

fn parse<T: FromStr>(key: &str, said: &Said<String>, allowed: &str) -> Result<T, ConfigError> {
    said.value
        .parse()
        .map_err(|_| said.refuse(format!("{key} is {:?}, allowed is {allowed}", said.value)))
}

impl Config {
    /// Puts flags, environment and file together.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let secret = std::env::var(SECRET_VARIABLE).ok();
        let Some(path) = flags.config.clone() else {
            return Self::from_parts("no file", "", flags, secret);
        };
        let text = std::fs::read_to_string(&path).map_err(|error| ConfigError {
            at: path.display().to_string(),
            what: format!("cannot be read: {error}"),
        })?;
        Self::from_parts(&path.display().to_string(), &text, flags, secret)
    }

    /// The same with the file's text and the secret's variable given.
    pub fn from_parts(
        path: &str,
        text: &str,
        flags: Flags,
        secret: Option<String>,
    ) -> Result<Self, ConfigError> {
        let sources = Sources {
            path: path.to_owned(),
            text,
        };
        let file: File = toml::from_str(text).map_err(|error| ConfigError {
            at: sources.line(error.span().map_or(0, |span| span.start)),
            // Not the error's whole text: it quotes the line, secret and all.
            what: error.message().to_owned(),
        })?;
        build(&sources, file, flags, secret)
    }
}

fn build(
    sources: &Sources<'_>,
    file: File,
    flags: Flags,
    secret: Option<String>,
) -> Result<Config, ConfigError> {
    let limits = limits(sources, &flags, file.limits)?;
    let listen = listen(sources, flags.listen, file.listen)?;
    let operator = sources.pick(
        "operator_listen",
        flags.operator_listen,
        file.operator_listen,
    );
    let secret_file = sources.pick("secret_file", flags.secret_file, file.secret_file);
    let secret = self::secret(sources, secret, file.secret, secret_file)?;
    if secret.is_none()
        && let Some(open) = listen
            .value
            .iter()
            .find(|address| !address.ip().is_loopback())
    {
        return Err(listen.refuse(format!(
            "no secret, and {open} is not loopback: set secret_file, or {SECRET_VARIABLE}, to \
             {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random bytes that gateways have too"
        )));
    }
    let name = name("name", sources.pick("name", flags.name, file.name))?.unwrap_or("agent".into());
    let server = self::name("server", sources.pick("server", flags.server, file.server))?;
    let site = self::name("site", sources.pick("site", flags.site, file.site))?;
    let cluster = sources.pick("cluster", flags.cluster, file.cluster);
    let state_dir = sources.pick("state_dir", flags.state_dir, file.state_dir);
    let state_dir = state_dir.ok_or_else(|| ConfigError {
        at: sources.path.clone(),
        what: "state_dir is missing: a folder for the agent's own id".to_owned(),
    })?;
    let index_dir = sources.pick("index_dir", flags.index_dir, file.index_dir);
    let index_dir = index_dir.map(absolute_index_dir).transpose()?;
    let check = sources.number("check_secs", flags.check_secs, file.check_secs, 5, 1..=3600)?;
    let log_format = sources.pick("log_format", flags.log_format, file.log_format);
    Ok(Config {
        operator_listen: operator
            .map(|said| parse("operator_listen", &said, "ADDRESS:PORT"))
            .transpose()?,
        listen: listen.value,
        server: server.unwrap_or_else(|| name.clone()),
        site: site.unwrap_or("default".into()),
        name,
        secret,
        state_dir: state_dir.value.into(),
        cluster: cluster
            .map(|said| parse("cluster", &said, "an id of 32 hex digits"))
            .transpose()?,
        disks: disks(sources, flags.disks, file.disks, index_dir)?,
        limits,
        check_every: Duration::from_secs(check),
        log: log_filter(sources.pick("log", flags.log, file.log))?,
        log_json: log_format.map_or(Ok(false), |said| match said.value.as_str() {
            "text" => Ok(false),
            "json" => Ok(true),
            other => Err(said.refuse(format!("log_format is {other:?}, allowed are text, json"))),
        })?,
    })
}

fn listen(
    sources: &Sources<'_>,
    flag: Vec<String>,
    file: Option<Spanned<OneOrMore>>,
) -> Result<Said<Vec<SocketAddr>>, ConfigError> {
    let flag = (!flag.is_empty()).then_some(OneOrMore::More(flag));
    let said = sources
        .pick("listen", flag, file)
        .ok_or_else(|| ConfigError {
            at: sources.path.clone(),
            what: "listen is missing: ADDRESS:PORT for gateways, such as 127.0.0.1:9600".to_owned(),
        })?;
    let texts = match said.value {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(texts) => texts,
    };
    let at = said.at;
    let parse = |text| {
        let said = Said {
            value: text,
            at: at.clone(),
        };
        parse("listen", &said, "ADDRESS:PORT, such as 127.0.0.1:9600")
    };
    let addresses: Result<Vec<_>, _> = texts.into_iter().map(parse).collect();
    let said = Said {
        value: addresses?,
        at: at.clone(),
    };
    if said.value.is_empty() {
        return Err(said.refuse("listen is empty, allowed is at least one ADDRESS:PORT"));
    }
    Ok(said)
}

fn name(key: &str, said: Option<Said<String>>) -> Result<Option<String>, ConfigError> {
    let Some(said) = said else { return Ok(None) };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if said.value.is_empty() || said.value.len() > 64 || !said.value.bytes().all(plain) {
        return Err(said.refuse(format!(
            "{key} is {:?}, allowed are 1 to 64 letters, digits, '-', '_' and '.'",
            said.value
        )));
    }
    Ok(Some(said.value))
}

fn secret(
    sources: &Sources<'_>,
    variable: Option<String>,
    in_file: Option<Spanned<String>>,
    named: Option<Said<String>>,
) -> Result<Option<Secret>, ConfigError> {
    let said = match (variable, in_file, named) {
        (Some(value), _, _) => Said {
            value,
            at: SECRET_VARIABLE.to_owned(),
        },
        (None, Some(_), Some(named)) => {
            return Err(named.refuse("secret and secret_file are both set, allowed is one"));
        }
        (None, Some(value), None) => sources.in_file(value),
        (None, None, Some(named)) => Said {
            value: read_secret(&named)?,
            at: named.value,
        },
        (None, None, None) => return Ok(None),
    };
    match Secret::from_text(&said.value) {
        Ok(secret) => Ok(Some(secret)),
        Err(weak) => Err(said.refuse(weak)),
    }
}

fn read_secret(named: &Said<String>) -> Result<String, ConfigError> {
    let path = Path::new(&named.value);
    let refuse = |error| named.refuse(format!("secret_file {}: {error}", path.display()));
    read_secret_file(path).map_err(refuse)
}

/// Which lines are logged.
fn log_filter(said: Option<Said<String>>) -> Result<String, ConfigError> {
    let Some(said) = said else {
        return Ok("info".to_owned());
    };
    let text = &said.value;
    match words_are_levels(text) && EnvFilter::builder().parse(text).is_ok() {
        true => Ok(said.value),
        false => Err(said.refuse(format!(
            "log is {text:?}, allowed is error, warn, info, debug, trace or off, or directives"
        ))),
    }
}

fn absolute_index_dir(said: Said<String>) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&said.value);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(said.refuse("the path of index_dir is absolute")),
    }
}

/// The disks; one without an index folder of its own has that of all.
fn disks(
    sources: &Sources<'_>,
    flag: Vec<String>,
    file: Vec<Spanned<DiskTable>>,
    index_dir: Option<PathBuf>,
) -> Result<Vec<DiskConfig>, ConfigError> {
    let said: Vec<Said<DiskConfig>> = if flag.is_empty() {
        let table = |table: DiskTable| DiskConfig {
            path: table.path.into(),
            medium: table.medium,
            index_dir: table.index_dir.map(PathBuf::from),
        };
        let said = file.into_iter().map(|disk| sources.in_file(disk));
        said.map(|said| Said {
            value: table(said.value),
            at: said.at,
        })
        .collect()
    } else {
        let disk = |text: String| Said {
            value: disk_flag(&text),
            at: flag_name("disks"),
        };
        flag.into_iter().map(disk).collect()
    };
    let mut disks: Vec<DiskConfig> = Vec::new();
    for mut said in said {
        if !said.value.path.is_absolute() {
            return Err(said.refuse("the path of a disk is absolute"));
        }
        let own = &mut said.value.index_dir;
        *own = own.take().or_else(|| index_dir.clone());
        if own.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(said.refuse("the path of index_dir is absolute"));
        }
        if disks.iter().any(|disk| disk.path == said.value.path) {
            return Err(said.refuse("a disk is there twice"));
        }
        if disks.len() == MAX_DISKS {
            return Err(said.refuse(format!("at most {MAX_DISKS} disks are allowed")));
        }
        disks.push(said.value);
    }
    Ok(disks)
}

/// `FOLDER`, `FOLDER=flash` or `FOLDER=rotating`.
fn disk_flag(text: &str) -> DiskConfig {
    let (path, medium) = match text.rsplit_once('=') {
        Some((path, "flash")) => (path, Some(Medium::Flash)),
        Some((path, "rotating")) => (path, Some(Medium::Rotating)),
        _ => (text, None),
    };
    DiskConfig {
        path: path.into(),
        medium,
        index_dir: None,
    }
}

#[cfg(test)]
mod tests;
