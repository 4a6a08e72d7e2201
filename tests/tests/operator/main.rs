//! What an operator does with the two programs: starts, flags, configuration
//! files, commands about disks, and what is said meanwhile.

mod damaged;
mod demo;
mod disks;
mod place;
mod served;
mod shown;
