//! The operator's token: who can read the gateway's folder may command it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::auth::SecretText;

/// Its file in the gateway's own folder, mode 0600.
pub const TOKEN_FILE: &str = "operator-token";

/// The token of the gateway whose own folder is `folder`; made if absent.
pub fn token(folder: &Path) -> io::Result<SecretText> {
    let path = folder.join(TOKEN_FILE);
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(SecretText::new(text.trim())),
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
    Ok(SecretText::new(token))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_for_the_owner_only() {
        let dir = tempfile::tempdir().expect("make a folder");
        let made = token(dir.path()).expect("made");
        let mode = fs::metadata(dir.path().join(TOKEN_FILE))
            .expect("the file")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(token(dir.path()).expect("read"), made);
        fs::write(dir.path().join(TOKEN_FILE), "cut").expect("cut it");
        assert_ne!(token(dir.path()).expect("made anew"), made);
    }
}
