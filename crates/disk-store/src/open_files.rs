//! How many files this process may have open.
//!
//! Every open shard is one, beside the sockets of whoever uses the store. Many
//! systems give a process 1,024 at first and let it take far more.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the number of files that may be open to what the system allows;
/// gives how many that is now, `None` without a bound.
///
/// # Errors
/// The system refuses; the bound is as it was.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let allowed = limit.current;
    setrlimit(Resource::Nofile, limit)?;
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_system_allows_is_taken() {
        let allowed = raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!((limit.current, limit.maximum), (allowed, allowed));
    }
}
