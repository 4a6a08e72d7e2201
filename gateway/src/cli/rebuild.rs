//! `shardgate catalog rebuild`: asks before it writes.

use std::fs;
use std::io::{self, BufRead, Write};

use super::args::{Rebuild, environment};
use super::catalog::demo_settings;
use super::demo::access_key;
use crate::app::StartWishes;
use crate::app::rebuild::{RebuildWishes, rebuild};
use crate::config::{Settings, Sources, load};

/// Runs it.
///
/// # Errors
/// A sentence.
pub fn run(wanted: &Rebuild) -> Result<(), String> {
    let (settings, owner) = settings(wanted)?;
    let wishes = RebuildWishes {
        start: StartWishes {
            lost: wanted.lost.clone(),
            take_over: wanted.take_over,
            ..StartWishes::default()
        },
        even_so: wanted.even_so,
        owner,
    };
    let yes = wanted.yes;
    rebuild(settings, wishes, |words| {
        print!("{words}");
        yes || agreed(&mut io::stdin().lock())
    })
}

fn settings(wanted: &Rebuild) -> Result<(Settings, String), String> {
    if let Some(data) = &wanted.data {
        let absolute = fs::canonicalize(data);
        let data = absolute.map_err(|error| format!("{}: {error}", data.display()))?;
        let settings = demo_settings(&data, wanted.sets.clone())?;
        let owner = access_key(&settings, &data)?;
        return Ok((settings, owner));
    }
    let sources = Sources {
        file: wanted.config.clone(),
        environment: environment(),
        flags: wanted.sets.clone(),
    };
    let settings = load(&sources).map_err(|error| error.to_string())?;
    let root = settings
        .root_credentials()
        .map_err(|error| error.to_string())?;
    let owner = root.access_key().to_owned();
    Ok((settings, owner))
}

/// Whether the operator types the word.
fn agreed(answers: &mut dyn BufRead) -> bool {
    print!("Type \"rebuild\" to go on: ");
    let mut answer = String::new();
    let asked = io::stdout().flush().is_ok() && answers.read_line(&mut answer).is_ok();
    asked && answer.trim() == "rebuild"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_word_is_a_yes() {
        for (answer, yes) in [
            ("rebuild\n", true),
            ("rebuild", true),
            ("yes\n", false),
            ("\n", false),
            ("", false),
        ] {
            assert_eq!(agreed(&mut answer.as_bytes()), yes, "{answer:?}");
        }
    }
}
