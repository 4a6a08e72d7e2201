//! `shardgate catalog restore`: from what was typed to settings, and the
//! operator's word.

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use super::args::{Anew, environment};
use crate::app::{StartWishes, restore};
use crate::config::{ConfigError, Settings, Sources, load};
use crate::restore::{Operator, Restored};

/// The operator at the terminal.
struct Terminal {
    yes: bool,
}

impl Operator for Terminal {
    fn say(&self, line: &str) {
        println!("{line}");
    }

    fn agrees(&self) -> bool {
        if self.yes {
            return true;
        }
        print!("Restore the catalog? Type yes: ");
        let shown = io::stdout().flush();
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        shown.is_ok() && read.is_ok() && answer.trim() == "yes"
    }
}

/// Restores the catalog.
pub(super) fn run(args: &Anew) -> Result<(), String> {
    let (settings, data) = settings_of(args)?;
    let restored = restore(&settings, wishes(args), &Terminal { yes: args.yes })?;
    println!("{}", outcome(&restored));
    match &data {
        Some(data) => println!("{}", demo_words(data)),
        None => println!("start the gateway with `shardgate serve`"),
    }
    if !restored.proven {
        println!("give it the same --lost; then see `shardgate catalog hold`");
    }
    Ok(())
}

fn outcome(restored: &Restored) -> String {
    let (from, to) = (restored.from.0, restored.to.0);
    match restored.proven {
        true => {
            format!("restored: the catalog is complete up to commit {to} (checkpoint at {from})")
        }
        false => format!(
            "restored up to commit {to} (checkpoint at {from}), NOT PROVEN COMPLETE: nothing is \
             reclaimed until that is ended"
        ),
    }
}

/// The settings of the pool that is meant; of a demo pool its folder too.
pub(super) fn settings_of(args: &Anew) -> Result<(Settings, Option<PathBuf>), String> {
    if let Some(data) = &args.data {
        let absolute = fs::canonicalize(data);
        let data = absolute.map_err(|error| format!("{}: {error}", data.display()))?;
        let settings = demo_settings(&data, args.sets.clone())?;
        return Ok((settings, Some(data)));
    }
    let sources = Sources {
        file: args.config.clone(),
        environment: environment(),
        flags: args.sets.clone(),
    };
    let settings = load(&sources).map_err(|error: ConfigError| error.to_string())?;
    Ok((settings, None))
}

/// What the operator says of the start in it.
pub(super) fn wishes(args: &Anew) -> StartWishes {
    StartWishes {
        lost: args.lost.clone(),
        take_over: args.take_over,
        ..StartWishes::default()
    }
}

/// The settings of a demo pool whose disks are what is left of it.
fn demo_settings(data: &Path, sets: Vec<String>) -> Result<Settings, String> {
    let utf8 = data.to_str().ok_or("the data folder's path is not UTF-8")?;
    let disks = disk_folders(data).map_err(|error| format!("{utf8}: {error}"))?;
    if disks.is_empty() {
        return Err(format!("{utf8} has no folder disk-1, disk-2, ..."));
    }
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let folders: Vec<String> = disks.iter().map(|(_, path)| quoted(path)).collect();
    let mut flags = vec![
        format!("catalog.path={}", quoted(&data.join("catalog"))),
        format!("pool.disks=[{}]", folders.join(", ")),
    ];
    flags.extend(sets);
    let sources = Sources {
        file: None,
        environment: environment(),
        flags,
    };
    load(&sources).map_err(|error: ConfigError| error.to_string())
}

/// The folders `disk-1`, `disk-2`, ... that are there, by number.
pub(super) fn disk_folders(data: &Path) -> io::Result<Vec<(u16, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("disk-"));
        if let Some(number) = number.and_then(|number| number.parse::<u16>().ok())
            && entry.path().is_dir()
        {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// What the operator of a demo pool does next, and what becomes of its keys.
fn demo_words(data: &Path) -> String {
    let keys = match data.join("credentials").exists() {
        true => "the root keys are those of the file `credentials`, as before",
        false => {
            "the root keys are not in the catalog and `credentials` is gone: unless the environment \
             gives them, the next start makes new ones and shows them, as the first one did"
        }
    };
    format!(
        "{keys}\nstart the pool with `shardgate demo --data {}`, with the flags that it had",
        data.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disks_that_are_left_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "disk-10",
            "disk-2",
            "disk-x",
            "disk-",
            "catalog",
            "disk-3.old",
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("disk-4"), "no folder").unwrap();
        let found = disk_folders(dir.path()).unwrap();
        let expected: Vec<_> = ["disk-2", "disk-10"]
            .map(|name| dir.path().join(name))
            .into();
        assert_eq!(found.iter().map(|of| of.0).collect::<Vec<_>>(), [2, 10]);
        assert!(found.iter().map(|of| &of.1).eq(&expected));
        let settings = demo_settings(dir.path(), vec!["log.level=warn".into()]).unwrap();
        let paths: Vec<_> = settings
            .pool
            .disks
            .iter()
            .map(|of| of.path.clone())
            .collect();
        assert_eq!(paths, expected);
        assert_eq!(settings.catalog.path, Some(dir.path().join("catalog")));
        assert_eq!(settings.log.level, "warn");
    }

    #[test]
    fn keys_that_are_gone_are_spoken_of() {
        let dir = tempfile::tempdir().unwrap();
        assert!(demo_words(dir.path()).contains("new ones"));
        fs::write(dir.path().join("credentials"), "").unwrap();
        assert!(demo_words(dir.path()).contains("as before"));
    }
}
