//! Every scenario on each of its kernels, as a test of its own: what is seen must be what the scenario expects.
//!
//! Guests run on this host, or in nested machines, one for each guest at a time. Where neither can be, each test is skipped and says why. One
//! test by hand: `cargo test -p pincushion-test --test e2e -- dma-under-writeback@debian:6.12`.
//!
//! Each scenario runs on its first kernel, and a `demo` on all of its kernels. Older kernels are else left to `--include-ignored`, and to the report
//! cards (docs/scenarios.md). So are the proofs of what is kept, but for three, and what takes many minutes (the tag `soak`).

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};
use pincushion_test::report::RunSummary;
use pincushion_test::suite::{
    Item, Place, PlaceChoice, Programs, Progress, Selection, Suite, missing_for,
    missing_for_guests, select, suite_dir, threads_for,
};

/// Guests at once where no `--test-threads` says more or less. Each has a nested machine of one CPU to itself, so two use two CPUs of
/// the host.
const GUESTS_AT_ONCE: usize = 2;

fn main() -> ExitCode {
    // Cargo hands the same filters to every test binary; libtest takes several, our harness one.
    let (filters, words): (Vec<String>, Vec<String>) = filters_and_words(std::env::args());
    let mut arguments = Arguments::from_iter(words);
    let guests_at_once = arguments.test_threads.unwrap_or(GUESTS_AT_ONCE);
    // All tests but these wait for the seat that suits them.
    arguments.test_threads = Some(threads_for(guests_at_once));
    let mut items = select(&Selection::default())
        .expect("our own scenario files are valid; a unit test says so too");
    if filters.len() > 1 {
        items.retain(|item| filters.iter().any(|filter| title(item).contains(filter)));
    } else {
        arguments.filter = filters.into_iter().next();
    }
    let missing = if arguments.list {
        None
    } else {
        missing_for_guests()
    };
    if let Some(why) = &missing {
        eprintln!("skipping all scenarios: {why}");
    }
    let suite = Arc::new(OnceLock::new());
    let trial = |item: Item| {
        let suite = suite.clone();
        let lacks = missing_for(&item.scenario, &item.kernel);
        if let (None, Some(why)) = (&missing, &lacks) {
            eprintln!("skipping {}: {why}", title(&item));
        }
        let is_left_out = missing.is_some()
            || lacks.is_some()
            || is_once_more(&item)
            || is_one_proof_more(&item)
            || has(&item, "soak");
        Trial::test(title(&item), move || run(&item, &suite, guests_at_once))
            .with_ignored_flag(is_left_out)
    };
    let trials = items.into_iter().map(trial).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(Ok((_, dir))) = suite.get() {
        eprintln!("evidence of all runs: {}", dir.display());
    }
    conclusion.exit_code()
}

/// Whether it runs on another kernel in any case, its first. Kernels of our own designs run as well, where they have been built.
fn is_once_more(item: &Item) -> bool {
    let first = item.scenario.kernels.first().unwrap_or(&item.kernel);
    first != &item.kernel && !item.kernel.starts_with("design:") && !has(item, "demo")
}

/// Whether it proves a *kept* as others do: `pincushion test run --tag proof` runs them all.
fn is_one_proof_more(item: &Item) -> bool {
    has(item, "proof") && !has(item, "smoke")
}

fn has(item: &Item, tag: &str) -> bool {
    item.scenario.tags.iter().any(|known| known == tag)
}

/// Name of the test of an item.
fn title(item: &Item) -> String {
    format!("{}@{}", item.scenario.name, item.kernel)
}

/// Splits the command line into filters, and the rest with the program's name first. A word behind a flag that takes a value is no
/// filter.
fn filters_and_words(line: impl Iterator<Item = String>) -> (Vec<String>, Vec<String>) {
    const WITH_VALUE: [&str; 5] = [
        "--test-threads",
        "--skip",
        "--format",
        "--color",
        "--logfile",
    ];
    let (mut filters, mut words) = (Vec::new(), Vec::<String>::new());
    for word in line {
        let is_value = words
            .last()
            .is_some_and(|last| WITH_VALUE.contains(&last.as_str()));
        if words.is_empty() || word.starts_with('-') || is_value {
            words.push(word);
        } else {
            filters.push(word);
        }
    }
    (filters, words)
}

/// Made by the first test that needs it; the error is for everybody.
type SharedSuite = OnceLock<Result<(Suite, PathBuf), String>>;

fn run(item: &Item, suite: &SharedSuite, guests_at_once: usize) -> Result<(), Failed> {
    let (suite, _) = suite.get_or_init(|| make(guests_at_once)).as_ref()?;
    let summary = suite.run(item, &Quiet).ok_or("stopped")?;
    if summary.as_expected {
        return Ok(());
    }
    let RunSummary {
        judgement,
        run_dir,
        replay,
        ..
    } = &summary;
    let (expected, seen) = (summary.expected(), summary.seen());
    Err(format!(
        "expected {expected}, saw {seen}: {}\nevidence: {}\nagain:    {replay}",
        judgement.reason,
        run_dir.display()
    )
    .into())
}

fn make(guests_at_once: usize) -> Result<(Suite, PathBuf), String> {
    let note = |text: &str| Quiet.note(text);
    let dir = suite_dir(None)
        .map_err(|error| format!("cannot make a directory for the runs: {error}"))?;
    let programs = Programs::find(&note).map_err(|error| error.to_string())?;
    let place = Place::choose(PlaceChoice::Auto, dir.join("nested-console.log"), &note);
    let suite = Suite::new(programs, place, dir.clone(), guests_at_once);
    Ok((suite, dir))
}

/// Tells only what takes its time: libtest tells the rest.
struct Quiet;

impl Progress for Quiet {
    fn note(&self, text: &str) {
        eprintln!("-- {text}");
    }
    fn line(&self, _item: &Item, _line: &str) {}
    fn began(&self, _item: &Item) {}
    fn ended(&self, _item: &Item, _summary: &RunSummary, _surprise: Option<&str>) {}
}
