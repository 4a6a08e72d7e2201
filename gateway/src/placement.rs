//! Where data goes: schemes, groups and what may be lost, decided on a
//! snapshot of the pool.
//!
//! Owns the rules of DESIGN.md section 7 and PROTOCOL.md 5 as pure functions
//! over a [`PoolView`]. Invariant: nothing here does I/O, reads a clock or
//! keeps state; randomness comes in as an argument. What the pool is at the
//! moment is `pool`'s to know.

pub mod draw;
pub mod loss;
pub mod open;
pub mod quorum;
pub mod scheme;
pub mod space;
pub mod view;

pub use draw::{DrawError, draw};
pub use loss::{GroupFacts, Loss, loss};
pub use open::{MAX_OPEN_PER_DISK, better_of_two, seal_at_bytes};
pub use quorum::{QuorumRule, group_holds, quorum};
pub use scheme::{AUTO_SCHEMES, auto_scheme, effective_scheme, fits, narrow_scheme};
pub use space::storable_bytes;
pub use view::{DiskView, PoolView, ServerCount};
