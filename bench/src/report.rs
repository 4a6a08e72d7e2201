//! Quantiles, JSON and tables.

use std::fs;
use std::io::Result;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

/// The value below which a share `q` of the sorted `times` lies; zero of none.
pub(crate) fn quantile(sorted: &[Duration], q: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * q).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// Milliseconds with their fraction.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// User and system time of this process so far.
pub(crate) fn cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(spent.tv_sec).expect("CPU time grows from zero"),
        u32::try_from(spent.tv_nsec).expect("below a second"),
    )
}

/// What else the machine does.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.trim().to_owned()
}

/// Writes `NAME.json` and `NAME.txt`, and prints the table.
pub(crate) fn write(output: &Path, name: &str, rows: &impl Serialize, table: &str) -> Result<()> {
    let json = serde_json::to_string_pretty(rows)?;
    fs::write(output.join(format!("{name}.json")), json)?;
    fs::write(output.join(format!("{name}.txt")), table)?;
    print!("{table}");
    println!("written to {}", output.join(name).display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_and_of_none() {
        let times: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&times, 0.5), Duration::from_millis(51));
        assert_eq!(quantile(&times, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&times[..1], 0.99), Duration::from_millis(1));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
