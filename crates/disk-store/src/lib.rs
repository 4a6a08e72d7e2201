//! crates/disk-store
