//! `shardgate catalog rebuild`: asks before it writes.

use std::io::{self, BufRead, Write};

use super::args::{Anew, Rebuild};
use super::catalog::{settings_of, wishes};
use super::demo::access_key;
use crate::app::rebuild::{RebuildWishes, rebuild};
use crate::config::Settings;

/// Runs it.
///
/// # Errors
/// A sentence.
pub fn run(wanted: &Rebuild) -> Result<(), String> {
    let (settings, owner) = settings(&wanted.anew)?;
    let wishes = RebuildWishes {
        start: wishes(&wanted.anew),
        even_so: wanted.even_so,
        owner,
    };
    let yes = wanted.anew.yes;
    rebuild(settings, wishes, |words| {
        print!("{words}");
        yes || agreed(&mut io::stdin().lock())
    })
}

fn settings(wanted: &Anew) -> Result<(Settings, String), String> {
    let (settings, data) = settings_of(wanted)?;
    let owner = match &data {
        Some(data) => access_key(&settings, data)?,
        None => {
            let root = settings.root_credentials();
            let root = root.map_err(|error| error.to_string())?;
            root.access_key().to_owned()
        }
    };
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
