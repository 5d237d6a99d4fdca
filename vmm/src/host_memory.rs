//! How much memory this host has for us.

use std::fs::read_to_string;

/// Bytes of RAM that this process may ever use: all of the host's, or what its control group allows; `None` where the host
/// does not tell.
pub(crate) fn total() -> Option<u64> {
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    // `max` is no number and no limit.
    let group = limits
        .iter()
        .filter_map(|path| read_to_string(path).ok()?.trim().parse().ok());
    group.chain(meminfo("MemTotal:")).min()
}

/// Bytes that could be used now without swapping, by the kernel's own estimate.
pub(crate) fn available() -> Option<u64> {
    meminfo("MemAvailable:")
}

fn meminfo(name: &str) -> Option<u64> {
    in_meminfo(&read_to_string("/proc/meminfo").ok()?, name)
}

fn in_meminfo(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_counts_in_kib() {
        let text = "MemTotal:       24683604 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(in_meminfo(text, "MemTotal:"), Some(24_683_604 * 1024));
        assert_eq!(in_meminfo(text, "MemFree:"), None);
    }

    #[test]
    fn what_is_available_is_part_of_all() {
        if let (Some(total), Some(available)) = (meminfo("MemTotal:"), available()) {
            assert!(available <= total, "{available} of {total}");
        }
    }
}
