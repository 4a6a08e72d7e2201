//! The names in a disk's folder.

/// Who the disk is.
pub(crate) const IDENTITY: &str = "identity";
/// The identity while the disk is being formatted.
pub(crate) const IDENTITY_PART: &str = "identity.part";
/// The root record, twice.
pub(crate) const ROOTS: [&str; 2] = ["root-a", "root-b"];
/// The slots record, twice.
pub(crate) const SLOTS: [&str; 2] = ["slots-a", "slots-b"];
/// The record of the scrub, and that while it is written.
pub(crate) const SCRUB: &str = "scrub";
pub(crate) const SCRUB_PART: &str = "scrub.part";
/// The folders of shards.
pub(crate) const SHARDS: &str = "shards";
/// What a fresh file system has by itself.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";
