//! What the oracle says about logs that were written by hand.

use pincushion_devices::trace::event::{Fault, GuestRange, HoldEnd, Operation, Status};
use serde_json::json;

use super::*;
use crate::oracle::bench::ask;
use crate::timeline::script::{Script, frame};

const PAGE: u64 = 0x1234;

fn declared() -> Script {
    let mut script = Script::booted();
    script.fact(
        "file-page",
        json!({"device": "a", "file": "/mnt/data", "frames": [PAGE]}),
    );
    script
}

#[test]
fn a_read_that_runs_within_a_held_write_back_is_caught_with_its_story() {
    let mut script = declared();
    script.fetch("b#0", Operation::Read, frame(PAGE));
    script.fetch("a#0", Operation::Write, frame(PAGE));
    script.hash("a#0", Moment::Fetch, frame(PAGE), "00");
    script.finish("b#0");
    script.touch("a#0");
    script.hash("a#0", Moment::Completion, frame(PAGE), "ff");
    script.execute("a#0", Status::Ok);
    script.close("a#0", HoldEnd::Completed);
    let opinion = ask(WritebackOfHeldPage::default(), &script);
    let [finding] = &opinion.findings[..] else {
        panic!("one finding, got {opinion:?}")
    };
    assert_eq!(
        (finding.promise, finding.certainty),
        (Promise::O1, Certainty::Certain)
    );
    assert_eq!(finding.frames, [PAGE]);
    for words in ["/mnt/data", "disk b wrote the page", "The payload changed"] {
        assert!(finding.text.contains(words), "{words}: {}", finding.text);
    }
    assert!(finding.evidence.is_sorted());
}

#[test]
fn a_read_that_began_during_the_write_back_is_caught_too() {
    let mut script = declared();
    script.fetch("a#0", Operation::Write, frame(PAGE));
    script.fetch("b#0", Operation::Read, frame(PAGE));
    script.finish("a#0");
    script.finish("b#0");
    assert_eq!(
        ask(WritebackOfHeldPage::default(), &script).findings.len(),
        1
    );
}

#[test]
fn a_trace_of_the_kernels_gives_the_finding_its_functions_and_makes_none_by_itself() {
    let text =
        "a-1: cleans: (folio_clear_dirty_for_io+0x0/0x1)\na-1: <stack trace>\n => do_fsync\n";
    let mut script = declared();
    script.fact("kernel-trace", json!({"what": "the fsync", "text": text}));
    let none = ask(WritebackOfHeldPage::default(), &script).findings;
    assert_eq!(none, []);
    script.fetch("b#0", Operation::Read, frame(PAGE));
    script.fetch("a#0", Operation::Write, frame(PAGE));
    let findings = ask(WritebackOfHeldPage::default(), &script).findings;
    let told = "The kernel's trace of the fsync: folio_clear_dirty_for_io < do_fsync.";
    assert!(findings[0].text.contains(told), "{}", findings[0].text);
}

#[test]
fn many_pages_make_one_finding_with_all_frames() {
    let mut script = declared();
    script.fact(
        "file-page",
        json!({"device": "a", "file": "/mnt/data", "frames": [PAGE, PAGE + 1]}),
    );
    for (n, page) in [PAGE, PAGE + 1].into_iter().enumerate() {
        script.fetch(&format!("b#{n}"), Operation::Read, frame(page));
        script.fetch(&format!("a#{n}"), Operation::Write, frame(page));
    }
    let opinion = ask(WritebackOfHeldPage::default(), &script);
    assert_eq!(opinion.findings.len(), 1);
    assert_eq!(opinion.findings[0].frames, [PAGE, PAGE + 1]);
    assert!(opinion.findings[0].text.contains("2 times"));
}

#[test]
fn write_back_after_the_dma_has_ended_passes_and_so_does_dma_after_write_back() {
    let mut script = declared();
    script.whole("b#0", Operation::Read, frame(PAGE));
    script.whole("a#0", Operation::Write, frame(PAGE));
    script.whole("b#1", Operation::Read, frame(PAGE));
    assert!(
        ask(WritebackOfHeldPage::default(), &script)
            .findings
            .is_empty()
    );
}

fn undeclared_overlap(before: &[&str], reboot: bool) -> Vec<Finding> {
    let mut script = Script::booted();
    for device in before {
        script.fact("written-by-cache", json!({"device": device}));
    }
    if reboot {
        script.boot(2);
    }
    script.fetch("b#0", Operation::Read, frame(PAGE));
    script.fetch("a#0", Operation::Write, frame(PAGE));
    script.fact("written-by-cache", json!({"device": "a"}));
    ask(WritebackOfHeldPage::default(), &script).findings
}

#[test]
fn where_nothing_but_the_page_cache_is_written_no_frame_has_to_be_declared() {
    let certainty = |before: &[&str], reboot| undeclared_overlap(before, reboot)[0].certainty;
    assert_eq!(certainty(&["a"], false), Certainty::Certain);
    assert_eq!(certainty(&[], false), Certainty::Possible, "said too late");
    assert_eq!(
        certainty(&["b"], false),
        Certainty::Possible,
        "of another disk"
    );
    assert_eq!(certainty(&["a"], true), Certainty::Possible, "another boot");
    let told = &undeclared_overlap(&["a"], false)[0];
    assert!(
        told.text.starts_with("A page of the page cache"),
        "{}",
        told.text
    );
    assert_eq!(told.frames, [PAGE]);
}

