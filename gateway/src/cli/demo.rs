//! `shardgate demo`: a pool of local folders, with nothing to configure.
//!
//! Everything lies under one folder: `disk-1` to `disk-N`, `catalog`, and
//! `credentials` (mode 0600), which a shell can source. The folders of disks
//! are made by the start of the pool, which knows what was ever there: on the
//! first start, and where a later one names more disks. Any other that is
//! missing is a lost disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::args::{Demo, environment};
use super::catalog::disk_folders;
use super::text;
use crate::app::StartWishes;
use crate::auth::{RootCredentials, SecretText};
use crate::config::{ConfigError, Settings, Sources, load};
use crate::pool::place::MakeFolders;

const ACCESS: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";

/// Disks of a pool that is told no number.
const DISKS: u16 = 6;

/// Where the keys of this start come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The environment gave them; they are kept nowhere.
    Environment,
    /// They were made now, and are kept in this file.
    Made(PathBuf),
    /// An earlier start made them.
    Kept(PathBuf),
}

/// Prepares the folders and serves until it is told to stop.
pub fn run(demo: Demo) -> Result<(), String> {
    let data = prepare(&demo.data).map_err(|error| format!("{}: {error}", demo.data.display()))?;
    let disks = how_many(demo.disks, &data)?;
    let mut settings = settings(&demo, disks, &data)?;
    let (keys, source) = credentials(&settings, &data)?;
    settings.root.access_key = Some(keys.access_key().to_owned());
    settings.root.secret_key = Some(keys.secret().clone());
    settings.root.secret_key_file = None;
    let addr = shown_addr(settings.gateway.listen.0);
    let operator = settings.gateway.operator_listen.0;
    let region = settings.gateway.region.clone();
    let wishes = StartWishes {
        lost: demo.lost,
        take_over: demo.take_over,
        restore: format!("shardgate catalog restore --data {}", data.display()),
        makes: match demo.disks {
            Some(_) => MakeFolders::ForNewDisks,
            None => MakeFolders::ForNewCluster,
        },
    };
    crate::app::serve_with(settings, wishes, move |disks| {
        let served = text::Served {
            addr,
            operator,
            region: &region,
            data: &data,
            disks,
        };
        println!("{}", text::banner(&keys, &source, &served));
    })
}

/// How many disks are meant. Fewer than there are would leave out those that
/// hold data.
fn how_many(asked: Option<u16>, data: &Path) -> Result<u16, String> {
    let folders = disk_folders(data).map_err(|error| format!("{}: {error}", data.display()))?;
    let last = folders.last().map_or(0, |(number, _)| *number);
    match asked {
        None => Ok(last.max(DISKS)),
        Some(asked) if asked >= last => Ok(asked),
        Some(asked) => Err(format!(
            "{} has a folder disk-{last}, and --disks {asked} would leave it out: a pool keeps its \
             disks. Start it with --disks {last}; a disk that is to go is told with `shardgate disk \
             lost ID`, and its folder is then moved away",
            data.display()
        )),
    }
}

/// The data folder, absolute; only its owner may look into a new one.
fn prepare(data: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    if !data.exists() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data)?;
    }
    fs::canonicalize(data)
}

/// The settings of a pool of so many disks.
fn settings(demo: &Demo, disks: u16, data: &Path) -> Result<Settings, String> {
    let utf8 = data.to_str().ok_or("the data folder's path is not UTF-8")?;
    let quoted = |path: &str| toml::Value::String(path.to_owned()).to_string();
    let disks: Vec<_> = (1..=disks)
        .map(|n| quoted(&format!("{utf8}/disk-{n}")))
        .collect();
    let operator = demo.operator_listen.unwrap_or_else(|| {
        // The next port, unless it is the last one or left to the system.
        let port = demo.listen.port();
        let next = if port == 0 {
            0
        } else {
            port.checked_add(1).unwrap_or(port - 1)
        };
        SocketAddr::new(IpAddr::from([127, 0, 0, 1]), next)
    });
    let mut flags = vec![
        format!("catalog.path={}", quoted(&format!("{utf8}/catalog"))),
        format!("pool.disks=[{}]", disks.join(", ")),
        format!("gateway.listen={}", demo.listen),
        format!("gateway.operator_listen={operator}"),
    ];
    flags.extend(
        demo.host_name
            .iter()
            .map(|name| format!("gateway.host_names=[{}]", quoted(name))),
    );
    flags.extend(demo.sets.iter().cloned());
    let sources = Sources {
        file: None,
        environment: environment(),
        flags,
    };
    let settings = load(&sources).map_err(|error: ConfigError| error.to_string())?;
    write_operator_address(data, settings.gateway.operator_listen.0)
        .map_err(|error| format!("{}: {error}", data.display()))?;
    Ok(settings)
}

/// `status --data DIR` finds the running gateway by it.
fn write_operator_address(data: &Path, addr: SocketAddr) -> io::Result<()> {
    fs::write(data.join("operator-address"), format!("{addr}\n"))
}

