//! What every [`DiskIo`] does while nothing goes wrong.

use std::io::IoSlice;
use std::path::Path;

use rustix::io::Errno;

use super::{DiskFile, DiskIo, OpenHow};

fn errno(error: std::io::Error) -> Option<Errno> {
    Errno::from_io_error(&error)
}

fn read(file: &dyn DiskFile, offset: u64, len: usize) -> Vec<u8> {
    let mut cached = vec![0xee; len];
    let read = file.read_at(&mut cached, offset).expect("it reads");
    cached.truncate(read);
    cached
}

fn past_cache(file: &dyn DiskFile, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    let read = file.read_past_cache(&mut bytes, offset);
    bytes.truncate(read.expect("it reads past the cache"));
    bytes
}

/// Everything, in an empty folder.
///
/// # Panics
/// If it does not conform.
pub fn run(io: &dyn DiskIo) {
    names(io);
    bytes(io);
    holes(io);
    large(io);
}

fn names(io: &dyn DiskIo) {
    let (folder, first) = (Path::new("folder"), Path::new("folder/first"));
    let second = Path::new("folder/second");
    let missing = io.open(first, OpenHow::ReadWrite).map(drop);
    assert_eq!(missing.map_err(errno), Err(Some(Errno::NOENT)));
    let orphan = io.open(first, OpenHow::CreateNew).map(drop);
    assert_eq!(orphan.map_err(errno), Err(Some(Errno::NOENT)));
    io.create_dir(folder).expect("a folder is made");
    let again = io.create_dir(folder).map_err(errno);
    assert_eq!(again, Err(Some(Errno::EXIST)));
    let file = io.open(first, OpenHow::CreateNew).expect("a file is made");
    let again = io.open(first, OpenHow::CreateNew).map(drop);
    assert_eq!(again.map_err(errno), Err(Some(Errno::EXIST)));
    file.write_at(&[IoSlice::new(b"12345")], 0)
        .expect("written");
    let found = io.read_dir(folder).expect("listed");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].is_dir, found[0].len), (false, 5));
    assert_eq!(found[0].name, "first");
    let top = io.read_dir(Path::new("")).expect("listed");
    assert!(
        top.iter()
            .any(|entry| entry.is_dir && entry.name == "folder")
    );
    let full = io.remove(folder).map_err(errno);
    assert_eq!(full, Err(Some(Errno::NOTEMPTY)));
    io.rename(first, second).expect("renamed");
    let gone = io.open(first, OpenHow::Read).map(drop);
    assert_eq!(gone.map_err(errno), Err(Some(Errno::NOENT)));
    assert_eq!(file.names().expect("stat"), 1);
    let other = io.open(first, OpenHow::CreateNew).expect("made");
    io.rename(first, second).expect("renamed over another");
    assert_eq!(file.names().expect("stat"), 0);
    assert_eq!(other.names().expect("stat"), 1);
    // A file without a name lives while it is open.
    assert_eq!(read(&*file, 0, 9), b"12345");
    io.sync_dir(folder).expect("synced");
    io.remove(second).expect("removed");
    let gone = io.remove(second).map_err(errno);
    assert_eq!(gone, Err(Some(Errno::NOENT)));
    assert_eq!(other.names().expect("stat"), 0);
    io.remove(folder).expect("an empty folder goes");
    io.sync_dir(Path::new("")).expect("synced");
    let space = io.space().expect("space");
    assert!(space.total > 0 && space.free <= space.total && space.files > 0);
}

fn bytes(io: &dyn DiskIo) {
    let path = Path::new("bytes");
    let file = io.open(path, OpenHow::CreateNew).expect("made");
    assert!(file.is_empty().expect("stat"));
    let parts = [&b"ab"[..], b"", b"cdef"].map(IoSlice::new);
    file.write_at(&parts, 3).expect("written");
    assert_eq!(file.len().expect("stat"), 9);
    assert_eq!(read(&*file, 0, 100), b"\0\0\0abcdef");
    assert_eq!(read(&*file, 8, 100), b"f");
    assert_eq!(read(&*file, 9, 100), b"");
    file.sync_data().expect("synced");
    assert_eq!(past_cache(&*file, 4, 3), b"bcd");
    assert_eq!(past_cache(&*file, 4, 5000), b"bcdef");
    assert_eq!(past_cache(&*file, 10, 5000), b"");
    file.set_len(5).expect("cut");
    file.set_len(7).expect("extended");
    assert_eq!(read(&*file, 0, 100), b"\0\0\0ab\0\0");
    let other = io.open(path, OpenHow::Read).expect("opened");
    assert_eq!(read(&*other, 3, 2), b"ab");
    let refused = other.write_at(&[IoSlice::new(b"x")], 0).map_err(errno);
    assert_eq!(refused, Err(Some(Errno::BADF)));
    file.sync_all().expect("synced");
    io.remove(path).expect("removed");
}

fn holes(io: &dyn DiskIo) {
    let path = Path::new("holes");
    let file = io.open(path, OpenHow::CreateNew).expect("made");
    file.allocate_zeroed(100, 3_000_000).expect("allocated");
    assert_eq!(file.len().expect("stat"), 3_000_100);
    assert!(read(&*file, 0, 4_000_000).iter().all(|byte| *byte == 0));
    file.write_at(&[IoSlice::new(&[7; 20_000])], 4000)
        .expect("written");
    file.sync_data().expect("synced");
    file.punch(8192, 4096).expect("punched");
    assert_eq!(file.len().expect("stat"), 3_000_100);
    let got = read(&*file, 4000, 20_000);
    let (hole, end) = (8192 - 4000, 8192 + 4096 - 4000);
    assert!(got[..hole].iter().all(|byte| *byte == 7));
    assert!(got[hole..end].iter().all(|byte| *byte == 0));
    assert!(got[end..].iter().all(|byte| *byte == 7));
    io.remove(path).expect("removed");
}

/// Aligned and not, short and long, in many parts: the same bytes.
fn large(io: &dyn DiskIo) {
    let path = Path::new("large");
    let file = io.open(path, OpenHow::CreateNew).expect("made");
    let bytes: Vec<u8> = (0..2_000_000u32).map(|at| (at / 7) as u8).collect();
    let start = bytes.as_ptr().align_offset(4096);
    let aligned = &bytes[start..start + 1_048_576];
    file.write_at(&[IoSlice::new(aligned)], 4096)
        .expect("written");
    assert_eq!(read(&*file, 4096, aligned.len()), aligned);
    assert_eq!(past_cache(&*file, 4096, aligned.len()), aligned);
    let many: Vec<IoSlice<'_>> = bytes.chunks(777).map(IoSlice::new).collect();
    assert!(many.len() > 2048);
    file.write_at(&many, 10).expect("written");
    file.sync_data().expect("synced");
    assert_eq!(read(&*file, 10, bytes.len()), bytes);
    assert_eq!(past_cache(&*file, 10, bytes.len()), bytes);
    io.remove(path).expect("removed");
}
