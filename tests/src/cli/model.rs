//! `model`: the small models of pin-tracking designs, without booting anything.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::anyhow;
use clap::Args;
use pincushion_devices::toml_error::nearest;
use pincushion_models::catalogue::{Expect, Form, designs, forms, model_of};
use pincushion_models::explore::{Found, Settings, replay};
use pincushion_models::handshake::{self, HANDSHAKES};
use pincushion_models::scene::Scene;
use pincushion_models::schedule::{decode, encode};
use pincushion_models::table::table;
use pincushion_models::trial::{Choice, SILENT_SHARE, Trial, Verdict, try_form};
use pincushion_vmm::exit_code;

use super::Failure;

/// The name under which loom's part is asked for.
const HANDSHAKE: &str = "handshake";

/// What the columns of a table are; all of it is in docs/models.md.
const LEGEND: &str = "refs, map: the page's reference count and mapcount; count: what the design keeps; \
    page>media: what the page and the disk hold;\n\
    held by: whose device may still write into the page (hold 1 is the first of them)";

/// Options of `model`.
#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    /// The design, also by the name that its kernel has, or `handshake`; without one all are tried and a table is printed
    design: Option<String>,
    /// Only this form of the design
    #[arg(long, value_name = "FORM", requires = "design")]
    form: Option<String>,
    /// Decides all schedules
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Schedules of a broken form at most; a repaired one gets a tenth of them in each of its scenes
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    schedules: u32,
    /// Run schedules one after the other, up to the same number, in place of seeded ones
    #[arg(long)]
    all: bool,
    /// Run this schedule again, as a find prints it
    #[arg(long, value_name = "SCHEDULE", requires = "form")]
    replay: Option<String>,
    /// With --replay: the scene, if the form has several
    #[arg(long, value_name = "SCENE", requires = "replay")]
    scene: Option<String>,
}

pub(super) fn model(args: &ModelArgs) -> Result<u8, Failure> {
    let Some(design) = &args.design else {
        return Ok(list(args));
    };
    let known: Vec<&str> = designs().into_iter().chain([HANDSHAKE]).collect();
    let design = known_name("design", model_of(design), &known)?;
    if design == HANDSHAKE {
        if args.form.is_some() || args.all {
            return Err(Failure::usage(anyhow!(
                "`{HANDSHAKE}` is searched whole by loom, all its forms at once: --form and --all are for the designs"
            )));
        }
        return Ok(tell_handshake());
    }
    let mut chosen: Vec<Form> = forms()
        .into_iter()
        .filter(|form| form.design == design)
        .collect();
    if let Some(wanted) = &args.form {
        let names: Vec<&str> = chosen.iter().map(|form| form.form).collect();
        let wanted = known_name("form", wanted, &names)?.to_owned();
        chosen.retain(|form| form.form == wanted);
    }
    match &args.replay {
        Some(schedule) => play_again(&chosen[0], schedule, args.scene.as_deref()),
        None => Ok(worst(chosen.iter().map(|form| tell(form, args)))),
    }
}

/// The name, if it is known; else what is known, and which is nearest.
fn known_name<'a>(noun: &str, wrong: &str, known: &[&'a str]) -> Result<&'a str, Failure> {
    if let Some(name) = known.iter().find(|name| **name == wrong) {
        return Ok(name);
    }
    let guess = nearest(wrong, known.iter().copied())
        .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    Err(Failure::usage(anyhow!(
        "unknown {noun} `{wrong}`{guess} (known: {})",
        known.join(", ")
    )))
}

fn settings(args: &ModelArgs) -> (Settings, Choice) {
    let schedules = usize::try_from(args.schedules).unwrap_or(usize::MAX);
    let choice = if args.all {
        Choice::All
    } else {
        Choice::Seeded
    };
    (
        Settings {
            seed: args.seed,
            schedules,
        },
        choice,
    )
}

/// One line per form, and one per handshake.
fn list(args: &ModelArgs) -> u8 {
    let (settings, choice) = settings(args);
    println!(
        "seed {}, at most {} schedules; a repaired form: a {SILENT_SHARE}th in each scene\n",
        settings.seed, settings.schedules
    );
    line(["design", "form", "found by", "expected", "came to", "time"]);
    let mut codes = Vec::new();
    for form in forms() {
        let began = Instant::now();
        let trial = try_form(&form, settings, choice);
        let expected = match form.expect {
            Expect::Breaks(invariant) => invariant.to_string(),
            Expect::Silent => "silent".to_owned(),
        };
        line([
            form.design,
            form.form,
            form.by,
            &expected,
            &came_to(&form, &trial),
            &time(began),
        ]);
        codes.push(code(&trial.verdict));
    }
    for one in HANDSHAKES {
        let began = Instant::now();
        let explored = handshake::explore(one);
        let word = |overlooked| {
            if overlooked {
                "a pin overlooked"
            } else {
                "silent"
            }
        };
        let came_to = format!(
            "{} in {} executions: all",
            word(explored.overlooked),
            explored.executions
        );
        line([
            HANDSHAKE,
            one.name,
            "loom",
            word(one.expect_overlooked),
            &came_to,
            &time(began),
        ]);
        codes.push(if explored.overlooked == one.expect_overlooked {
            exit_code::OK
        } else {
            exit_code::SURPRISE
        });
    }
    worst(codes)
}

