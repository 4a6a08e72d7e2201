//! The catalog of a pool of real processes is kept in checkpoints and restored
//! from them and the journal; clients find what they were told.

mod checkpoints;
mod damage;
mod kills;
mod live;
mod lost;
mod told;
mod whole;
