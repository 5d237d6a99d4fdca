//! The guest's kernel said that something is wrong.
//!
//! Verifies that neither the console nor the kernel log that steps brought back shows a panic, a crash (oops, BUG, WARNING, sanitizer),
//! what our own kernels say of a pin that is wrong, a damaged file system or a stall, and names each by a stable title: a crash by its
//! function, without addresses, ids and times. A stall (hung task, soft lockup, RCU) is a possible finding only, because a request that the
//! scenario holds or a busy host makes one without any fault of the kernel.
//!
//! Does not verify I/O errors: disks may fail, and scenarios make them. Damage that a file system reports after the plan
//! made a request fail, or its bytes wrong, is counted, never blamed; so is a stall after the plan kept a completion from the
//! guest, and everything after the plan let a device scribble over memory or complete a request twice; so is damage that it
//! reports while its disk is reset and not in use again (a kernel on its way down resets disks under file systems that are
//! still mounted; which disk the guest calls `vda` is a fact, and where that is not known the reset of any disk excuses the
//! damage), and a panic for which the scenario itself asked. What the kernel said before its agent reported is held against the
//! machine, not against a promise. A warning that a DAX page left its file while somebody referred to it speaks of O3, a wrong "not
//! pinned" of O1, all others of O2.

use std::collections::{BTreeMap, BTreeSet};

use pincushion_abi::{Outcome, Report, Value};
use pincushion_devices::trace::event::{Event, EventKind};

use super::bench::{Opinion, Oracle, merge};
use super::cpu_flags;
use super::splat::{self, Kind, Opening};
use crate::timeline::{DiskName, Fact, Request, Timeline};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "guest-splat";
/// Counted where a CPU showed flags that no CPU has, or took an interrupt with flags that forbid it. The memory that they were printed from
/// was overwritten, or the CPU is emulated, and the emulator failed: who knows where the guest ran can tell.
pub(crate) const IMPOSSIBLE_FLAGS: &str = "guest-splat.impossible-flags";
/// Lines after an opening in which its `RIP:` line must come.
const REACH: usize = 40;
/// Lines of interrupted registers in a call trace up to the flags: `RIP:`, `Code:`, `RSP:`. A new splat has more before its own.
const REGISTERS: usize = 3;

/// The oracle.
#[derive(Default)]
pub(super) struct GuestSplat {
    splats: Vec<Splat>,
    /// Disks that the guest has reset in this boot and does not use again so far.
    gone: BTreeSet<String>,
    /// Whose disk the guest calls `vda`, as far as a fact has told since that disk was last taken into use.
    names: BTreeMap<String, String>,
    /// A CPU of the guest showed flags that it cannot have had.
    impossible_flags: bool,
    /// The call trace has come to an interrupt: flags within so many lines are those that it met.
    below_interrupt: usize,
}

struct Splat {
    opening: Opening,
    seq: u64,
    line: String,
    function: Option<String>,
    /// Lines since the opening.
    age: usize,
    before_hello: bool,
    excuse: Excuse,
    disk_gone: bool,
}

