//! What an agent remembers: its own id, and the operator's token.
//!
//! Owns the file `agent-id` in the state folder. Invariant: once an id was
//! shown to a gateway it is durable; a file that is there and is not an id is
//! an error, never replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use shardgate_wire::AgentId;
use shardgate_wire::operator_token::{TOKEN_FILE, operator_token};
use thiserror::Error;

const NAME: &str = "agent-id";

/// Why the agent does not know who it is.
#[derive(Debug, Error)]
pub enum StateError {
    /// The system refused.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{path} does not hold an agent's id")]
    Damaged {
        /// Which file.
        path: String,
    },
}

/// The id in the state folder, made if there is none.
pub fn agent_id(folder: &Path) -> Result<AgentId, StateError> {
    let path = folder.join(NAME);
    let error = |what: &'static str| {
        let path = path.display().to_string();
        move |source| StateError::Io { what, path, source }
    };
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| StateError::Damaged {
            path: path.display().to_string(),
        }),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let id = AgentId::random();
            make(folder, &path, id).map_err(error("write"))?;
            Ok(id)
        }
        Err(other) => Err(error("read")(other)),
    }
}

/// The operator's token in the state folder, made if there is none.
pub fn token(folder: &Path) -> Result<String, StateError> {
    let made = fs::create_dir_all(folder).and_then(|()| operator_token(folder));
    made.map_err(|source| StateError::Io {
        what: "read or make",
        path: folder.join(TOKEN_FILE).display().to_string(),
        source,
    })
}

fn make(folder: &Path, path: &Path, id: AgentId) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let part = path.with_extension("part");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    File::open(folder)?.sync_all()?;
    // The folder itself may be new.
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        let id = agent_id(&folder).unwrap();
        assert_eq!(agent_id(&folder).unwrap(), id);
        fs::write(folder.join(NAME), "not an id").unwrap();
        assert!(matches!(agent_id(&folder), Err(StateError::Damaged { .. })));
        fs::write(folder.join(NAME), "").unwrap();
        assert!(agent_id(&folder).is_err());
    }
}
