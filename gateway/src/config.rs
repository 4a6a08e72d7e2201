//! The gateway's settings: one TOML file, each value also by environment
//! variable and by flag.
//!
//! Owns: what can be set ([`settings`]), how the three sources are laid over
//! each other ([`layers`]), and what is refused ([`values`]).
//! Invariant: an unknown key or a bad value is refused with where it stands
//! and what is allowed; nothing is guessed. Settings are plain data, nothing
//! is opened here.

pub mod layers;
mod place;
pub mod settings;
pub mod values;

pub use layers::{ConfigError, Sources, load};
pub use settings::{ClassSettings, Folder, Settings};
pub use values::{ByteSize, Period, SchemeChoice};

#[cfg(test)]
mod tests;
