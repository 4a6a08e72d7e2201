//! What lies in the disk's folders and is none of its files.

use std::io;
use std::path::Path;

use super::Report;
use crate::core::Core;
use crate::layout::{
    IDENTITY, IDENTITY_PART, LOST_AND_FOUND, ROOTS, SCRUB, SCRUB_PART, SHARDS, SLOTS,
};
use crate::{journal, names, notes, volume};

/// Says what does not belong into a folder.
const FOREIGN: &str = "no file of this disk";

impl Core {
    /// The disk's own folder and those that have files only. Folders of shards
    /// and of volumes are looked at where their files are.
    pub(super) fn check_folder(&self, report: &mut Report) {
        let own = |name: &str| {
            let files = [
                &ROOTS[..],
                &SLOTS[..],
                &[IDENTITY, IDENTITY_PART, SCRUB, SCRUB_PART],
            ]
            .concat();
            let folders = [
                SHARDS,
                LOST_AND_FOUND,
                volume::VOLUMES,
                volume::LOG,
                notes::NOTES,
                journal::FOLDER,
            ];
            files.contains(&name) || folders.contains(&name)
        };
        self.check_names("", &own, report);
        let group = |name: &str| names::parse_group(name.as_bytes()).is_some();
        self.check_names(SHARDS, &group, report);
        self.check_names(volume::VOLUMES, &group, report);
        let segment = |name: &str| volume::parse_log_file(name).is_some();
        self.check_names(volume::LOG, &segment, report);
        self.check_names(notes::NOTES, &notes::is_name, report);
        let segment = |name: &str| journal::number_of(name.as_bytes()).is_some();
        self.check_names(journal::FOLDER, &segment, report);
    }

    /// Finds the names in a folder that are none of the disk's.
    pub(super) fn check_names(
        &self,
        folder: &str,
        own: &dyn Fn(&str) -> bool,
        report: &mut Report,
    ) {
        let mut strange = |name: &[u8]| {
            let text = String::from_utf8_lossy(name);
            if !own(&text) && name != b"." && name != b".." {
                let place = Path::new(folder).join(&*text);
                report.find(&place.to_string_lossy(), None, FOREIGN);
            }
        };
        let path = if folder.is_empty() { "." } else { folder };
        let scanned = crate::files::open_folder_at(&self.folder, path)
            .and_then(|folder| crate::files::each_name(&folder, &mut strange));
        match scanned.map_err(io::Error::from) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                report.find(folder, None, format!("the folder cannot be read: {error}"));
            }
            _ => {}
        }
    }
}
