//! Real S3 clients against the one-command pool.
//!
//! Owns running clients beside `shardgate demo`: every client is the program that people use, driven by a
//! script in `clients/`, and speaks HTTP only. A client that is not installed is a failure and never a
//! skipped test (`scripts/setup.sh test` installs all of them).
//!
//! Does not start processes itself and does not test the store's insides: `shardgate-tests` does both.

pub mod client;
pub mod sample;

pub use client::Client;

/// Makes a module of tests, one for each case of a client's script.
#[macro_export]
macro_rules! client_cases {
    ($module:ident, $client:expr; $($case:ident),+ $(,)?) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $client.run(stringify!($case));
                }
            )+
        }
    };
}
