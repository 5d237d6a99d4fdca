//! Recognises what a Linux kernel prints when something is wrong, and gives it a title that is the same each time: without
//! addresses, offsets, line numbers, process names, ids and times.

/// What kind of trouble a splat is; decides who may be blamed, and how surely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The kernel gave up.
    Panic,
    /// A crash or a failed check: certain whenever it is printed.
    Crash,
    /// A file system found itself damaged: lawful after a planned I/O error.
    Filesystem,
    /// Somebody waits too long: lawful while a scenario holds a request, and on a host that is too slow.
    Stall,
}

/// A line that opens a splat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) kind: Kind,
    /// The title as far as this line tells it.
    pub(super) title: String,
    /// Whether the function of a later `RIP:` line belongs into the title.
    pub(super) wants_function: bool,
}

/// The line without what the console puts before the text: `<4>`, `[    1.234567]`, `[   T12]`.
pub(super) fn text(line: &str) -> &str {
    let mut rest = line.trim();
    if let Some((level, after)) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>'))
        && level.bytes().all(|byte| byte.is_ascii_digit())
    {
        rest = after.trim_start();
    }
    while let Some((stamp, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_stamp = stamp
            .trim()
            .trim_start_matches(['T', 'C'])
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !is_stamp || stamp.trim().is_empty() {
            break;
        }
        rest = after.trim_start();
    }
    rest
}

/// Whether a line of the console opens a splat.
pub(super) fn opening(line: &str) -> Option<Opening> {
    let text = text(line);
    panic(text)
        .or_else(|| warning(text))
        .or_else(|| crash(text))
        .or_else(|| pins(text))
        .or_else(|| stall(text))
        .or_else(|| filesystem(text))
}

/// The function in `RIP: 0010:ext4_dirty_folio+0x52/0x60`.
pub(super) fn rip(line: &str) -> Option<&str> {
    let (_, function) = text(line).strip_prefix("RIP: ")?.split_once(':')?;
    symbol(function)
}

/// `name` of `name+0x1/0x2` or `name+0x1/0x2 [module]`; a bare address is none.
fn symbol(text: &str) -> Option<&str> {
    let name = text.split(['+', ' ', ',']).next()?.trim_end_matches('.');
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    is_name.then_some(name)
}

fn opens(kind: Kind, title: String, wants_function: bool) -> Option<Opening> {
    Some(Opening {
        kind,
        title,
        wants_function,
    })
}

fn panic(text: &str) -> Option<Opening> {
    let reason = text.strip_prefix("Kernel panic - not syncing: ")?;
    opens(Kind::Panic, format!("panic: {}", plain(reason)), false)
}

/// `WARNING: CPU: 0 PID: 1 at fs/x.c:12 function+0x1/0x2`, since 6.18 `WARNING: fs/x.c:12 at function+0x1/0x2, CPU#0: init/1`, or a
/// check's own words (`WARNING: possible circular locking dependency detected`).
fn warning(text: &str) -> Option<Opening> {
    let rest = text.strip_prefix("WARNING: ")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "at");
    let title = match at {
        Some(at) if rest.starts_with("CPU: ") => {
            let file = words.get(at + 1).map_or("", |place| file(place));
            let function = words
                .get(at + 2)
                .and_then(|word| symbol(word))
                .unwrap_or_default();
            format!("WARNING: {file} {function}")
        }
        Some(at) if at == 1 && words[0].contains(':') => {
            let function = words
                .get(2)
                .and_then(|word| symbol(word))
                .unwrap_or_default();
            format!("WARNING: {} {function}", file(words[0]))
        }
        _ => format!("WARNING: {}", plain(rest)),
    };
    opens(Kind::Crash, title.trim_end().to_owned(), false)
}

