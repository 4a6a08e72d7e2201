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
pub struct CatalogRoom(Arc<AtomicBool>);

impl CatalogRoom {
    /// Whether clients' writes are refused.
    pub fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Says how it is now; whether it was otherwise before.
    pub fn set_short(&self, short: bool) -> bool {
        self.0.swap(short, Ordering::Relaxed) != short
    }
}
