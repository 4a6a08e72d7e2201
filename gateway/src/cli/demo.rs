//! `shardgate demo`: a pool of local folders, with nothing to configure.
//!
//! Everything lies under one folder: `disk-1` to `disk-N`, `catalog`, and
//! `credentials` (mode 0600), which a shell can source.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::args::{Demo, environment};
use super::text;
use crate::app::StartWishes;
use crate::auth::{RootCredentials, SecretText};
use crate::config::{ConfigError, Settings, Sources, load};

const ACCESS: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";

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
    let (mut settings, made) = settings(&demo, &data)?;
    let (keys, source) = credentials(&settings, &data)?;
    settings.root.access_key = Some(keys.access_key().to_owned());
    settings.root.secret_key = Some(keys.secret().clone());
    settings.root.secret_key_file = None;
    make_folders(&made)?;
    let addr = shown_addr(settings.gateway.listen.0);
    let banner = text::banner(&keys, &source, addr, &settings, &data);
    let wishes = StartWishes {
        lost: demo.lost,
        take_over: demo.take_over,
        restore: format!("shardgate catalog restore --data {}", data.display()),
    };
    crate::app::serve_with(settings, wishes, move || println!("{banner}"))
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

/// The settings, and the disks' folders.
fn settings(demo: &Demo, data: &Path) -> Result<(Settings, Vec<PathBuf>), String> {
    let utf8 = data.to_str().ok_or("the data folder's path is not UTF-8")?;
    let folders: Vec<_> = (1..=demo.disks)
        .map(|n| data.join(format!("disk-{n}")))
        .collect();
    let quoted = |path: &str| toml::Value::String(path.to_owned()).to_string();
    let disks: Vec<_> = (1..=demo.disks)
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
    Ok((settings, folders))
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

/// On the first start the disks' folders are made. Later a missing one is a
/// lost disk: it is not made anew, the pool says so.
fn make_folders(folders: &[PathBuf]) -> Result<(), String> {
    let first_start = folders.iter().all(|folder| !folder.exists());
    for folder in folders.iter().filter(|_| first_start) {
        fs::create_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    Ok(())
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
    fn a_missing_folder_is_made_on_the_first_start_only() {
        let dir = tempfile::tempdir().expect("make a folder");
        let folders = [dir.path().join("disk-1"), dir.path().join("disk-2")];
        make_folders(&folders).expect("made");
        assert!(folders.iter().all(|folder| folder.is_dir()));
        fs::remove_dir(&folders[0]).expect("lose one");
        make_folders(&folders).expect("left alone");
        assert!(!folders[0].exists());
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