impl Oracle for GuestSplat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn feed(&mut self, event: &Event, timeline: &Timeline) {
        match &event.kind {
            EventKind::Console { line } => self.line(line, event.seq.0, timeline),
            EventKind::DeviceReset { device, .. } => {
                self.gone.insert(device.clone());
            }
            EventKind::Activated { device, .. } => {
                self.gone.remove(device);
                // A driver that was bound again may have given it another name.
                self.names.retain(|_, known| known != device);
            }
            EventKind::BootBegan { .. } => {
                self.gone.clear();
                self.names.clear();
            }
            EventKind::Fact { key, value } => {
                if let Ok(Fact::DiskName(DiskName { device, name })) = Fact::read(key, value) {
                    self.names.insert(name, device);
                }
            }
            EventKind::AgentReport { text } if text.contains("\"lines\"") => {
                let Ok(Report::Done {
                    outcome: Outcome::Ok(values),
                    ..
                }) = serde_json::from_str(text)
                else {
                    return;
                };
                if let Some(Value::Texts(lines)) = values.get("lines") {
                    for line in lines {
                        self.line(line, event.seq.0, timeline);
                    }
                }
            }
            _ => {}
        }
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        if self.impossible_flags {
            opinion.count(IMPOSSIBLE_FLAGS, 1);
        }
        let mut findings: Vec<Finding> = Vec::new();
        for splat in &self.splats {
            let asked = splat.opening.kind == Kind::Panic && timeline.stop_was_asked("panic");
            if asked {
                opinion.count("guest-splat.asked-for", 1);
            } else if splat.excuse.covers(splat.opening.kind) {
                opinion.count("guest-splat.after-a-planned-fault", 1);
            } else if splat.opening.kind == Kind::Filesystem && splat.disk_gone {
                opinion.count("guest-splat.while-a-disk-is-reset", 1);
            } else {
                opinion.count("guest-splat.seen", 1);
                let finding = splat.finding();
                // The console and the kernel log tell the same thing twice.
                let told = findings
                    .iter()
                    .any(|other| other.title == finding.title && other.text == finding.text);
                if !told {
                    findings.push(finding);
                }
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

impl GuestSplat {
    fn line(&mut self, line: &str, seq: u64, timeline: &Timeline) {
        self.impossible_flags |= cpu_flags::has_impossible_flags(line);
        self.impossible_flags |= self.below_interrupt > 0 && cpu_flags::interrupts_are_off(line);
        self.below_interrupt = if cpu_flags::enters_by_interrupt(line) {
            REGISTERS
        } else {
            self.below_interrupt.saturating_sub(1)
        };
        let opening = splat::opening(line);
        if let Some(last) = self.splats.last_mut() {
            last.age += 1;
            let near = last.age <= REACH;
            if near
                && last.function.is_none()
                && let Some(function) = splat::rip(line)
            {
                last.function = Some(function.to_owned());
            }
            // "Oops:" follows "BUG: ..." and tells of the same crash; so does the panic that ends it.
            let continues = opening
                .as_ref()
                .is_some_and(|opening| opening.title == "Oops");
            if near && continues && last.opening.kind == Kind::Crash {
                return;
            }
        }
        let Some(opening) = opening else { return };
        self.splats.push(Splat {
            opening,
            seq,
            line: splat::text(line).to_owned(),
            function: None,
            age: 0,
            before_hello: timeline
                .boots
                .last()
                .is_none_or(|boot| boot.hello.is_none()),
            excuse: Excuse::at(timeline, seq),
            disk_gone: match splat::disk(line).and_then(|name| self.names.get(name)) {
                Some(device) => self.gone.contains(device),
                None => !self.gone.is_empty(),
            },
        });
    }
}

/// The promise that the kernel broke by its own word. Most splats say only that something is broken.
fn promise(title: &str) -> Promise {
    match title {
        // A page leaves its DAX file while somebody refers to it: the block is free, and the device still has it.
        "WARNING: fs/dax.c dax_disassociate_entry" => Promise::O3,
        // Whoever asks writes the page back, or moves it, under the device.
        "pin_tracking: a frame has pins, and is said to have none" => Promise::O1,
        _ => Promise::O2,
    }
}

/// What the plan had done to the guest when it spoke.
#[derive(Debug, Clone, Copy)]
struct Excuse {
    /// Bytes of a disk, or the word about them, were wrong.
    data: bool,
    /// A device wrote memory that it did not own, or let the guest believe that a page was its own.
    memory: bool,
    /// The guest may wait for a completion that does not come.
    waiting: bool,
}

impl Excuse {
    fn at(timeline: &Timeline, seq: u64) -> Self {
        let boot = timeline.boots.last().map_or(0, |boot| boot.number);
        let devices = timeline.devices.keys();
        let mut misled = devices.filter(|device| timeline.guest_was_misled(device, boot, seq));
        Self {
            data: timeline.requests.iter().any(Request::was_spoiled),
            memory: misled.next().is_some() || timeline.memory_was_spoiled(boot, seq),
            waiting: timeline.guest_was_left_waiting(boot, seq),
        }
    }

    fn covers(self, kind: Kind) -> bool {
        match kind {
            Kind::Filesystem => self.data || self.memory || self.waiting,
            Kind::Stall => self.memory || self.waiting,
            Kind::Panic | Kind::Crash => self.memory,
        }
    }
}

impl Splat {
    fn finding(&self) -> Finding {
        let mut title = self.opening.title.clone();
        if let Some(function) = self
            .function
            .as_ref()
            .filter(|_| self.opening.wants_function)
        {
            title += &format!(" in {function}");
        }
        let certainty = match self.opening.kind {
            Kind::Panic | Kind::Crash | Kind::Filesystem => Certainty::Certain,
            Kind::Stall => Certainty::Possible,
        };
        Finding {
            oracle: NAME.to_owned(),
            promise: if self.before_hello {
                Promise::Machine
            } else {
                promise(&title)
            },
            title,
            certainty,
            text: format!("The guest's kernel printed: \"{}\".", self.line),
            evidence: vec![self.seq],
            frames: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{Fault, Operation, Point};
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame, id};

    const ERROR: &str =
        "EXT4-fs error (device vda): ext4_journal_check_start:83: Detected aborted journal";

    #[test]
    fn an_oops_is_one_finding_named_by_its_function() {
        let mut script = Script::booted();
        for line in [
            "[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "[    3.1] #PF: supervisor read access in kernel mode",
            "[    3.1] Oops: 0000 [#1] PREEMPT SMP NOPTI",
            "[    3.1] RIP: 0010:folio_mark_dirty+0x1c/0x90",
        ] {
            script.console(line);
        }
        let opinion = ask(GuestSplat::default(), &script);
        let [finding] = &opinion.findings[..] else {
            panic!("one finding, got {opinion:?}")
        };
        assert_eq!(
            finding.title,
            "BUG: kernel NULL pointer dereference in folio_mark_dirty"
        );
        assert_eq!(finding.promise, Promise::O2);
    }

    #[test]
    fn a_crash_with_flags_that_no_cpu_has_is_still_a_crash_and_counted() {
        for (flags, count) in [("1fd68646", Some(&1)), ("00010246", None)] {
            let mut script = Script::booted();
            script.console("[   21.2] Oops: double fault: 0000 [#1] PREEMPT SMP NOPTI");
            script.console(&format!(
                "[   21.2] RSP: 0018:ffffc90000557ab8 EFLAGS: {flags}"
            ));
            let opinion = ask(GuestSplat::default(), &script);
            assert_eq!(opinion.counts.get(IMPOSSIBLE_FLAGS), count);
            assert_eq!(opinion.findings.len(), 1, "{opinion:?}");
        }
    }

    #[test]
    fn an_interrupt_that_was_taken_while_interrupts_were_off_is_counted_too() {
        let count = |frame: &str, between: usize, flags: &str| {
            let mut script = Script::booted();
            script.console("[    6.9] Oops: stack guard page: 0000 [#1] PREEMPT SMP NOPTI");
            script.console(&format!("[    6.9]  {frame}"));
            for _ in 0..between {
                script.console("[    6.9] Code: 31 d2");
            }
            script.console(&format!(
                "[    6.9] RSP: 0000:fffffe0000002f50 EFLAGS: {flags}"
            ));
            let opinion = ask(GuestSplat::default(), &script);
            opinion.counts.get(IMPOSSIBLE_FLAGS).copied()
        };
        let timer = "asm_sysvec_apic_timer_interrupt+0x1a/0x20";
        assert_eq!(count(timer, 2, "00000006"), Some(1));
        assert_eq!(count(timer, 2, "00000206"), None);
        // A fault may come at any time, and other registers are another splat's.
        assert_eq!(count("asm_exc_page_fault+0x26/0x30", 2, "00000006"), None);
        assert_eq!(count(timer, 3, "00000006"), None);
        assert_eq!(count(&format!("? {timer}"), 2, "00000006"), None);
    }

    #[test]
    fn a_warning_is_told_once_though_console_and_kernel_log_show_it() {
        let line =
            "[    3.1] WARNING: CPU: 0 PID: 1 at fs/ext4/inode.c:3588 ext4_dirty_folio+0x52/0x60";
        let mut script = Script::booted();
        script.console(line);
        script.push(EventKind::AgentReport {
            text: json!({"report": "done", "id": 9, "began_ns": 0, "ended_ns": 1, "outcome": {"ok": {"lines": [line]}}}).to_string(),
        });
        let opinion = ask(GuestSplat::default(), &script);
        assert_eq!(opinion.findings.len(), 1);
        assert!(
            !opinion.findings[0].text.contains("times"),
            "{}",
            opinion.findings[0].text
        );
    }

    #[test]
    fn a_dax_page_that_leaves_its_file_while_it_is_held_is_a_matter_of_o3_alone() {
        let promise_of = |place: &str| {
            let mut script = Script::booted();
            script.console(&format!("[    3.1] WARNING: CPU: 0 PID: 1 at {place}"));
            let opinion = ask(GuestSplat::default(), &script);
            let promises: Vec<Promise> = opinion.findings.iter().map(|f| f.promise).collect();
            promises
        };
        assert_eq!(
            promise_of("fs/dax.c:390 dax_disassociate_entry+0x4b/0x80"),
            [Promise::O3]
        );
        assert_eq!(
            promise_of("fs/dax.c:1000 dax_writeback_one+0x4b/0x80"),
            [Promise::O2]
        );
    }

    #[test]
    fn a_panic_is_caught_unless_the_scenario_asked_for_it() {
        let panics = |asked: bool| {
            let mut script = Script::booted();
            if asked {
                script.fact("expected-stop", json!({"how": "panic"}));
            }
            script.console("[    4.0] Kernel panic - not syncing: sysrq triggered crash");
            ask(GuestSplat::default(), &script).findings.len()
        };
        assert_eq!((panics(false), panics(true)), (1, 0));
    }

    #[test]
    fn a_stall_is_only_possible() {
        let mut script = Script::booted();
        script.console("[  140.0] INFO: task agent:1 blocked for more than 120 seconds.");
        assert_eq!(
            ask(GuestSplat::default(), &script).findings[0].certainty,
            Certainty::Possible
        );
    }

    #[test]
    fn damage_after_a_planned_fault_is_not_blamed_on_the_guest() {
        let mut script = Script::booted();
        script.fetch("a#0", Operation::Write, frame(7));
        script.push(EventKind::FaultApplied {
            request: id("a#0"),
            rule: "rule 1".into(),
            point: Point::Fetched,
            action: "hold until gate g, fail with ioerr".into(),
        });
        script.console(ERROR);
        assert!(ask(GuestSplat::default(), &script).findings.is_empty());
        let mut unplanned = Script::booted();
        unplanned.console(ERROR);
        assert_eq!(ask(GuestSplat::default(), &unplanned).findings.len(), 1);
    }

    /// Seen with 6.12: power-off resets the disks while `ext4lazyinit` still reads block bitmaps of a mounted file system.
    #[test]
    fn damage_while_a_disk_is_reset_is_not_blamed_on_the_guest() {
        let mut script = Script::booted();
        let reset = EventKind::DeviceReset {
            device: "a".into(),
            abandoned: 0,
        };
        script.push(reset);
        script.console(ERROR);
        let opinion = ask(GuestSplat::default(), &script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        script.push(EventKind::Activated {
            device: "a".into(),
            features: 0,
        });
        script.console(ERROR);
        assert_eq!(ask(GuestSplat::default(), &script).findings.len(), 1);
    }

    #[test]
    fn the_reset_of_a_disk_excuses_damage_on_that_disk_alone_once_the_names_are_known() {
        let damage_on_vda_while_reset = |disk: &str, is_known: bool| {
            let mut script = Script::booted();
            if is_known {
                script.fact("disk-name", json!({"device": "a", "name": "vda"}));
            }
            script.push(EventKind::DeviceReset {
                device: disk.into(),
                abandoned: 0,
            });
            script.console(ERROR);
            ask(GuestSplat::default(), &script).findings.len()
        };
        assert_eq!(damage_on_vda_while_reset("a", true), 0);
        assert_eq!(damage_on_vda_while_reset("b", true), 1);
        assert_eq!(damage_on_vda_while_reset("b", false), 0);
    }

    #[test]
    fn a_disk_that_was_taken_into_use_again_may_have_another_name() {
        let mut script = Script::booted();
        script.fact("disk-name", json!({"device": "a", "name": "vda"}));
        script.push(EventKind::Activated {
            device: "a".into(),
            features: 0,
        });
        script.push(EventKind::DeviceReset {
            device: "b".into(),
            abandoned: 0,
        });
        script.console(ERROR);
        assert!(ask(GuestSplat::default(), &script).findings.is_empty());
    }

    #[test]
    fn io_errors_and_a_quiet_boot_pass() {
        let mut script = Script::booted();
        script.console("[    1.0] I/O error, dev vdb, sector 0 op 0x0:(READ)");
        script.console("[    1.0] EXT4-fs (vda): mounted filesystem");
        assert_eq!(ask(GuestSplat::default(), &script), Opinion::default());
    }

    #[test]
    fn what_a_kernel_says_after_a_planned_fault_is_excused_by_what_the_fault_spoils() {
        const CRASH: &str =
            "[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000008";
        const HUNG: &str = "[  242.1] INFO: task agent:1 blocked for more than 120 seconds.";
        let corrupt = || Fault::Corrupt { bits: vec![1] };
        let rogue = || Fault::RogueTouch { range: frame(9) };
        for (line, fault, findings) in [
            (ERROR, corrupt(), 0),
            (CRASH, corrupt(), 1),
            (CRASH, rogue(), 0),
            (CRASH, Fault::Duplicate, 0),
            (HUNG, Fault::InterruptDropped, 0),
            (HUNG, corrupt(), 1),
            (ERROR, Fault::InterruptSpurious, 1),
        ] {
            let mut script = Script::booted();
            script.whole("a#0", Operation::Read, frame(7));
            script.fault("a#0", fault.clone());
            script.console(line);
            let opinion = ask(GuestSplat::default(), &script);
            assert_eq!(opinion.findings.len(), findings, "{fault:?}: {opinion:?}");
        }
    }
}
