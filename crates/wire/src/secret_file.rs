//! Files that hold one secret, read by gateways and agents alike: what one of
//! them takes, the other takes too.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use thiserror::Error;

/// Permission bits of every user.
const OTHERS: u32 = 0o007;

/// Why a file is not taken as one that holds a secret.
#[derive(Debug, Error)]
pub enum SecretFileError {
    /// It cannot be read, or is not text.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// Users other than its owner and its group can open it.
    #[error("it is open to every user, allowed is mode 0600 or 0640")]
    Open,
    /// A secret that was wrapped would be cut.
    #[error("it has several lines, allowed is one")]
    Lines,
}

/// Reads the one line of a file that holds a secret, without the white space
/// around it.
///
/// # Errors
/// [`SecretFileError`]; none of them shows what the file holds.
pub fn read_secret_file(path: &Path) -> Result<String, SecretFileError> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(SecretFileError::Open);
    }
    let text = std::fs::read_to_string(path)?;
    let line = text.trim();
    match line.lines().count() {
        0 | 1 => Ok(line.to_owned()),
        _ => Err(SecretFileError::Lines),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn a_secret_is_one_line_that_few_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let said = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            read_secret_file(&path).map_err(|error| error.to_string())
        };
        let taken = Ok("one secret".to_owned());
        for text in ["one secret", "one secret\n", " one secret \r\n\n"] {
            assert_eq!(said(text, 0o600), taken, "{text:?}");
        }
        assert_eq!(said("one secret\n", 0o640), taken);
        assert_eq!(said("", 0o600), Ok(String::new()));
        for mode in [0o644, 0o604, 0o602, 0o666] {
            assert!(said("one secret", mode).unwrap_err().contains("every user"));
        }
        assert!(said("one\nsecret\n", 0o600).unwrap_err().contains("lines"));
        fs::remove_file(&path).unwrap();
        assert!(read_secret_file(&path).is_err());
    }
}
