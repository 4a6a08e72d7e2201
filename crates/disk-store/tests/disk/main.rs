//! A disk through its public face, and its folder beneath.

mod conforms;
mod damage;
mod faults;
mod fixture;
mod folder;
mod lifetimes;
