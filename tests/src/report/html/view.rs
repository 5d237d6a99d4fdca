//! A run as the template shows it.

use std::collections::BTreeMap;

use pincushion_devices::trace::event::{Event, EventKind};
use serde::Serialize;

use super::evidence::Evidence;
use crate::report::picture::{Scene, tall, wide};
use crate::report::summary::word;
use crate::report::{PromiseState, RunSummary, words};
use crate::timeline::{Fact, Timeline};
use crate::verdict::{Certainty, Finding, Promise, Verdict};

/// Most pictures of one run.
const MAX_PICTURES: usize = 3;
/// Most rows of one evidence table.
const MAX_EVIDENCE: usize = 60;
/// Lines of the console's end.
const CONSOLE_LINES: usize = 24;

#[derive(Serialize)]
pub(super) struct RunView {
    anchor: String,
    scenario: String,
    summary: String,
    kernel: String,
    kernel_release: String,
    verdict: &'static str,
    tone: &'static str,
    reason: String,
    expected: String,
    seen: String,
    as_expected: bool,
    time: String,
    promises: Vec<PromiseView>,
    findings: Vec<FindingView>,
    pictures: Vec<PictureView>,
    counts: Vec<(String, u64)>,
    console: String,
    console_left_out: usize,
    problem: Option<String>,
    run_dir: String,
    replay: String,
}

#[derive(Serialize)]
struct PromiseView {
    name: &'static str,
    state: &'static str,
    what: &'static str,
}

#[derive(Serialize)]
struct FindingView {
    title: String,
    oracle: String,
    promise: &'static str,
    certain: bool,
    text: String,
    evidence: Vec<EventView>,
    evidence_left_out: usize,
}

#[derive(Serialize)]
struct EventView {
    seq: u64,
    time: String,
    actor: String,
    what: String,
}

#[derive(Serialize)]
struct PictureView {
    caption: String,
    wide: String,
    tall: String,
    left_out: usize,
}

impl RunView {
    pub(super) fn new(number: usize, run: &RunSummary) -> Self {
        let evidence = Evidence::read(run);
        let problem = evidence
            .as_ref()
            .err()
            .map(|error| format!("no picture: {error}"));
        let evidence = evidence.ok();
        let timeline = evidence.as_ref().map(|evidence| &evidence.timeline);
        let console = timeline
            .map(|timeline| timeline.console.as_slice())
            .unwrap_or_default();
        let tail = console.len().saturating_sub(CONSOLE_LINES);
        let no_events = BTreeMap::new();
        let events = evidence
            .as_ref()
            .map_or(&no_events, |evidence| &evidence.events);
        Self {
            anchor: format!("run-{number}"),
            scenario: run.scenario.clone(),
            summary: run.summary.clone(),
            kernel: run.kernel.clone(),
            kernel_release: run.kernel_release.clone(),
            verdict: word(run.judgement.verdict),
            tone: tone(run.judgement.verdict),
            reason: sentence(&run.judgement.reason),
            expected: run.expected(),
            seen: run.seen(),
            as_expected: run.as_expected,
            time: run.time(),
            promises: promises(run),
            findings: run
                .judgement
                .findings
                .iter()
                .map(|finding| FindingView::new(finding, events, timeline))
                .collect(),
            pictures: timeline
                .map(|timeline| pictures(run, timeline))
                .unwrap_or_default(),
            counts: run
                .judgement
                .counts
                .iter()
                .map(|(name, count)| (name.clone(), *count))
                .collect(),
            console: console[tail..]
                .iter()
                .map(|(_, line)| line.clone() + "\n")
                .collect(),
            console_left_out: tail,
            problem,
            run_dir: run.run_dir.display().to_string(),
            replay: run.replay.clone(),
        }
    }
}

