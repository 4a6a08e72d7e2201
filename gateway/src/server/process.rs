//! What the kernel says of this process.

use std::fs;

/// Raises the number of files that may be open to what the system allows:
/// every connection is one. Returns how many that is.
pub fn raise_open_files() -> Option<u64> {
    match shardgate_disk_store::raise_open_files() {
        Ok(allowed) => allowed,
        Err(error) => {
            tracing::warn!(%error, "open files stay limited");
            None
        }
    }
}

/// Memory of this process that is resident, bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    resident(&fs::read_to_string("/proc/self/status").ok()?)
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Files that this process has open.
pub(crate) fn open_files() -> Option<u64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}

/// Processor time that this process took, seconds.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, which may hold spaces, ends at the last bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_text() {
        let status = "Name:\tshardgate\nVmPeak:\t 10 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(resident(status), Some(2048 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 4096));
        assert!(open_files().is_some_and(|files| files >= 3));
        assert!(cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
    }
}
