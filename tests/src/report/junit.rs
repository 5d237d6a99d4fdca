//! JUnit XML, for CI systems that show tests.
//!
//! A run that came out as expected is a passed test, also when what was expected is a finding; a setup error is an `error`; any
//! other surprise is a `failure`.

use super::summary::{RunSummary, word};
use crate::verdict::Verdict;

/// One test suite with a test case per run.
#[must_use]
pub fn junit(runs: &[RunSummary]) -> String {
    let is_error =
        |run: &&RunSummary| !run.as_expected && run.judgement.verdict == Verdict::SetupError;
    let surprises = runs.iter().filter(|run| !run.as_expected).count();
    let errors = runs.iter().filter(is_error).count();
    let seconds: f64 = runs.iter().map(|run| run.seconds).sum();
    let head = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{errors}\" time=\"{seconds:.3}\"",
        runs.len(),
        surprises - errors
    );
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"pincushion\" {head}>\n<testsuite name=\"pincushion\" {head}>\n"
    );
    for run in runs {
        xml += &case(run, is_error(&run));
    }
    xml + "</testsuite>\n</testsuites>\n"
}

fn case(run: &RunSummary, is_error: bool) -> String {
    let mut xml = format!(
        "<testcase name=\"{}\" classname=\"{}\" time=\"{:.3}\">\n",
        escaped(&run.scenario),
        escaped(&run.kernel),
        run.seconds
    );
    if !run.as_expected {
        let kind = if is_error { "error" } else { "failure" };
        xml += &format!(
            "<{kind} type=\"{}\" message=\"expected {}, seen {}\">{}</{kind}>\n",
            word(run.judgement.verdict),
            escaped(&run.expected()),
            escaped(&run.seen()),
            escaped(&run.judgement.reason)
        );
    }
    let findings: String = run
        .judgement
        .findings
        .iter()
        .map(|finding| finding.text.clone() + "\n")
        .collect();
    xml += &format!(
        "<system-out>{}</system-out>\n</testcase>\n",
        escaped(&format!(
            "{}\n{findings}{}\n",
            run.judgement.reason, run.replay
        ))
    );
    xml
}

/// Text for XML 1.0: markup escaped, characters that it forbids replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c < ' ' || c == '\u{fffe}' || c == '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::example;

    #[test]
    fn only_surprises_fail_and_a_setup_error_is_an_error() {
        let expected = example(Verdict::Finding, true);
        let xml = junit(&[
            expected,
            example(Verdict::Finding, false),
            example(Verdict::SetupError, false),
        ]);
        assert!(
            xml.contains("tests=\"3\" failures=\"1\" errors=\"1\" time=\"37.035\""),
            "{xml}"
        );
        assert_eq!(xml.matches("<failure").count(), 1);
        assert_eq!(xml.matches("<error").count(), 1);
    }

    #[test]
    fn text_from_the_guest_cannot_break_the_markup() {
        let mut run = example(Verdict::Finding, false);
        run.judgement.reason = "a <b> & \"c\" \u{1b}[0m".into();
        let xml = junit(&[run]);
        assert!(
            xml.contains("a &lt;b&gt; &amp; &quot;c&quot; \u{fffd}[0m"),
            "{xml}"
        );
        assert!(xml.contains("&lt;data&gt; &amp; more"), "{xml}");
    }
}