impl FindingView {
    fn new(finding: &Finding, events: &BTreeMap<u64, Event>, timeline: Option<&Timeline>) -> Self {
        let known = finding.evidence.iter().filter_map(|seq| events.get(seq));
        let shown: Vec<EventView> = known
            .take(MAX_EVIDENCE)
            .map(|event| EventView {
                seq: event.seq.0,
                time: words::time(event.time_ns),
                actor: words::actor(event),
                what: what(event, timeline),
            })
            .collect();
        Self {
            title: finding.title.clone(),
            oracle: finding.oracle.clone(),
            promise: match finding.promise {
                Promise::O1 => "O1",
                Promise::O2 => "O2",
                Promise::O3 => "O3",
                Promise::Freed => "freed",
                Promise::Machine => "machine",
            },
            certain: finding.certainty == Certainty::Certain,
            text: finding.text.clone(),
            evidence_left_out: finding.evidence.len() - shown.len(),
            evidence: shown,
        }
    }
}

/// What happened; a step by its name, which the event itself does not hold.
fn what(event: &Event, timeline: Option<&Timeline>) -> String {
    let (step, verb) = match &event.kind {
        EventKind::StepBegan { step } => (step, "begins"),
        EventKind::StepEnded { step } => (step, "has ended"),
        _ => return words::event(event),
    };
    match timeline.and_then(|timeline| timeline.step(*step)) {
        Some(known) => format!("step {step} ({}) {verb}", known.name),
        None => words::event(event),
    }
}

fn promises(run: &RunSummary) -> Vec<PromiseView> {
    let all = [
        (
            Promise::O1,
            "O1",
            "no write-back of a page that a device is still writing",
        ),
        (
            Promise::O2,
            "O2",
            "no crash and no lost data when a clean page is dirtied",
        ),
        (
            Promise::O3,
            "O3",
            "no DAX block reused while a device holds it",
        ),
    ];
    all.into_iter()
        .map(|(promise, name, what)| PromiseView {
            name,
            state: match run.promise(promise) {
                PromiseState::NotTested => "not tested",
                state => state.word(),
            },
            what,
        })
        .collect()
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    chars.next().map_or(String::new(), |first| {
        format!("{}{}.", first.to_uppercase(), chars.as_str())
    })
}

/// The class that colours a verdict.
fn tone(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "good",
        Verdict::Finding | Verdict::GuestPanic => "bad",
        Verdict::Inconclusive | Verdict::Hang | Verdict::NotApplicable | Verdict::SetupError => {
            "unsure"
        }
    }
}

/// Frames of the findings; where there are none, frames that the scenario declared, since their silence is worth a look too.
fn pictures(run: &RunSummary, timeline: &Timeline) -> Vec<PictureView> {
    let mut frames: Vec<(u64, &[u64])> = Vec::new();
    let mut add = |frame: u64, evidence| {
        if frame != 0 && frames.iter().all(|(known, _)| *known != frame) {
            frames.push((frame, evidence));
        }
    };
    for finding in &run.judgement.findings {
        finding
            .frames
            .iter()
            .for_each(|frame| add(*frame, &finding.evidence));
    }
    for (_, fact) in &timeline.facts {
        if let Fact::FilePage(page) = fact {
            page.frames.iter().for_each(|frame| add(*frame, &[]));
        }
    }
    let all = frames
        .into_iter()
        .filter_map(|(frame, evidence)| Scene::of(timeline, frame, evidence));
    all.take(MAX_PICTURES)
        .map(|scene| picture(&scene))
        .collect()
}

fn picture(scene: &Scene) -> PictureView {
    let owner = scene
        .owner
        .as_ref()
        .map_or(String::new(), |owner| format!(", {owner}"));
    let caption = format!("Guest frame {:#x}{owner}", scene.frame);
    let lanes: Vec<String> = scene
        .lanes
        .iter()
        .map(|lane| {
            let bars: Vec<&str> = lane.bars.iter().map(|bar| bar.title.as_str()).collect();
            format!("{} {}: {}.", lane.name, lane.detail, bars.join("; "))
        })
        .collect();
    let label = format!("{caption}. {}", lanes.join(" "));
    PictureView {
        wide: wide(scene, &label),
        tall: tall(scene, &label),
        caption,
        left_out: scene.left_out,
    }
}
