//! A local file, or bytes at hand, as a stream to be sent.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{once, unfold};

use crate::object::{BodyError, BodyStream};

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// The bytes of a file, read on blocking threads, a piece ahead at most.
pub(super) fn of_file(path: PathBuf) -> BodyStream {
    let pieces = unfold(Some((path, None::<File>)), |state| async move {
        let (path, file) = state?;
        let read = tokio::task::spawn_blocking(move || piece(path, file)).await;
        match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((_, _, bytes)) if bytes.is_empty() => None,
            Ok((path, file, bytes)) => Some((Ok(bytes), Some((path, Some(file))))),
            Err(error) => Some((Err(BodyError(Box::new(error))), None)),
        }
    });
    pieces.boxed()
}

/// These bytes.
pub(super) fn of_bytes(bytes: Bytes) -> BodyStream {
    once(async move { Ok(bytes) }).boxed()
}

/// The next bytes of a file; none at its end.
fn piece(path: PathBuf, file: Option<File>) -> io::Result<(PathBuf, File, Bytes)> {
    let mut file = match file {
        Some(file) => file,
        None => File::open(&path)?,
    };
    let mut bytes = Vec::with_capacity(PIECE);
    (&mut file).take(PIECE as u64).read_to_end(&mut bytes)?;
    Ok((path, file, bytes.into()))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn all_of_a_file_and_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for len in [0, 1, PIECE, 2 * PIECE + 5] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let pieces: Vec<Bytes> = of_file(path.clone()).try_collect().await.unwrap();
            assert_eq!(pieces.concat(), bytes);
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
        }
        std::fs::remove_file(&path).unwrap();
        let gone: Result<Vec<Bytes>, _> = of_file(path).try_collect().await;
        assert!(gone.is_err());
    }
}
