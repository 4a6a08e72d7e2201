//! `disk check`: reads a disk in use, part after part, and says what is wrong.

use std::io::Write;
use std::time::{Duration, Instant};

use shardgate_wire::{CheckCursor, CheckPage, Checked};

use super::{Operator, Target, ask};
use crate::admin;

/// Between two lines that say how far it is.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Checks a disk to its end. An error, too, if something is wrong and was not
/// repaired.
pub(super) fn run(operator: &Operator, disk: &str, repair: bool) -> Result<(), String> {
    let target = operator.target()?;
    let (mut checked, mut from, mut said) = (Checked::default(), None, Instant::now());
    let out = &mut std::io::stdout();
    loop {
        let page = part(&target, disk, from.as_ref(), repair)?;
        checked.add(&page);
        let shown = match operator.json {
            true => writeln!(out, "{}", serde_json::json!(page)),
            false => page
                .findings
                .iter()
                .try_for_each(|finding| writeln!(out, "{finding}")),
        };
        shown.map_err(|error| format!("write report: {error}"))?;
        from = page.next;
        if from.is_none() {
            break;
        }
        if said.elapsed() >= SAY_EVERY {
            eprintln!("so far: {checked}");
            said = Instant::now();
        }
    }
    if !operator.json {
        println!("{checked}");
    }
    match checked.is_well() {
        true => Ok(()),
        false => Err(format!(
            "{} found wrong on disk {disk}",
            checked.found - checked.repaired
        )),
    }
}

fn part(
    target: &Target,
    disk: &str,
    from: Option<&CheckCursor>,
    repair: bool,
) -> Result<CheckPage, String> {
    let asked = serde_json::json!({ "disk": disk, "from": from, "repair": repair });
    let answer = ask(target, "POST", admin::CHECK, asked.to_string())?;
    serde_json::from_str(&answer)
        .map_err(|error| format!("the gateway's answer is not of this version: {error}"))
}