/// The address that `write_operator_address` left.
pub(super) fn operator_address(data: &Path) -> Result<SocketAddr, String> {
    let path = data.join("operator-address");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.trim()
        .parse()
        .map_err(|_| format!("{}: not an address", path.display()))
}

/// The root keys: from the environment, else from the file, else made now.
fn credentials(settings: &Settings, data: &Path) -> Result<(RootCredentials, KeySource), String> {
    let root = &settings.root;
    if root.access_key.is_some() || root.secret_key.is_some() || root.secret_key_file.is_some() {
        let keys = settings
            .root_credentials()
            .map_err(|error| error.to_string())?;
        return Ok((keys, KeySource::Environment));
    }
    let path = data.join("credentials");
    let context = |error: io::Error| format!("{}: {error}", path.display());
    match fs::read_to_string(&path) {
        Ok(text) => {
            let keys = parse(&text).ok_or_else(|| {
                format!(
                    "{}: not the {ACCESS}= and {SECRET}= lines of a first start",
                    path.display()
                )
            })?;
            Ok((keys, KeySource::Kept(path)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keys = RootCredentials::random();
            keep(&path, &keys).map_err(context)?;
            Ok((keys, KeySource::Made(path)))
        }
        Err(error) => Err(context(error)),
    }
}

/// The access key of a pool that was made here before, whatever of it is left.
pub(super) fn access_key(settings: &Settings, data: &Path) -> Result<String, String> {
    let (keys, _) = credentials(settings, data)?;
    Ok(keys.access_key().to_owned())
}

/// Where the keys are written before they are whole.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Under its name the file is whole or not there: a start that is cut off
/// leaves no half of it, which every later one would refuse.
fn keep(path: &Path, keys: &RootCredentials) -> io::Result<()> {
    let unfinished = unfinished(path);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    write!(
        file,
        "{ACCESS}={}\n{SECRET}={}\n",
        keys.access_key(),
        keys.secret().expose()
    )?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    // The folder too, or the keys may be gone while the data is not.
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn parse(text: &str) -> Option<RootCredentials> {
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(str::trim)
    };
    let secret = SecretText::new(value(SECRET)?);
    RootCredentials::new(value(ACCESS)?, secret.expose()).ok()
}

/// The address to paste: a wildcard is reached by loopback.
fn shown_addr(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        ip if !ip.is_unspecified() => listen,
        IpAddr::V4(_) => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), listen.port()),
        IpAddr::V6(_) => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), listen.port()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_kept_for_the_owner_only() {
        let dir = tempfile::tempdir().expect("make a folder");
        let settings = Settings::default();
        let (made, source) = credentials(&settings, dir.path()).expect("made");
        let path = dir.path().join("credentials");
        assert_eq!(source, KeySource::Made(path.clone()));
        let mode = fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (kept, source) = credentials(&settings, dir.path()).expect("kept");
        assert_eq!((kept, source), (made, KeySource::Kept(path.clone())));
        fs::write(&path, "AWS_ACCESS_KEY_ID=x\n").expect("spoil it");
        assert!(credentials(&settings, dir.path()).is_err());
    }

    #[test]
    fn a_start_that_was_cut_off_is_gone_over() {
        let dir = tempfile::tempdir().expect("make a folder");
        let path = dir.path().join("credentials");
        let left = unfinished(&path);
        // What a start leaves that ends while it writes: readable by others,
        // too, if another program made it.
        fs::write(&left, "AWS_ACCESS_KEY_ID=ha").expect("leave a half");
        fs::set_permissions(&left, fs::Permissions::from_mode(0o644)).expect("open it to all");
        let settings = Settings::default();
        let (made, source) = credentials(&settings, dir.path()).expect("made");
        assert_eq!(source, KeySource::Made(path.clone()));
        let mode = fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!left.exists());
        let (kept, _) = credentials(&settings, dir.path()).expect("kept");
        assert_eq!(kept, made);
    }

    /// One that is cut off in the middle leaves nothing under the name.
    #[test]
    fn half_a_file_never_has_its_name() {
        let dir = tempfile::tempdir().expect("make a folder");
        let path = dir.path().join("credentials");
        // In the way of the file that is written first: nothing can be.
        fs::create_dir(unfinished(&path)).expect("stand in the way");
        let settings = Settings::default();
        assert!(credentials(&settings, dir.path()).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn disks_that_are_there_are_never_left_out() {
        let dir = tempfile::tempdir().expect("make a folder");
        let meant = |asked| how_many(asked, dir.path());
        assert_eq!(meant(None), Ok(6));
        assert_eq!(meant(Some(2)), Ok(2));
        fs::create_dir(dir.path().join("disk-8")).expect("make a disk");
        assert_eq!(meant(None), Ok(8));
        assert_eq!(meant(Some(8)), Ok(8));
        assert_eq!(meant(Some(9)), Ok(9));
        let refused = meant(Some(7)).expect_err("one would be left out");
        assert!(refused.contains("--disks 8"), "{refused}");
    }

    #[test]
    fn wildcards_are_shown_as_loopback() {
        for (listen, shown) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            let addr = shown_addr(listen.parse().expect("an address"));
            assert_eq!(addr.to_string(), shown);
        }
    }
}
