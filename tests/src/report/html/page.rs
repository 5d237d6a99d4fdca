//! Fills the template.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, context};

use super::card_view::CardView;
use super::view::RunView;
use crate::report::{RunSummary, shown};
use crate::verdict::Verdict;

/// What the page says of the suite as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Heading, for example `Demo`.
    pub title: String,
    /// When and where, in words; may be empty.
    pub made: String,
    /// The line that runs the whole suite again; may be empty.
    pub command: String,
    /// Our own commit when the suite began; may be empty.
    pub commit: String,
}

/// The whole page. Reads each run's event log for its pictures; a run without a log is shown without.
#[must_use]
pub fn html(runs: &[RunSummary], about: &About) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_syntax(trimmed());
    environment
        .add_template("page", include_str!("page.html.jinja"))
        .expect("the template is part of the program and tested");
    let order = by_weight(runs);
    let views: Vec<RunView> = (1..)
        .zip(&order)
        .map(|(number, index)| RunView::new(number, &runs[*index]))
        .collect();
    let expected = runs.iter().filter(|run| run.as_expected).count();
    let values = context! {
        style => include_str!("page.css"),
        title => if about.title.is_empty() { "Runs" } else { about.title.as_str() },
        made => about.made.as_str(),
        shown => shown(runs),
        command => about.command.as_str(),
        runs => Value::from(Serde(&views)),
        card => Value::from(Serde(CardView::of(runs, &order))),
        expected,
        surprises => runs.len() - expected,
    };
    let template = environment
        .get_template("page")
        .expect("the template was just added");
    template
        .render(values)
        .expect("the template names what the values have; tested")
}

/// Indices of the runs. Surprises first, then findings, then the rest; among equals in the order in which they ran.
fn by_weight(runs: &[RunSummary]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|index| {
        let run = &runs[*index];
        let is_finding = run.judgement.verdict == Verdict::Finding;
        (run.as_expected, !is_finding)
    });
    order
}

/// Lines that hold only a tag leave nothing in the page.
fn trimmed() -> SyntaxConfig {
    let config = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    config.expect("the delimiters are the usual ones")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::oracle::judge;
    use crate::report::summary::example;

    /// A run that was written by hand, judged as a real one is.
    fn recorded() -> RunSummary {
        let run_dir =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("timelines/o1-dma-under-writeback");
        let judgement = judge(&run_dir).expect("the recorded log");
        RunSummary {
            run_dir,
            judgement,
            ..example(Verdict::Finding, true)
        }
    }

    #[test]
    fn a_finding_is_told_with_its_picture_its_evidence_and_its_replay_line() {
        let page = html(
            &[recorded()],
            &About {
                title: "Demo".into(),
                ..About::default()
            },
        );
        for part in [
            "<svg class=\"picture wide\"",
            "<svg class=\"picture tall\"",
            "class=\"band\"",
            "both own the page",
            "write-back of a page that a device is still writing",
            "the device owns the page and will write into it",
            "pincushion test replay",
            "1 of 1",
        ] {
            assert!(page.contains(part), "the page lacks {part}");
        }
    }

    #[test]
    fn a_cell_of_the_card_leads_to_its_run() {
        let on = |kernel: &str, verdict, as_expected| RunSummary {
            kernel: kernel.into(),
            ..example(verdict, as_expected)
        };
        let runs = [
            on("debian:6.12", Verdict::Pass, true),
            on("debian:6.1", Verdict::Finding, false),
        ];
        let page = html(&runs, &About::default());
        assert!(page.contains("Report card"), "two kernels make a card");
        // The surprise is the first article of the page.
        let cell = page.split("state broken\"").next().expect("a cell");
        assert!(cell.ends_with("<a href=\"#run-1\" class=\""), "{cell}");
        let alone = html(&runs[..1], &About::default());
        assert!(!alone.contains("Report card"), "one run needs none");
    }

    #[test]
    fn what_matters_comes_first() {
        let runs = [
            example(Verdict::Pass, true),
            example(Verdict::Finding, true),
            example(Verdict::Pass, false),
        ];
        let order: Vec<_> = by_weight(&runs)
            .into_iter()
            .map(|index| (runs[index].judgement.verdict, runs[index].as_expected))
            .collect();
        assert_eq!(
            order,
            [
                (Verdict::Pass, false),
                (Verdict::Finding, true),
                (Verdict::Pass, true)
            ]
        );
    }

    #[test]
    fn the_page_needs_nothing_from_the_network() {
        let page = html(&[recorded()], &About::default());
        let outside = ["http://", "https://", "src=", "@import", "url("];
        let used: Vec<&str> = outside
            .into_iter()
            .filter(|word| {
                page.replace("http://www.w3.org/2000/svg", "")
                    .contains(word)
            })
            .collect();
        assert!(used.is_empty() || used == ["url("], "{used:?}");
        assert!(
            !page.replace("url(#", "").contains("url("),
            "a style that loads something"
        );
    }

    #[test]
    fn what_the_guest_says_is_text_and_not_markup() {
        let page = html(&[example(Verdict::Finding, false)], &About::default());
        assert!(
            page.contains("Page 0 of &lt;data&gt; &amp; more"),
            "the finding's text is escaped"
        );
        assert!(
            page.contains("no picture: cannot open the event log"),
            "a missing log is told"
        );
    }
}
