//! A disk through its public face, and its folder beneath.

#![allow(clippy::unwrap_used)] // a test may fail there

mod conforms;
mod damage;
mod descriptors;
mod faults;
mod fixture;
mod folder;
mod journal;
mod kills;
mod lifetimes;
mod lossy;
mod model;
mod outage;
mod power;
mod power_volumes;
mod scrub;
mod second;
mod space;
mod streams;
mod versions;
mod volume_damage;
mod volume_faults;
