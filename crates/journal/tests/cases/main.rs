//! Single sequences of events: damage, lateness, losses, stops.

#![allow(clippy::unwrap_used, reason = "in a test it is the assertion")]

mod anew;
mod conforms;
mod damage;
mod late;
mod losses;
mod pool;
mod rules;
mod salvage;
mod trimming;
