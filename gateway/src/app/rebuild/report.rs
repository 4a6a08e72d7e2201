//! What a rebuild says when it is done: a sentence for each thing that the
//! operator must know, and a file of what could not be decided.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use shardgate_catalog::rebuild::{Rebuilt, Undecided};
use shardgate_wire::DiskId;

/// What cannot be told, in the gateway's own folder.
const UNDECIDED: &str = "undecided.tsv";

/// The list of what cannot be told.
pub(super) struct Listing {
    path: PathBuf,
    file: BufWriter<fs::File>,
    failed: Option<std::io::Error>,
}

impl Listing {
    pub(super) fn new(own: &Path) -> Result<Self, String> {
        let path = own.join(UNDECIDED);
        let file = fs::File::create(&path);
        let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self {
            path,
            file: BufWriter::new(file),
            failed: None,
        })
    }

    pub(super) fn add(&mut self, one: &Undecided) {
        let (bucket, key) = one.object.as_ref().map_or(("", ""), |(b, k)| (b, k));
        // Tabs and line ends of keys are written as JSON has them.
        let key = serde_json::Value::from(key);
        let (group, blob, why) = (one.group, one.blob, one.doubt.words());
        let written = writeln!(self.file, "{group}\t{blob}\t{bucket}\t{key}\t{why}");
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }

    pub(super) fn end(mut self) -> Result<PathBuf, String> {
        let flushed = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        match self.failed.or(flushed.err()) {
            Some(error) => Err(format!("{}: {error}", self.path.display())),
            None => Ok(self.path),
        }
    }
}

/// What is said of objects that have no shards.
fn of_the_catalog_alone(made: &Rebuilt) -> String {
    let base = made.base.map(|base| match base.0 {
        0 | 1 => "1".to_owned(),
        base => format!("1 to {base}"),
    });
    let spans = made.journal.iter();
    let spans = spans.map(|(from, to)| format!("{} to {}", from.0, to.0));
    let known: Vec<String> = base.into_iter().chain(spans).collect();
    let what = "Objects that lay in the catalog alone (up to catalog.inline_max bytes)";
    match (known.is_empty(), made.unknown_spans()) {
        (true, _) => {
            format!("{what} are gone: no checkpoint and no part of the journal could be read.")
        }
        (false, gaps) if gaps.is_empty() => format!("{what} are all in it."),
        (false, gaps) => {
            let gaps = gaps
                .iter()
                .map(|(from, to)| format!("{} to {}", from.0, to.0));
            format!(
                "{what} are in it as of commits {}. It cannot vouch for commits {}: what these \
                 wrote is missing, and what these deleted is there still.",
                known.join(", "),
                gaps.collect::<Vec<_>>().join(", ")
            )
        }
    }
}

/// What came of it, as the operator reads it.
pub(super) fn words(made: &Rebuilt, unread: &[(DiskId, String)], listed: &Path) -> String {
    let mut text = format!(
        "The catalog is made anew: {} objects in {} buckets, {} open uploads, {} groups.\n",
        made.objects, made.buckets, made.uploads, made.groups
    );
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    match made.last > made.vouched {
        true => line(format!(
            "Of blobs everything up to commit {} is in it. It cannot vouch for commits {} to {}: \
             what they did may be missing.",
            made.vouched.0,
            made.vouched.0 + 1,
            made.last.0
        )),
        false => line(format!(
            "Of blobs everything up to commit {}, the last one, is in it.",
            made.last.0
        )),
    }
    line(of_the_catalog_alone(made));
    for (disk, why) in unread {
        line(format!("Disk {disk} was not read to its end: {why}"));
    }
    let was_there = |disk: &DiskId| unread.iter().any(|(of, _)| of == disk);
    for disk in made.missing.iter().filter(|disk| !was_there(disk)) {
        line(format!(
            "Disk {disk} is not there: what it alone had is missing."
        ));
    }
    for (disk, stretches) in &made.damaged_notes {
        line(format!(
            "Disk {disk} has {stretches} stretches of notes that are damaged: it vouches for \
             nothing."
        ));
    }
    if made.undecided > 0 {
        line(format!(
            "{} blobs could not be decided: {} has them. Their shards stay.",
            made.undecided,
            listed.display()
        ));
    }
    if made.owed > 0 {
        line(format!(
            "{} slots lack shards, which are made anew in the background.",
            made.owed
        ));
    }
    line(format!(
        "Nothing is reclaimed until `shardgate catalog hold --end`; {} blobs would be.",
        made.condemned
    ));
    text
}
