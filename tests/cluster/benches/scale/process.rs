//! What the kernel knows of a process.

use std::fs;

use anyhow::{Context, Result};

/// Resident memory in MiB: now, and the most it ever was.
pub(crate) fn memory_mib(process_id: u32) -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).context("the process is gone")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("/proc/PID/status lacks a field")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("a field is no number")?;
        anyhow::Ok(kib / 1024.0)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Processor time so far, in seconds.
pub(crate) fn cpu_s(process_id: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).context("the process is gone")?;
    // The second field is the program's name in brackets and may hold anything; user and system time are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no /proc/PID/stat")?.1.split_whitespace().collect();
    let ticks = fields.get(11..13).context("/proc/PID/stat is short")?;
    let ticks: f64 = ticks.iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    // Linux shows them in hundredths of a second, whatever it counts in.
    Ok(ticks / 100.0)
}