fn crash(text: &str) -> Option<Opening> {
    if let Some(place) = text.strip_prefix("kernel BUG at ") {
        return opens(
            Kind::Crash,
            format!("kernel BUG: {}", file(place.trim_end_matches('!'))),
            true,
        );
    }
    if let Some(place) = text.strip_prefix("UBSAN: ") {
        let (what, place) = place.split_once(" in ").unwrap_or((place, ""));
        return opens(
            Kind::Crash,
            format!("UBSAN: {} {}", plain(what), file(place))
                .trim_end()
                .to_owned(),
            false,
        );
    }
    if let Some(what) = text.strip_prefix("BUG: ") {
        if let Some((what, function)) = what.split_once(" in ")
            && (what.starts_with("KASAN")
                || what.starts_with("KFENCE")
                || what.starts_with("KMSAN")
                || what.starts_with("KCSAN"))
        {
            let function = symbol(function).unwrap_or_default();
            return opens(
                Kind::Crash,
                format!("BUG: {} in {function}", plain(what)),
                false,
            );
        }
        // `address: ...`, `for address ...`, `at mm/slab.h:1`, `in process x` are other each time.
        let what = [
            " for address",
            "address:",
            " at ",
            " in process",
            " mm:",
            ", in",
            " detected",
        ]
        .iter()
        .fold(what, |what, cut| what.split(cut).next().unwrap_or(what));
        return opens(Kind::Crash, format!("BUG: {}", plain(what)), true);
    }
    let faults = [
        "general protection fault",
        "divide error",
        "invalid opcode",
        "stack segment",
        "double fault",
        "Oops",
    ];
    let fault = faults.iter().find(|fault| {
        text.strip_prefix(**fault)
            .is_some_and(|rest| rest.starts_with([':', ',']))
    })?;
    opens(Kind::Crash, (*fault).to_owned(), true)
}

/// What our own kernels (`guest-images/kernel`) say of a pin: a mistake that `typed` has met, `pin_typed: double put: frame 0x1, ...`; a folio
/// that ends its life with pins, `pin_tracking: lru: frame 0x1 is freed while it is pinned`; with `pin_check=1`, a wrong answer.
fn pins(text: &str) -> Option<Opening> {
    let title = if let Some(said) = text.strip_prefix("pin_typed: ") {
        let (mistake, _) = said.split_once(": frame ")?;
        format!("pin_typed: {mistake}")
    } else {
        let (_, said) = text
            .strip_prefix("pin_tracking: ")?
            .split_once(": frame ")?;
        let (_, said) = said.split_once(' ')?;
        format!("pin_tracking: a frame {}", plain(said))
    };
    opens(Kind::Crash, title, false)
}

fn stall(text: &str) -> Option<Opening> {
    if text.starts_with("watchdog: BUG: soft lockup") {
        return opens(Kind::Stall, "soft lockup".to_owned(), true);
    }
    if text.starts_with("INFO: task ") && text.contains(" blocked for more than ") {
        return opens(Kind::Stall, "hung task".to_owned(), false);
    }
    let rcu = text
        .strip_prefix("rcu: INFO: ")
        .or_else(|| text.strip_prefix("INFO: rcu"))?;
    (rcu.contains("stall")).then_some(())?;
    opens(Kind::Stall, "RCU stall".to_owned(), true)
}

fn filesystem(text: &str) -> Option<Opening> {
    if text.contains("does not have buffers attached") {
        return opens(
            Kind::Filesystem,
            "EXT4-fs: a dirty page does not have buffers attached".to_owned(),
            false,
        );
    }
    if let Some(rest) = text.strip_prefix("EXT4-fs error (device ") {
        let function = rest
            .split_once("): ")
            .and_then(|(_, rest)| rest.split(':').next());
        return opens(
            Kind::Filesystem,
            format!("EXT4-fs error: {}", function.unwrap_or_default().trim()),
            false,
        );
    }
    for (prefix, name) in [
        ("XFS (", "XFS"),
        ("BTRFS error (", "BTRFS error"),
        ("BTRFS critical (", "BTRFS critical"),
        ("BTRFS: error (", "BTRFS error"),
    ] {
        let Some((_, message)) = text
            .strip_prefix(prefix)
            .and_then(|rest| rest.split_once("): "))
        else {
            continue;
        };
        let severe = name != "XFS"
            || [
                "Internal error",
                "Corruption",
                "corruption",
                "Assertion failed",
                "Metadata I/O Error",
            ]
            .iter()
            .any(|word| message.starts_with(word) || message.contains(" corruption"));
        return severe.then(|| Opening {
            kind: Kind::Filesystem,
            title: format!("{name}: {}", plain(message)),
            wants_function: false,
        });
    }
    None
}

