//! A client program and the script that drives it through one case.
//!
//! The contract with a script: it is called with the case's name in an empty folder, finds the pool by the
//! variables set here, ends with success only if every check held, and says so in its last line (a script
//! that ends early by mistake does not pass).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use shardgate_tests::pool::{TestPool, root_keys};

use crate::sample;

/// Base of the pool's virtual-host names, as `TestPool` starts it.
const HOST_NAME: &str = "s3.localhost";

/// Longest time that one case may take, as `timeout` reads it.
const CASE_LIMIT: &str = "900";

/// A client to be run against a pool.
pub struct Client {
    interpreter: PathBuf,
    script: &'static str,
    variables: Vec<(&'static str, OsString)>,
}

impl Client {
    /// The client that `script`, a path under `clients/`, drives.
    pub fn new(interpreter: impl Into<PathBuf>, script: &'static str) -> Self {
        Self {
            interpreter: interpreter.into(),
            script,
            variables: Vec::new(),
        }
    }

    /// Sets a variable for the script.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Runs one case against a fresh pool.
    ///
    /// # Panics
    /// When a check of the script fails, or the pool does not stop cleanly after it.
    pub fn run(&self, case: &str) {
        let mut pool = TestPool::embedded(6);
        let folder = tempfile::tempdir().expect("make a folder for the client");
        let output = self
            .command(case, &pool, folder.path())
            .output()
            .expect("start the client");
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let finished = said.trim_end().ends_with("all checks hold");
        assert!(
            output.status.success() && finished,
            "{} {case}: {}\n{said}{errors}",
            self.script,
            output.status,
        );
        let log = pool
            .gateway
            .as_ref()
            .map(|gateway| gateway.output())
            .unwrap_or_default();
        assert!(!log.contains("panicked at"), "the pool panicked:\n{log}");
        pool.stop();
    }

    fn command(&self, case: &str, pool: &TestPool, folder: &Path) -> Command {
        let (address, keys) = (pool.addr, root_keys());
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=10", CASE_LIMIT])
            .arg(&self.interpreter);
        command
            .arg(clients().join(self.script))
            .arg(case)
            .current_dir(folder);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", folder);
        command
            .env("LC_ALL", "C.UTF-8")
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("ENDPOINT", format!("http://{address}"));
        command
            .env("ADDRESS", address.to_string())
            .env("PORT", address.port().to_string());
        command.env("HOST_NAME", HOST_NAME);
        command.env("AWS_ACCESS_KEY_ID", keys.access);
        command.env("AWS_SECRET_ACCESS_KEY", keys.secret);
        command
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
            .env("SAMPLE", sample::file(&sample_folder()))
            .env("CLIENTS", clients());
        command.env("PYTHON", python());
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }
}

/// The Python that has boto3 and aws v1, made by `scripts/setup.sh test`.
pub fn python() -> PathBuf {
    let python = cache().join("tools/python/bin/python");
    required(python)
}

/// A program that has to be there.
///
/// # Panics
/// When it is not.
pub fn required(program: PathBuf) -> PathBuf {
    assert!(
        program.exists(),
        "no {}: run `scripts/setup.sh test`",
        program.display()
    );
    program
}

/// The folder of the AWS SDK for PHP: installed in `clients/php`, else `SHARDGATE_PHP_SDK`, else beside the
/// checkout.
///
/// # Panics
/// When it is in none of them.
pub fn php_sdk() -> PathBuf {
    let beside = clients().join("../../../shared/php-sdk");
    let given = std::env::var_os("SHARDGATE_PHP_SDK").map(PathBuf::from);
    let folders = [Some(clients().join("php")), given, Some(beside)];
    let autoload = folders
        .into_iter()
        .flatten()
        .map(|folder| folder.join("vendor/autoload.php"))
        .find(|autoload| autoload.exists());
    autoload.expect("no AWS SDK for PHP: run `scripts/setup.sh test`")
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The same folder as in `scripts/setup.sh`.
fn cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("SHARDGATE_CACHE") {
        return cache.into();
    }
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    home.expect("HOME is set").join("shardgate")
}

/// Beside the binaries: the sample is kept from one run to the next, and `cargo clean` removes it.
fn sample_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let target = test.ancestors().nth(3).unwrap_or(Path::new("."));
    let folder = target.join("tmp");
    std::fs::create_dir_all(&folder).expect("make the sample's folder");
    folder
}
