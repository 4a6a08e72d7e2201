//! Lays file, environment and flags over each other, and refuses what is
//! wrong with where it stands.
//!
//! The environment variable of `section.key` is `SHARDGATE_SECTION_KEY`, the
//! flag is `--set section.key=VALUE`. Flags win over the environment, which
//! wins over the file. A value is TOML; a text may stand without quotes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use shardgate_wire::log_filter::words_are_levels;
use shardgate_wire::mac::{Secret, WeakSecret};
use shardgate_wire::secret_file::{SecretFileError, read_secret_file};
use thiserror::Error;
use toml::{Table, Value};
use tracing_subscriber::filter::EnvFilter;

use super::place;
use super::settings::Settings;
use super::values::ByteSize;
use crate::auth::{RootCredentials, SecretText, UnfitCredentials};

/// Prefix of the environment variables.
const PREFIX: &str = "SHARDGATE_";
/// Largest inline object that the design allows.
const MAX_INLINE: u64 = 16 * 1024;
/// Slower than this, a pool would not be repaired within anybody's patience.
const MIN_BACKGROUND_RATE: u64 = 64 << 10;
/// In less a disk would be read without a pause; in more, what rots on several
/// disks meets.
const SCRUB_PERIODS: RangeInclusive<Duration> =
    Duration::from_secs(3600)..=Duration::from_secs(365 * 86_400);
/// Less journal than this is not worth a checkpoint.
const MIN_CHECKPOINT: u64 = 64 << 10;
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Least memory with which the widest scheme can still decode and encode.
const MIN_BUDGET: u64 = 32 << 20;

/// Every key that may be set; `classes` is a table of its own.
pub(super) const KEYS: &[&str] = &[
    "gateway.listen",
    "gateway.operator_listen",
    "gateway.host_names",
    "gateway.region",
    "gateway.signature_v2",
    "gateway.shutdown_deadline",
    "root.access_key",
    "root.secret_key",
    "root.secret_key_file",
    "catalog.path",
    "catalog.cache",
    "catalog.inline_max",
    "catalog.checkpoint_bytes",
    "catalog.checkpoint_interval",
    "catalog.journal_bound",
    "pool.disks",
    "pool.index_dir",
    "pool.server",
    "pool.site",
    "pool.agents",
    "pool.secret",
    "pool.secret_file",
    "pool.connections_per_agent",
    "classes",
    "limits.memory_budget",
    "limits.memory_wait",
    "limits.directory_memory",
    "limits.connections",
    "limits.requests",
    "limits.background_rate",
    "limits.scrub_period",
    "limits.header_timeout",
    "limits.body_timeout",
    "limits.min_body_rate",
    "log.format",
    "log.level",
];

/// Environment variables with the prefix that are no settings of this file.
const OTHER_VARIABLES: &[&str] = &["SHARDGATE_CONFIG"];
/// Prefixes that belong to other programs.
const OTHER_PREFIXES: &[&str] = &[
    // What Kubernetes tells every pod of a service named shardgate.
    "SHARDGATE_PORT",
    "SHARDGATE_SERVICE_",
    "SHARDGATE_AGENT_",
    "SHARDGATE_TEST_",
    "SHARDGATE_BIN_",
    "SHARDGATE_CACHE",
    "SHARDGATE_PHP_",
];

/// Why settings are refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that holds a secret is not taken.
    #[error("{path}: {source}", path = path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SecretFileError,
    },
    /// Something in the file is wrong.
    #[error("{path}, line {line}: {what}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what is allowed.
        what: String,
    },
    /// An environment variable or a flag is wrong.
    #[error("{name}: {what}")]
    Override {
        /// The variable's or the flag's name.
        name: String,
        /// What is wrong, and what is allowed.
        what: String,
    },
    /// Values do not go together.
    #[error("{0}")]
    Contradiction(String),
    /// No root credentials were given.
    #[error(
        "root credentials are missing: set root.access_key and root.secret_key (or root.secret_key_file)"
    )]
    NoRoot,
    /// The root credentials are default or weak.
    #[error(transparent)]
    Root(#[from] UnfitCredentials),
}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Environment variables (all; others are left alone).
    pub environment: Vec<(String, String)>,
    /// `section.key=VALUE` of `--set`, and of flags of their own.
    pub flags: Vec<String>,
}

