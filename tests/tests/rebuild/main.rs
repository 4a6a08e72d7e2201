//! Catalogs that are lost with the gateway and its journal, and made anew
//! from the disks: what clients were told is there again, what they deleted
//! is not, and nothing is reclaimed before the operator says so.

mod agents;
mod answers;
mod base;
mod lost;
mod operator;
