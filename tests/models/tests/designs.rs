//! Each design: its broken forms are caught by name, its repaired forms are silent where silence says something.

use pincushion_models::catalogue::{Expect, Form, designs, forms};
use pincushion_models::explore::{Settings, exhaust, replay, search};
use pincushion_models::scene::Scene;
use pincushion_models::schedule::{decode, encode};
use pincushion_models::table::table;
use pincushion_models::trial::{Choice, SILENT_SHARE, Trial, Verdict, try_form};

const SEED: u64 = 7;
const SCHEDULES: usize = 20_000;
const SILENT_SCHEDULES: usize = 600;

fn forms_of(design: &str) -> Vec<Form> {
    forms()
        .into_iter()
        .filter(|form| form.design == design)
        .collect()
}

fn form_of(design: &str, form: &str) -> Form {
    forms_of(design)
        .into_iter()
        .find(|known| known.form == form)
        .expect("the catalogue has it")
}

fn tried(form: &Form, schedules: usize) -> Trial {
    try_form(
        form,
        Settings {
            seed: SEED,
            schedules,
        },
        Choice::Seeded,
    )
}

/// Each broken form of the design breaks what history says, and the schedule that is printed breaks it again.
fn is_caught(design: &str) {
    let mut caught = 0;
    for form in forms_of(design) {
        let Expect::Breaks(invariant) = form.expect else {
            continue;
        };
        let trial = tried(&form, SCHEDULES);
        assert_eq!(trial.verdict, Verdict::AsExpected, "{form:?}");
        let (scene, found) = trial.told.expect("what broke is told");
        assert_eq!(found.violation.invariant, invariant, "{form:?}");
        let printed = encode(&found.schedule);
        let again = replay(&form, &scene, &decode(&printed).expect("our own text"));
        let again = again
            .found
            .get(&invariant)
            .expect("a replay breaks the same");
        assert_eq!(
            table(&scene, again),
            table(&scene, &found),
            "{form:?}: {printed} tells the same"
        );
        caught += 1;
    }
    assert!(caught > 0, "{design} has a broken form");
}

/// Each repaired form is silent in each of its scenes, and each scene reaches what would show a fault.
fn is_silent(design: &str) {
    let mut silent = 0;
    for form in forms_of(design)
        .iter()
        .filter(|form| form.expect == Expect::Silent)
    {
        let trial = tried(form, SILENT_SCHEDULES * SILENT_SHARE);
        let told = trial
            .told
            .map(|(scene, found)| table(&scene, &found))
            .unwrap_or_default();
        assert_eq!(trial.verdict, Verdict::AsExpected, "{form:?}\n{told}");
        assert_eq!(
            trial.schedules,
            SILENT_SCHEDULES * form.scenes.len(),
            "{form:?}"
        );
        silent += 1;
    }
    assert!(silent > 0, "{design} has a repaired form");
}

/// A silence is worth something where a broken form was loud: there each repaired form gets at least three times as many schedules as it took.
fn is_silent_where_others_were_loud(design: &str) {
    let mut compared = 0;
    for broken in forms_of(design) {
        let Expect::Breaks(invariant) = broken.expect else {
            continue;
        };
        let (scene, found) = tried(&broken, SCHEDULES).told.expect("what broke is told");
        let settings = Settings {
            seed: SEED,
            schedules: SILENT_SCHEDULES.max(3 * found.first_at),
        };
        for sound in forms_of(design) {
            let same = |known: &&Scene| known.name == scene.name;
            let Some(scene) = sound.scenes.iter().find(same) else {
                continue;
            };
            if sound.expect == Expect::Silent {
                let outcome = search(&sound, scene, settings, None);
                assert!(
                    !outcome.found.contains_key(&invariant),
                    "{sound:?} is broken as {broken:?} was, after {} schedules of {}",
                    outcome.schedules,
                    settings.schedules
                );
                compared += 1;
            }
        }
    }
    assert!(
        compared > 0,
        "{design} has a repaired form where a broken one was caught"
    );
}

/// Three tests for each design, so that a failure names it.
macro_rules! designs {
    ($($module:ident: $design:literal),* $(,)?) => {
        const NAMED_HERE: &[&str] = &[$($design),*];
        $(mod $module {
            #[test]
            fn its_broken_forms_are_caught() {
                super::is_caught($design);
            }

            #[test]
            fn its_repaired_forms_are_silent() {
                super::is_silent($design);
            }

            #[test]
            fn its_repaired_forms_are_silent_for_longer_than_it_took_to_find_what_was_wrong() {
                super::is_silent_where_others_were_loud($design);
            }
        })*
    };
}

designs!(
    none: "none",
    bias: "bias",
    field: "field",
    flag: "flag",
    mapping: "mapping",
    flag_mapping: "flag+mapping",
    typed: "typed",
    mapcount: "mapcount",
    lru: "lru",
    tree: "tree",
    aux: "aux",
    proxy: "proxy",
    dynamic: "dynamic",
);

#[test]
fn no_design_is_left_out_here() {
    assert_eq!(designs(), NAMED_HERE);
}

#[test]
fn the_page_about_models_has_each_form_in_its_designs_row() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/models.md");
    let page = std::fs::read_to_string(page).expect("docs/models.md");
    for form in forms() {
        let head = format!("| `{}` ", form.design);
        let row = page
            .lines()
            .find(|line| line.starts_with(&head))
            .unwrap_or_default();
        assert!(row.contains(form.form), "{form:?} is missing in: {row}");
    }
}

#[test]
fn the_same_seed_finds_the_same_and_another_seed_another_way() {
    let form = form_of("lru", "july-2018");
    let run = |seed| {
        search(
            &form,
            &form.scenes[0],
            Settings {
                seed,
                schedules: 50,
            },
            None,
        )
    };
    let schedules = |seed| -> Vec<_> {
        run(seed)
            .found
            .into_values()
            .map(|found| (found.first_at, found.schedule))
            .collect()
    };
    assert_eq!(schedules(1), schedules(1));
    assert_ne!(schedules(1), schedules(2));
}

#[test]
fn a_silence_that_reached_nothing_is_not_taken_for_one() {
    let trial = tried(&form_of("bias", "upstream"), 1);
    assert!(
        matches!(trial.verdict, Verdict::TooFew(_)),
        "{:?}",
        trial.verdict
    );
}

#[test]
fn a_sound_form_that_breaks_is_a_surprise() {
    let mut form = form_of("lru", "july-2018");
    form.expect = Expect::Silent;
    let trial = tried(&form, SCHEDULES);
    assert_eq!(
        trial.verdict,
        Verdict::Surprise("I5 no-false-negative is broken in plain-reference".into())
    );
}

#[test]
fn every_interleaving_of_one_pin_and_write_back_that_skips_is_silent() {
    let form = form_of("bias", "upstream");
    let scene = form
        .scenes
        .iter()
        .find(|scene| scene.name == "write-back-skip")
        .expect("it is common");
    let outcome = exhaust(&form, scene, 200_000, None);
    assert!(
        outcome.is_exhaustive && outcome.schedules > 1000,
        "{} schedules, {:?}",
        outcome.schedules,
        outcome.found
    );
    assert_eq!(outcome.not_reached(scene), []);
}