/// Reads, lays over, and checks everything but the root credentials.
pub fn load(sources: &Sources) -> Result<Settings, ConfigError> {
    let mut merged = match &sources.file {
        Some(path) => read_file(path)?,
        None => Table::new(),
    };
    for (name, value) in &sources.environment {
        if let Some(key) = key_of_variable(name)? {
            apply(&mut merged, name, key, value)?;
        }
    }
    for flag in &sources.flags {
        let (key, value) = flag.split_once('=').ok_or_else(|| ConfigError::Override {
            name: format!("--set {flag}"),
            what: "allowed is --set SECTION.KEY=VALUE".to_owned(),
        })?;
        apply(&mut merged, &format!("--set {key}"), key, value)?;
    }
    let settings = Settings::deserialize(merged)
        .map_err(|error| ConfigError::Contradiction(error.message().to_owned()))?;
    check(&settings).map_err(|wrong| place::refused(sources, &wrong.key, &wrong.what))?;
    Ok(settings)
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let refuse = |error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        ConfigError::File {
            path: path.to_owned(),
            line: text[..start.min(text.len())].matches('\n').count() + 1,
            what: error.message().to_owned(),
        }
    };
    // Once with its types, so that errors have a line; once as it is.
    toml::from_str::<Settings>(&text).map_err(refuse)?;
    toml::from_str(&text).map_err(refuse)
}

/// The key that a variable sets; `None` if it is none of ours.
fn key_of_variable(name: &str) -> Result<Option<&'static str>, ConfigError> {
    let foreign = OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if !name.starts_with(PREFIX) || foreign || OTHER_VARIABLES.contains(&name) {
        return Ok(None);
    }
    let key = KEYS.iter().find(|key| variable(key) == name);
    key.map(|key| Some(*key))
        .ok_or_else(|| ConfigError::Override {
            name: name.to_owned(),
            what: format!(
                "unknown setting; allowed are {}",
                KEYS.iter()
                    .map(|key| variable(key))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        })
}

/// The environment variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// Sets one value, after it was tried alone, so that its error has its name.
fn apply(merged: &mut Table, name: &str, key: &str, text: &str) -> Result<(), ConfigError> {
    let refuse = |what: String| ConfigError::Override {
        name: name.to_owned(),
        what,
    };
    let known = KEYS.contains(&key) || key.starts_with("classes.");
    if !known {
        return Err(refuse(format!(
            "unknown setting; allowed are {}",
            KEYS.join(", ")
        )));
    }
    // A text may stand without quotes; what TOML takes is tried second only
    // where a text is not what the setting wants.
    let as_text = Value::String(text.to_owned());
    let as_toml = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"));
    let mut error = None;
    for value in as_toml.into_iter().chain([as_text]) {
        let mut alone = Table::new();
        insert(&mut alone, key, value.clone());
        match Settings::deserialize(alone) {
            Ok(_) => {
                insert(merged, key, value);
                return Ok(());
            }
            Err(refused) => error = Some(refused),
        }
    }
    let what = error.map_or_else(String::new, |error| error.message().to_owned());
    Err(refuse(what))
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let entry = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}

/// A value that is wrong beside the others, or out of its bounds.
struct Wrong {
    key: String,
    /// What is allowed.
    what: String,
}

fn wrong<T>(key: &str, what: &str) -> Result<T, Wrong> {
    Err(Wrong {
        key: key.to_owned(),
        what: what.to_owned(),
    })
}

/// What no single value can say.
fn check(settings: &Settings) -> Result<(), Wrong> {
    if settings.pool.secret.is_some() && settings.pool.secret_file.is_some() {
        return wrong(
            "pool.secret_file",
            "only one of it and pool.secret may be set",
        );
    }
    if settings.root.secret_key.is_some() && settings.root.secret_key_file.is_some() {
        return wrong(
            "root.secret_key_file",
            "only one of it and root.secret_key may be set",
        );
    }
    if settings.catalog.inline_max.0 > MAX_INLINE {
        return wrong("catalog.inline_max", "allowed is 0 to 16KiB");
    }
    check_secrets(settings)?;
    check_checkpoints(settings)?;
    check_disks(settings)?;
    if settings.limits.memory_budget.0 < MIN_BUDGET {
        return wrong("limits.memory_budget", "allowed is 32MiB and more");
    }
    if settings.limits.background_rate.0 < MIN_BACKGROUND_RATE {
        return wrong("limits.background_rate", "allowed is 64KiB and more");
    }
    let scrub = settings.limits.scrub_period.0;
    if !scrub.is_zero() && !SCRUB_PERIODS.contains(&scrub) {
        return wrong(
            "limits.scrub_period",
            "allowed is 1h to 365d, or 0s for never",
        );
    }
    for (key, limit) in [
        (
            "pool.connections_per_agent",
            settings.pool.connections_per_agent,
        ),
        ("limits.connections", settings.limits.connections),
        ("limits.requests", settings.limits.requests),
    ] {
        if limit == 0 || limit > 1_000_000 {
            return wrong(key, "allowed is 1 to 1000000");
        }
    }
    for (key, period) in [
        ("limits.header_timeout", settings.limits.header_timeout),
        ("limits.body_timeout", settings.limits.body_timeout),
    ] {
        if period.0.is_zero() {
            return wrong(key, "allowed is more than 0s");
        }
    }
    if !is_log_filter(&settings.log.level) {
        return wrong(
            "log.level",
            "allowed is error, warn, info, debug, trace or off, or directives as info,shardgate=debug",
        );
    }
    check_names(settings)
}

