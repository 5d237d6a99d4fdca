//! One JSON object per run, for scripts.

use super::summary::RunSummary;

/// Each run on a line of its own, as [`RunSummary`] is spelled.
#[must_use]
pub fn json_lines(runs: &[RunSummary]) -> String {
    runs.iter()
        .map(|run| {
            serde_json::to_string(run).expect("a summary holds nothing that JSON cannot say") + "\n"
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::example;
    use crate::verdict::Verdict;

    #[test]
    fn a_run_survives_its_line() {
        let runs = [
            example(Verdict::Pass, true),
            example(Verdict::Finding, false),
        ];
        let text = json_lines(&runs);
        let read: Vec<RunSummary> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a summary"))
            .collect();
        assert_eq!(read, runs);
    }
}
