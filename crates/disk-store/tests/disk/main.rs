//! A disk through its public face, and its folder beneath.

mod conforms;
mod damage;
mod faults;
mod folder;
mod lifetimes;