/// Secrets that stand in the settings themselves; those in files are read
/// where they are needed.
fn check_secrets(settings: &Settings) -> Result<(), Wrong> {
    let (root, pool) = (&settings.root, &settings.pool);
    if let (Some(access), Some(secret)) = (&root.access_key, &root.secret_key)
        && !access.is_empty()
        && !secret.expose().is_empty()
        && let Err(unfit) = RootCredentials::new(access, secret.expose())
    {
        return wrong("root.secret_key", &unfit.to_string());
    }
    if let Some(secret) = &pool.secret
        && let Err(weak) = Secret::from_text(secret.expose())
    {
        return wrong("pool.secret", &weak.to_string());
    }
    Ok(())
}

/// A disk's folder is known by its path, from one start to the next.
fn check_disks(settings: &Settings) -> Result<(), Wrong> {
    let mut seen = BTreeSet::new();
    for folder in &settings.pool.disks {
        let path = folder.path.as_path();
        let up = path.components().any(|part| part == Component::ParentDir);
        if !path.is_absolute() || up {
            return wrong(
                "pool.disks",
                &format!(
                    "allowed are absolute paths without .., not {}",
                    path.display()
                ),
            );
        }
        // Compared by parts: `/a`, `/a/` and `//a` are one.
        if !seen.insert(path) {
            return wrong("pool.disks", &format!("{} is there twice", path.display()));
        }
    }
    Ok(())
}

/// How often checkpoints are taken, beside the journal's bound.
fn check_checkpoints(settings: &Settings) -> Result<(), Wrong> {
    let catalog = &settings.catalog;
    let bytes = |size: Option<ByteSize>| size.map(|size| size.0);
    let every = bytes(catalog.checkpoint_bytes);
    let bound = bytes(catalog.journal_bound);
    if every.is_some_and(|every| every < MIN_CHECKPOINT) {
        return wrong("catalog.checkpoint_bytes", "allowed is 64KiB and more");
    }
    if catalog.checkpoint_interval.0 < MIN_INTERVAL {
        return wrong("catalog.checkpoint_interval", "allowed is 1s and more");
    }
    // Two checkpoints are kept, and the journal back to the older.
    if bound.is_some_and(|bound| bound < 2 * every.unwrap_or(MIN_CHECKPOINT)) {
        return wrong(
            "catalog.journal_bound",
            "allowed is twice catalog.checkpoint_bytes and more",
        );
    }
    Ok(())
}

/// Whether a text says which lines are logged.
fn is_log_filter(text: &str) -> bool {
    words_are_levels(text) && EnvFilter::builder().parse(text).is_ok()
}

/// Names that stand in requests and answers.
fn check_names(settings: &Settings) -> Result<(), Wrong> {
    for name in settings.classes.keys() {
        let character =
            |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(character) {
            return wrong(
                &format!("classes.{name}"),
                "a class's name has 1 to 64 upper-case letters, digits, _ or -",
            );
        }
    }
    let region = &settings.gateway.region;
    let character = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if region.is_empty() || region.len() > 64 || !region.chars().all(character) {
        return wrong(
            "gateway.region",
            "allowed are 1 to 64 lower-case letters, digits and hyphens",
        );
    }
    Ok(())
}

impl Settings {
    /// The root credentials, refused when missing, known or weak.
    pub fn root_credentials(&self) -> Result<RootCredentials, ConfigError> {
        let file = self.root.secret_key_file.as_deref();
        let from_file = file.map(secret_of_file).transpose()?;
        let secret = self.root.secret_key.as_ref().map(SecretText::expose);
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let secret = given(secret.or(from_file.as_deref()));
        let access = given(self.root.access_key.as_deref());
        let (access, secret) = access.zip(secret).ok_or(ConfigError::NoRoot)?;
        let root = RootCredentials::new(&access, &secret);
        root.map_err(|unfit| unfit_secret(file, unfit.into()))
    }

    /// The secret that agents and gateways share, if one is set; refused when
    /// weak.
    pub fn pool_secret(&self) -> Result<Option<Secret>, ConfigError> {
        let file = self.pool.secret_file.as_deref();
        let text = match (&self.pool.secret, file) {
            (Some(secret), _) => secret.expose().to_owned(),
            (None, Some(path)) => secret_of_file(path)?,
            (None, None) => return Ok(None),
        };
        let weak = |weak: WeakSecret| {
            unfit_secret(
                file,
                ConfigError::Contradiction(format!("pool.secret: {weak}")),
            )
        };
        Secret::from_text(&text).map(Some).map_err(weak)
    }
}

fn secret_of_file(path: &Path) -> Result<String, ConfigError> {
    read_secret_file(path).map_err(|source| ConfigError::SecretFile {
        path: path.to_owned(),
        source,
    })
}

/// The refusal of a secret, with the file that holds it.
fn unfit_secret(file: Option<&Path>, refused: ConfigError) -> ConfigError {
    match file {
        Some(path) => ConfigError::File {
            path: path.to_owned(),
            line: 1,
            what: refused.to_string(),
        },
        None => refused,
    }
}
