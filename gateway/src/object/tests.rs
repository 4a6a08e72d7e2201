//! The object path over disks in memory: what is stored comes back, whatever
//! the disks do, and what was not stored leaves nothing.

mod durable;
pub(crate) mod fixture;
mod keep;
mod memory;
mod multipart;
mod notes;
mod purge;
mod reads;
mod writes;
