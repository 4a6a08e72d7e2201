//! The operator's token: who can read a program's own folder may ask and
//! command it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use subtle::ConstantTimeEq;

/// Its file in the program's own folder, mode 0600.
pub const TOKEN_FILE: &str = "operator-token";
/// What a token is at least, bytes.
const MIN_BYTES: usize = 32;

/// The token of the program whose own folder is `folder`; made if absent.
///
/// # Errors
/// The file cannot be read or made.
pub fn operator_token(folder: &Path) -> io::Result<String> {
    let path = folder.join(TOKEN_FILE);
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= MIN_BYTES => return Ok(text.trim().to_owned()),
        // One that was cut short by a crash was never used.
        Ok(_) => fs::remove_file(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    let token = hex::encode(bytes);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    Ok(token)
}

/// Whether the value of an `Authorization` header bears the token. Takes the
/// same time wherever a wrong one differs.
pub fn is_bearer(authorization: &[u8], token: &str) -> bool {
    let given = authorization.strip_prefix(b"Bearer ");
    given.is_some_and(|given| given.ct_eq(token.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_for_the_owner_only() {
        let dir = tempfile::tempdir().expect("make a folder");
        let made = operator_token(dir.path()).expect("made");
        let mode = fs::metadata(dir.path().join(TOKEN_FILE))
            .expect("the file")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(operator_token(dir.path()).expect("read"), made);
        fs::write(dir.path().join(TOKEN_FILE), "cut").expect("cut it");
        assert_ne!(operator_token(dir.path()).expect("made anew"), made);
    }

    #[test]
    fn only_the_token_itself_is_one() {
        for (header, bears) in [
            ("Bearer secret", true),
            ("Bearer secre", false),
            ("Bearer secrets", false),
            ("bearer secret", false),
            ("secret", false),
            ("Bearer ", false),
            ("", false),
        ] {
            assert_eq!(is_bearer(header.as_bytes(), "secret"), bears, "{header:?}");
        }
    }
}
