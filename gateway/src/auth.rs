//! Who asks, and whether they may: identities, actions and the one decision.
//!
//! Owns the credential store's trait and [`authorise`]. Invariant: nothing
//! here does I/O or knows S3's wire types; every operation is decided by
//! [`authorise`] and by nothing else.

mod action;
mod authorise;
mod credentials;

pub use action::{Action, Resource};
pub use authorise::{Context, Decision, Denial, Principal, authorise};
pub use credentials::{
    CredentialStore, Identity, RootCredentials, SecretText, UnfitCredentials, same_secret,
};
