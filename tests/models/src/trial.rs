//! The trial of one form: the search that its entry in the catalogue asks for, and whether it came to what is expected.

use crate::catalogue::{Expect, Form};
use crate::explore::{Found, Outcome, Settings, exhaust, plainer, search};
use crate::invariant::Invariant;
use crate::scene::Scene;

/// How schedules are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// At random and by PCT, from a seed.
    Seeded,
    /// One after the other until none is left.
    All,
}

/// What a trial came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As the catalogue says.
    AsExpected,
    /// A form that ought to be sound is not, or breaks otherwise than it should.
    Surprise(String),
    /// The schedules were too few: what is expected was not met, or what silence needs was not reached.
    TooFew(String),
}

/// One form, tried.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Schedules run, in all scenes.
    pub schedules: usize,
    /// Scenes of which all schedules were run.
    pub exhausted: usize,
    /// What broke, in which scene, told as plainly as the race allows.
    pub told: Option<(Scene, Found)>,
    /// Whether that is as expected.
    pub verdict: Verdict,
}

/// A form that ought to be silent is searched less in each of its many scenes than a broken one in its single scene.
pub const SILENT_SHARE: usize = 10;

/// Tries a form.
#[must_use]
pub fn try_form(form: &Form, settings: Settings, choice: Choice) -> Trial {
    let run = |scene: &Scene, schedules: usize, wanted: Option<Invariant>| match choice {
        Choice::Seeded => search(
            form,
            scene,
            Settings {
                schedules,
                ..settings
            },
            wanted,
        ),
        Choice::All => exhaust(form, scene, schedules, wanted),
    };
    match form.expect {
        Expect::Breaks(invariant) => {
            let scene = &form.scenes[0];
            breaks(
                form,
                scene,
                &run(scene, settings.schedules, Some(invariant)),
                invariant,
            )
        }
        Expect::Silent => {
            let schedules = settings.schedules.div_ceil(SILENT_SHARE);
            is_silent(form, |scene| run(scene, schedules, None))
        }
    }
}

fn breaks(form: &Form, scene: &Scene, outcome: &Outcome, invariant: Invariant) -> Trial {
    let found = outcome.found.get(&invariant);
    Trial {
        schedules: outcome.schedules,
        exhausted: usize::from(outcome.is_exhaustive),
        told: found.map(|found| (scene.clone(), plainer(form, scene, found))),
        verdict: match found {
            Some(_) => Verdict::AsExpected,
            None if outcome.is_exhaustive => {
                Verdict::Surprise(format!("no schedule breaks {invariant}"))
            }
            None => Verdict::TooFew(format!(
                "{invariant} is not broken in {} schedules",
                outcome.schedules
            )),
        },
    }
}

fn is_silent(form: &Form, run: impl Fn(&Scene) -> Outcome) -> Trial {
    let mut trial = Trial {
        schedules: 0,
        exhausted: 0,
        told: None,
        verdict: Verdict::AsExpected,
    };
    for scene in &form.scenes {
        let outcome = run(scene);
        trial.schedules += outcome.schedules;
        trial.exhausted += usize::from(outcome.is_exhaustive);
        if let Some(found) = outcome.found.values().next() {
            let found = plainer(form, scene, found);
            trial.verdict = Verdict::Surprise(format!(
                "{} is broken in {}",
                found.violation.invariant, scene.name
            ));
            trial.told = Some((scene.clone(), found));
            return trial;
        }
        let missed = outcome.not_reached(scene);
        if !missed.is_empty() && trial.verdict == Verdict::AsExpected {
            let missed: Vec<&str> = missed.iter().map(|mark| mark.says()).collect();
            let how = format!(
                "in {} no schedule came to: {}",
                scene.name,
                missed.join(", ")
            );
            trial.verdict = Verdict::TooFew(how);
        }
    }
    trial
}
