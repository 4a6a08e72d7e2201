//! crates/erasure
