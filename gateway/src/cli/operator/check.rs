//! `disk check`: reads a disk in use, part after part, and says what is wrong.

use std::io::Write;
use std::time::{Duration, Instant};

use shardgate_wire::{CheckCursor, CheckPage};

use super::{Operator, Target, ask};
use crate::admin;
use crate::config::ByteSize;

/// Between two lines that say how far it is.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What was read and found so far.
#[derive(Default)]
struct Sum {
    volumes: u64,
    shards: u64,
    bytes: u64,
    found: u64,
    repaired: u64,
}

impl Sum {
    /// Counts a part, and says what is wrong there.
    fn add(&mut self, page: &CheckPage, out: &mut dyn Write) -> std::io::Result<()> {
        self.volumes += page.volumes;
        self.shards += page.shards;
        self.bytes += page.bytes;
        for finding in &page.findings {
            self.found += 1;
            self.repaired += u64::from(finding.repaired);
            writeln!(out, "{finding}")?;
        }
        Ok(())
    }

    fn words(&self) -> String {
        format!(
            "{} volumes, {} shards whole, {}; {} found wrong, {} of it repaired",
            self.volumes,
            self.shards,
            ByteSize(self.bytes),
            self.found,
            self.repaired
        )
    }
}

/// Checks a disk to its end. An error, too, if something is wrong and was not
/// repaired.
pub(super) fn run(operator: &Operator, disk: &str, repair: bool) -> Result<(), String> {
    let target = operator.target()?;
    let (mut sum, mut from, mut said) = (Sum::default(), None, Instant::now());
    let out = &mut std::io::stdout();
    loop {
        let page = part(&target, disk, from.as_ref(), repair)?;
        match operator.json {
            true => writeln!(out, "{}", serde_json::json!(page)),
            false => sum.add(&page, out),
        }
        .map_err(|error| format!("write report: {error}"))?;
        from = page.next;
        if from.is_none() {
            break;
        }
        if said.elapsed() >= SAY_EVERY {
            eprintln!("so far: {}", sum.words());
            said = Instant::now();
        }
    }
    if operator.json {
        return Ok(());
    }
    println!("{}", sum.words());
    match sum.found - sum.repaired {
        0 => Ok(()),
        left => Err(format!("{left} found wrong on disk {disk}")),
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

#[cfg(test)]
mod tests {
    use shardgate_wire::Finding;

    use super::*;

    #[test]
    fn what_is_found_is_said_and_counted() {
        let finding = |repaired| Finding {
            place: "volume 3".into(),
            shard: None,
            what: "record is damaged".into(),
            repaired,
        };
        let page = CheckPage {
            volumes: 1,
            shards: 5,
            bytes: 2048,
            findings: vec![finding(false), finding(true)],
            next: None,
        };
        let (mut sum, mut out) = (Sum::default(), Vec::new());
        sum.add(&page, &mut out).unwrap();
        sum.add(&CheckPage::default(), &mut out).unwrap();
        let said = "volume 3: record is damaged\nvolume 3: record is damaged (repaired)\n";
        assert_eq!(String::from_utf8(out).unwrap(), said);
        let words = "1 volumes, 5 shards whole, 2.0 KiB; 2 found wrong, 1 of it repaired";
        assert_eq!(sum.words(), words);
    }
}