/// The disk of which a file system's line speaks: `vda` of `EXT4-fs error (device vda): ...`, also where it names a partition.
pub(super) fn disk(line: &str) -> Option<&str> {
    let (_, rest) = text(line).split_once('(')?;
    let (inside, _) = rest.split_once(')')?;
    let name = inside.strip_prefix("device ").unwrap_or(inside);
    let is_disk = |name: &str| {
        name.strip_prefix("vd")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase()))
    };
    let is_other = |name: &str| {
        name.strip_prefix("pmem")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let whole = name.trim_end_matches(|c: char| c.is_ascii_digit());
    [name, whole]
        .into_iter()
        .find(|name| is_disk(name) || is_other(name))
}

/// The file of `fs/ext4/inode.c:3588`.
fn file(place: &str) -> &str {
    place.split(':').next().unwrap_or(place).trim()
}

/// Words without those that hold a digit, and without what follows the first sentence.
fn plain(text: &str) -> String {
    let text = text.split(". ").next().unwrap_or(text);
    let kept: Vec<&str> = text
        .split_whitespace()
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
        .collect();
    kept.join(" ")
        .trim_end_matches([':', ',', '.', '!', '-', ' '])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as kernels print them, and their titles.
    const SPLATS: &[(&str, &str)] = &[
        (
            "[   12.345678] WARNING: CPU: 1 PID: 77 at fs/ext4/inode.c:3588 ext4_dirty_folio+0x52/0x60",
            "WARNING: fs/ext4/inode.c ext4_dirty_folio",
        ),
        (
            "[    9.1][   T12] WARNING: CPU: 0 PID: 1 at fs/dax.c:390 dax_disassociate_entry+0x4b/0x80 [x]",
            "WARNING: fs/dax.c dax_disassociate_entry",
        ),
        (
            "WARNING: mm/gup.c:70 at try_get_folio+0x1/0x2, CPU#1: init/1",
            "WARNING: mm/gup.c try_get_folio",
        ),
        (
            "<4>[    1.0] WARNING: possible circular locking dependency detected",
            "WARNING: possible circular locking dependency detected",
        ),
        (
            "[    4.2] pin_typed: double put: frame 0x1a2b, 0 pins, 1 unpinned, 1 references",
            "pin_typed: double put",
        ),
        (
            "pin_tracking: lru+july: frame 0x1a2b is freed while it is pinned",
            "pin_tracking: a frame is freed while it is pinned",
        ),
        (
            "pin_tracking: none: frame 0x1a2b has 3 pins, and is said to have none",
            "pin_tracking: a frame has pins, and is said to have none",
        ),
        (
            "Kernel panic - not syncing: sysrq triggered crash",
            "panic: sysrq triggered crash",
        ),
        (
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
            "panic: Attempted to kill init",
        ),
        (
            "kernel BUG at mm/page_alloc.c:1234!",
            "kernel BUG: mm/page_alloc.c",
        ),
        (
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "BUG: kernel NULL pointer dereference",
        ),
        (
            "BUG: unable to handle page fault for address: ffff888100000000",
            "BUG: unable to handle page fault",
        ),
        (
            "BUG: KASAN: slab-use-after-free in bio_put+0x12/0x90",
            "BUG: KASAN: slab-use-after-free in bio_put",
        ),
        (
            "BUG: Bad page state in process agent  pfn:12345",
            "BUG: Bad page state",
        ),
        (
            "BUG: sleeping function called from invalid context at kernel/locking/rwsem.c:1",
            "BUG: sleeping function called from invalid context",
        ),
        ("Oops: 0000 [#1] PREEMPT SMP NOPTI", "Oops"),
        (
            "general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
            "general protection fault",
        ),
        (
            "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [agent:1]",
            "soft lockup",
        ),
        (
            "INFO: task kworker/u4:0:11 blocked for more than 120 seconds.",
            "hung task",
        ),
        (
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "RCU stall",
        ),
        (
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "RCU stall",
        ),
        (
            "EXT4-fs error (device vda): ext4_find_entry:1463: inode #2: comm agent: reading directory lblock 0",
            "EXT4-fs error: ext4_find_entry",
        ),
        (
            "EXT4-fs warning (device vda): ext4_writepages:1: inode #12: page 0 does not have buffers attached",
            "EXT4-fs: a dirty page does not have buffers attached",
        ),
        (
            "BTRFS error (device vda): root 5 ino 257 folio 0 is marked dirty without notifying the fs",
            "BTRFS error: root ino folio is marked dirty without notifying the fs",
        ),
        (
            "XFS (vda): Internal error xfs_trans_cancel at line 1 of file x.c",
            "XFS: Internal error xfs_trans_cancel at line of file x.c",
        ),
    ];

    #[test]
    fn splats_get_the_same_title_each_time() {
        for (line, title) in SPLATS {
            assert_eq!(
                opening(line)
                    .unwrap_or_else(|| panic!("missed: {line}"))
                    .title,
                *title
            );
        }
    }

    #[test]
    fn what_a_healthy_kernel_says_passes() {
        for line in [
            "",
            "[    0.000000] Linux version 6.12.117",
            "[    1.0] I/O error, dev vdb, sector 0 op 0x0:(READ) flags 0x800 phys_seg 1 prio class 2",
            "[    1.0] Buffer I/O error on dev vda, logical block 3, lost async page write",
            "[    1.0] EXT4-fs (vda): mounted filesystem 1234 r/w with ordered data mode. Quota mode: none.",
            "[    1.0] XFS (vda): Mounting V5 Filesystem",
            "[    1.0] XFS (vda): Ending clean mount",
            "[    1.0] rcu: Hierarchical RCU implementation.",
            "[    1.0] Spectre V2 : WARNING: Unprivileged eBPF is enabled",
            "[    1.0] INFO: lockdep is turned off",
            "[    1.0] debugging: BUG_ON is enabled",
            "[    0.1] pin_tracking: design \"typed\": as bias, and count and stacks in page_ext, checked",
            "[    4.2] pin_typed:  pinned last by:",
        ] {
            assert_eq!(opening(line), None, "{line}");
        }
    }

    #[test]
    fn the_disk_is_read_from_a_file_systems_line() {
        for (line, name) in [
            (
                "[    1.0] EXT4-fs error (device vda): ext4_find_entry:1: x",
                Some("vda"),
            ),
            (
                "XFS (vdb2): Corruption detected. Unmount and run xfs_repair",
                Some("vdb"),
            ),
            ("EXT4-fs error (device pmem0): x", Some("pmem0")),
            ("EXT4-fs error (device dm-0): x", None),
            ("does not have buffers attached", None),
        ] {
            assert_eq!(disk(line), name, "{line}");
        }
    }

    #[test]
    fn the_function_at_fault_is_read_from_the_rip_line() {
        assert_eq!(
            rip("[    1.0] RIP: 0010:ext4_dirty_folio+0x52/0x60"),
            Some("ext4_dirty_folio")
        );
        assert_eq!(rip("RIP: 0010:0xffffffff81000000"), None);
        assert_eq!(rip("Call Trace:"), None);
    }
}
