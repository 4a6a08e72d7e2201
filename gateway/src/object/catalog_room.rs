//! Whether the catalog has room for what clients write.
//!
//! The catalog takes no commit any more once its file system is full, not
//! even that of a delete. So writes stop while some is left, and deletes go
//! on (PROTOCOL.md 10). Who measures is not decided here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by who measures and who asks. There is room until it is said that
/// there is none.
#[derive(Clone, Debug, Default)]
pub struct CatalogRoom(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    short: AtomicBool,
    journal_long: AtomicBool,
    journal_full: AtomicBool,
}

impl CatalogRoom {
    /// Whether clients' writes are refused for lack of space.
    pub fn is_short(&self) -> bool {
        self.0.short.load(Ordering::Relaxed)
    }

    /// Says how it is now; whether it was otherwise before.
    pub fn set_short(&self, short: bool) -> bool {
        self.0.short.swap(short, Ordering::Relaxed) != short
    }

    /// Whether the journal has half its bound: a checkpoint does not give way
    /// to clients any more.
    pub fn is_journal_long(&self) -> bool {
        self.0.journal_long.load(Ordering::Relaxed)
    }

    /// Says how it is now.
    pub fn set_journal_long(&self, long: bool) {
        self.0.journal_long.store(long, Ordering::Relaxed);
    }

    /// Whether clients' writes are slowed down because the journal is near
    /// its bound: the next checkpoint makes room.
    pub fn is_journal_full(&self) -> bool {
        self.0.journal_full.load(Ordering::Relaxed)
    }

    /// Says how it is now; whether it was otherwise before.
    pub fn set_journal_full(&self, full: bool) -> bool {
        self.0.journal_full.swap(full, Ordering::Relaxed) != full
    }
}