fn line(cells: [&str; 6]) {
    let mut text = String::new();
    for (cell, width) in cells.into_iter().zip([12, 22, 15, 26, 48, 0]) {
        let _ = write!(text, "{cell:<width$} ");
    }
    println!("{}", text.trim_end());
}

fn time(began: Instant) -> String {
    format!("{:.2} s", began.elapsed().as_secs_f64())
}

/// What a trial came to, in a few words.
fn came_to(form: &Form, trial: &Trial) -> String {
    match (&trial.verdict, &trial.told) {
        (Verdict::AsExpected, Some((_, found))) => format!(
            "schedule {} breaks {}",
            found.first_at, found.violation.invariant
        ),
        (Verdict::AsExpected, None) => {
            let all = if trial.exhausted > 0 {
                format!("; all of {}", trial.exhausted)
            } else {
                String::new()
            };
            format!(
                "silent in {} schedules of {} scenes{all}",
                trial.schedules,
                form.scenes.len()
            )
        }
        (Verdict::Surprise(how), _) => format!("NO: {how}"),
        (Verdict::TooFew(how), _) => format!("too few schedules: {how}"),
    }
}

/// A form, what is wrong with it, and the interleaving that shows it.
fn tell(form: &Form, args: &ModelArgs) -> u8 {
    let (settings, choice) = settings(args);
    let trial = try_form(form, settings, choice);
    println!("{} {} ({}): {}", form.design, form.form, form.by, form.says);
    println!("{}\n", came_to(form, &trial));
    if let Some((scene, found)) = &trial.told {
        show(form, scene, found);
    }
    code(&trial.verdict)
}

fn show(form: &Form, scene: &Scene, found: &Found) {
    print!("{}", table(scene, found));
    println!("{LEGEND}");
    println!(
        "replay: pincushion test model {} --form {} --scene {} --replay {}\n",
        form.design,
        form.form,
        scene.name,
        encode(&found.schedule)
    );
}

fn play_again(form: &Form, schedule: &str, scene: Option<&str>) -> Result<u8, Failure> {
    let steps = decode(schedule).map_err(Failure::usage)?;
    let names: Vec<&str> = form.scenes.iter().map(|scene| scene.name).collect();
    let name = known_name("scene", scene.unwrap_or(names[0]), &names)?;
    let scene = form
        .scenes
        .iter()
        .find(|scene| scene.name == name)
        .expect("its name was found");
    let outcome = replay(form, scene, &steps);
    let expected = match form.expect {
        Expect::Breaks(invariant) => Some(invariant),
        Expect::Silent => None,
    };
    let Some(found) = outcome.found.values().next() else {
        println!(
            "{} {}: this schedule breaks nothing",
            form.design, form.form
        );
        return Ok(if expected.is_none() {
            exit_code::OK
        } else {
            exit_code::INCONCLUSIVE
        });
    };
    show(form, scene, found);
    let is_expected = Some(found.violation.invariant) == expected;
    Ok(if is_expected {
        exit_code::OK
    } else {
        exit_code::SURPRISE
    })
}

fn tell_handshake() -> u8 {
    let codes = HANDSHAKES.map(|one| {
        let explored = handshake::explore(one);
        let side = |has| if has { "a barrier" } else { "no barrier" };
        println!(
            "{:<22} GUP: {}{}; write-back: {}\n    {} executions, all there are; {}",
            one.name,
            side(one.gup_barrier),
            if one.looks_again {
                ""
            } else {
                ", no second look"
            },
            side(one.write_back_barrier),
            explored.executions,
            if explored.overlooked {
                "in some GUP has a writable page and write-back sees no pin"
            } else {
                "no pin is overlooked"
            }
        );
        if explored.overlooked == one.expect_overlooked {
            exit_code::OK
        } else {
            exit_code::SURPRISE
        }
    });
    worst(codes)
}

fn code(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::AsExpected => exit_code::OK,
        Verdict::Surprise(_) => exit_code::SURPRISE,
        Verdict::TooFew(_) => exit_code::INCONCLUSIVE,
    }
}

/// A surprise outweighs what could not be established.
fn worst(codes: impl IntoIterator<Item = u8>) -> u8 {
    codes
        .into_iter()
        .fold(exit_code::OK, |worst, code| match (worst, code) {
            (exit_code::SURPRISE, _) | (_, exit_code::SURPRISE) => exit_code::SURPRISE,
            (worst, exit_code::OK) => worst,
            (_, code) => code,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_design_gets_the_nearest_and_all_known_ones() {
        let failure = known_name("design", "mapcont", &designs()).expect_err("it is misspelt");
        assert_eq!(failure.code, exit_code::BAD_ARGUMENTS);
        assert!(
            failure.said.starts_with(
                "unknown design `mapcont`; did you mean `mapcount`? (known: none, bias, "
            ),
            "{}",
            failure.said
        );
    }

    #[test]
    fn a_surprise_outweighs_too_few_schedules() {
        let (ok, few, surprise) = (exit_code::OK, exit_code::INCONCLUSIVE, exit_code::SURPRISE);
        assert_eq!(worst([ok, ok]), ok);
        assert_eq!(worst([few, ok]), few);
        assert_eq!(worst([few, surprise, few]), surprise);
    }
}
