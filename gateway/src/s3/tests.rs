//! S3 over HTTP in one process: real connections, real signatures, a store
//! in memory.

mod attacks;
mod bodies;
mod client;
mod conditional;
mod listings;
mod memory;
mod objects;
mod parts;
mod signer;
