//! How much memory the kernel lets this process have, and how many calls fit into it: who keeps more is killed, and with it
//! every session.

use std::fs;
use std::path::Path;

use crate::settings::Settings;

/// Where control groups are mounted; in a container its own group is the root.
const GROUPS: &str = "/sys/fs/cgroup";
/// "None", as version 1 writes it, is some pages below this.
const NO_LIMIT: u64 = 1 << 62;
/// A call with what it leaves for half a minute, where the sidecar refreshes it and keeps its SDP.
const CALL_BYTES: u64 = 2304;
/// The process without calls.
const BASE_BYTES: u64 = 16 << 20;

/// Most bytes that may wait to be written to all stream connections together.
const MOST_QUEUED: u64 = 32 << 20;

/// The memory limit of this process's control group in bytes, of either version; None without one.
pub fn limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_in(Path::new(GROUPS), &own)
}

/// How many calls fit beside a record of that size, an eighth of the memory left free. All that the core can keep
/// without a limit.
pub fn max_calls(limit: Option<u64>, record_mib: u32) -> usize {
    let Some(limit) = limit else { return Settings::MOST_CALLS };
    let free = (limit - limit / 8).saturating_sub(BASE_BYTES + (u64::from(record_mib) << 20));
    usize::try_from(free / CALL_BYTES).unwrap_or(usize::MAX).min(Settings::MOST_CALLS)
}

/// How many bytes may wait to be written to streams: what [`max_calls`] leaves free.
pub fn max_queued(limit: Option<u64>) -> usize {
    let most = limit.map_or(MOST_QUEUED, |limit| MOST_QUEUED.min(limit / 8));
    usize::try_from(most).expect("below MOST_QUEUED")
}

/// The lowest of what the process's group says, `own` being `/proc/self/cgroup`, and the group that is mounted as the root.
fn limit_in(groups: &Path, own: &str) -> Option<u64> {
    let places = own.lines().filter_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => Some(("", group, "memory.max")),
            "memory" => Some(("memory", group, "memory.limit_in_bytes")),
            _ => None,
        }
    });
    let limits = places.flat_map(|(mount, group, file)| {
        let mount = groups.join(mount);
        [mount.join(group.trim_start_matches('/')).join(file), mount.join(file)]
    });
    // "max" is no number.
    let read = limits.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    read.filter(|limit| *limit < NO_LIMIT).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(files: &[(&str, &str)]) -> tempfile::TempDir {
        let groups = tempfile::tempdir().expect("a directory");
        for (file, text) in files {
            let path = groups.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, format!("{text}\n")).expect("a file");
        }
        groups
    }

    #[test]
    fn the_lowest_limit_of_either_version_is_found() {
        let limit = |files, own| limit_in(groups(files).path(), own);
        // A container: its group is the root of what is mounted, whatever the kernel calls it.
        assert_eq!(limit(&[("memory.max", "268435456")], "0::/\n"), Some(256 << 20));
        assert_eq!(limit(&[("memory.max", "1000")], "0::/kubepods/pod1\n"), Some(1000));
        let v1 = &[("memory/memory.limit_in_bytes", "2000")];
        assert_eq!(limit(v1, "4:memory:/kubepods/pod1\n3:cpu,cpuacct:/x\n"), Some(2000));
        // A service of a plain machine.
        let service = &[("system.slice/sip.service/memory.max", "3000"), ("memory.max", "max")];
        assert_eq!(limit(service, "0::/system.slice/sip.service\n"), Some(3000));

        assert_eq!(limit(&[("memory.max", "max")], "0::/\n"), None);
        assert_eq!(limit(&[("memory/memory.limit_in_bytes", "9223372036854771712")], "4:memory:/\n"), None);
        assert_eq!(limit(&[], ""), None);
    }

    #[test]
    fn what_waits_to_be_written_fits_into_what_calls_leave_free() {
        assert_eq!([None, Some(1 << 40), Some(64 << 20)].map(max_queued), [32 << 20, 32 << 20, 8 << 20]);
    }

    #[test]
    fn calls_fit_into_memory_beside_the_record() {
        assert_eq!(max_calls(None, 8), Settings::MOST_CALLS);
        let calls = max_calls(Some(256 << 20), 8) as u64;
        assert!(calls * CALL_BYTES + BASE_BYTES + (8 << 20) <= (256 << 20) / 8 * 7 && calls > 90_000, "{calls}");
        assert_eq!(max_calls(Some(16 << 20), 8), 0);
        assert_eq!(max_calls(Some(1 << 40), 8), Settings::MOST_CALLS);
    }
}
