//! What the whole-system tests and the benchmark share: a small S3 client
//! that signs for itself, processes that are started and killed, and a
//! reference model of S3.
//!
//! The client knows nothing of the server's code, so that a mistake there is
//! not repeated here.

pub mod client;
pub mod large;
pub mod linear;
pub mod model;
pub mod places;
pub mod pool;
pub mod process;
pub mod random;
pub mod raw;
pub mod sigv4;
pub mod slow;
pub mod xml;
