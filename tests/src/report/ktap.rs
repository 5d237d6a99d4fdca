//! KTAP version 1, as the kernel's selftests speak it: a test case per run.
//!
//! A run that came out as expected is `ok`, also when what was expected is a finding.

use super::summary::RunSummary;

/// The whole document.
#[must_use]
pub fn ktap(runs: &[RunSummary]) -> String {
    let mut text = format!("KTAP version 1\n1..{}\n", runs.len());
    for (number, run) in (1..).zip(runs) {
        let result = if run.as_expected { "ok" } else { "not ok" };
        text += &format!(
            "{result} {number} {}\n",
            one_line(&format!("{} on {}", run.scenario, run.kernel))
        );
        text += &format!(
            "# expected {}, seen {}, {}: {}\n",
            run.expected(),
            run.seen(),
            run.time(),
            one_line(&run.judgement.reason)
        );
        for finding in &run.judgement.findings {
            text += &format!("# {}: {}\n", finding.oracle, one_line(&finding.text));
        }
        if !run.as_expected {
            text += &format!("# again: {}\n", one_line(&run.replay));
        }
    }
    text
}

/// A line has no end in its middle, and nothing that begins a directive.
fn one_line(text: &str) -> String {
    let text: Vec<&str> = text.split_whitespace().collect();
    text.join(" ").replace('#', "no. ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::example;
    use crate::verdict::Verdict;

    #[test]
    fn a_surprise_is_not_ok_and_says_how_to_run_it_again() {
        let text = ktap(&[
            example(Verdict::Finding, true),
            example(Verdict::Pass, false),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["KTAP version 1", "1..2"]);
        assert_eq!(lines[2], "ok 1 dma-under-writeback on debian-6.12");
        assert!(text.contains("\nnot ok 2 dma-under-writeback on debian-6.12\n"));
        assert!(text.contains("# again: pincushion test replay runs/1"));
    }

    #[test]
    fn what_a_guest_says_begins_no_line() {
        let mut run = example(Verdict::Finding, false);
        run.judgement.reason = "write #12\nnot ok 7".into();
        let text = ktap(&[run]);
        let begins = |line: &str| line.starts_with("not ok 7");
        assert!(!text.lines().any(begins), "{text}");
    }
}