#[test]
fn a_page_of_a_file_on_another_disk_is_not_of_this_disks_cache() {
    let mut script = Script::booted();
    script.fact("written-by-cache", json!({"device": "a"}));
    script.fact(
        "file-page",
        json!({"device": "c", "file": "f", "frames": [PAGE]}),
    );
    script.fetch("b#0", Operation::Read, frame(PAGE));
    script.fetch("a#0", Operation::Write, frame(PAGE));
    let findings = ask(WritebackOfHeldPage::default(), &script).findings;
    assert_eq!(findings[0].certainty, Certainty::Possible);
}

#[test]
fn two_writes_or_two_reads_of_a_page_at_once_pass() {
    let mut script = declared();
    script.fetch("a#0", Operation::Write, frame(PAGE));
    script.fetch("b#0", Operation::Write, frame(PAGE));
    script.finish("a#0");
    script.finish("b#0");
    script.fetch("a#1", Operation::Read, frame(PAGE));
    script.fetch("b#1", Operation::Read, frame(PAGE));
    assert!(
        ask(WritebackOfHeldPage::default(), &script)
            .findings
            .is_empty()
    );
}

#[test]
fn a_program_that_copies_through_two_buffers_passes() {
    let mut script = Script::booted();
    for round in 0..4 {
        let (reads, writes) = (frame(PAGE + round % 2), frame(PAGE + (round + 1) % 2));
        script.fetch(&format!("b#{round}"), Operation::Read, reads);
        script.fetch(&format!("a#{round}"), Operation::Write, writes);
        script.finish(&format!("a#{round}"));
        script.finish(&format!("b#{round}"));
    }
    assert!(
        ask(WritebackOfHeldPage::default(), &script)
            .findings
            .is_empty()
    );
}

#[test]
fn small_buffers_that_share_a_frame_but_no_byte_are_only_counted() {
    let mut script = declared();
    let half = |n: u64| GuestRange {
        addr: PAGE * FRAME_SIZE + n * 2048,
        len: 2048,
    };
    script.fetch("b#0", Operation::Read, half(0));
    script.fetch("a#0", Operation::Write, half(1));
    let opinion = ask(WritebackOfHeldPage::default(), &script);
    assert!(opinion.findings.is_empty(), "{opinion:?}");
    assert_eq!(
        opinion.counts["writeback-of-held-page.same-frame-other-bytes"],
        1
    );
}

#[test]
fn a_frame_that_nobody_declared_is_possible_only_and_so_is_a_write_to_another_disk() {
    for fact in [None, Some("b"), Some("c")] {
        let mut script = Script::booted();
        if let Some(device) = fact {
            script.fact(
                "file-page",
                json!({"device": device, "file": "f", "frames": [PAGE]}),
            );
        }
        script.fetch("b#0", Operation::Read, frame(PAGE));
        script.fetch("a#0", Operation::Write, frame(PAGE));
        let opinion = ask(WritebackOfHeldPage::default(), &script);
        assert_eq!(
            opinion.findings[0].certainty,
            Certainty::Possible,
            "{fact:?}"
        );
    }
}

#[test]
fn a_frame_that_left_its_file_or_its_boot_is_not_declared_any_more() {
    let mut gone = declared();
    gone.fact("file-page-gone", json!({"frames": [PAGE]}));
    let mut rebooted = declared();
    rebooted.stop("reset");
    rebooted.boot(2);
    for mut script in [gone, rebooted] {
        script.fetch("b#0", Operation::Read, frame(PAGE));
        script.fetch("a#0", Operation::Write, frame(PAGE));
        let opinion = ask(WritebackOfHeldPage::default(), &script);
        assert_eq!(opinion.findings[0].certainty, Certainty::Possible);
    }
}

#[test]
fn a_hold_that_a_reset_took_back_does_not_overlap_what_comes_later() {
    let mut script = declared();
    script.fetch("b#0", Operation::Read, frame(PAGE));
    script.close("b#0", HoldEnd::Abandoned);
    script.whole("a#0", Operation::Write, frame(PAGE));
    assert!(
        ask(WritebackOfHeldPage::default(), &script)
            .findings
            .is_empty()
    );
}

#[test]
fn a_guest_that_was_told_twice_may_take_a_held_page_for_its_own() {
    let mut script = Script::booted();
    script.fact(
        "file-page",
        json!({"device": "a", "file": "f", "frames": [7]}),
    );
    script.whole("b#0", Operation::Read, frame(8));
    script.fault("b#0", Fault::Duplicate);
    script.fetch("b#1", Operation::Read, frame(7));
    script.fetch("a#0", Operation::Write, frame(7));
    let opinion = ask(WritebackOfHeldPage::default(), &script);
    assert!(opinion.findings.is_empty(), "{opinion:?}");
}
