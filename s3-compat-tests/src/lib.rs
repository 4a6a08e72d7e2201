//! Real S3 clients against the one-command pool.
//!
//! Owns starting `shardgate demo` as its own process and running clients beside it: every client is the
//! program that people use, driven by a script in `clients/`, and speaks HTTP only. A client that is not
//! installed is a failure and never a skipped test (`scripts/setup.sh test` installs all of them).
//!
//! Does not test the store's insides: `shardgate-tests` does.

pub mod client;
pub mod pool;
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
