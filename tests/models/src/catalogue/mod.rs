//! All designs in all forms: what each is, who found what is wrong with it, in which scene it shows, and what is expected of a search.

mod adopted;
mod counters;
mod structures;

use std::fmt;
use std::sync::Arc;

use crate::actors::writeback::{Asked, Policy};
use crate::design::Design;
use crate::invariant::Invariant;
use crate::scene::{self, Scene};
use crate::state::Mark;

/// What a search is expected to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It finds a schedule that breaks this.
    Breaks(Invariant),
    /// It finds nothing in any of the scenes, and they reach what they have to.
    Silent,
}

/// One form of a design and the scenes that try it.
#[derive(Clone)]
pub struct Form {
    /// The design's name; [`model_of`] has it by that of a kernel's design.
    pub design: &'static str,
    /// The form's name.
    pub form: &'static str,
    /// Who found the race, or who has drawn the form if history knows none.
    pub by: &'static str,
    /// What it is, or what is wrong with it.
    pub says: &'static str,
    /// What is expected.
    pub expect: Expect,
    /// Where it is tried.
    pub scenes: Vec<Scene>,
    build: Arc<dyn Fn() -> Arc<dyn Design> + Send + Sync>,
}

impl Form {
    /// The design, as it is before anybody pinned anything.
    #[must_use]
    pub fn design(&self) -> Arc<dyn Design> {
        (self.build)()
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.design, self.form)
    }
}

/// All forms, in the order of the tables.
#[must_use]
pub fn forms() -> Vec<Form> {
    [
        adopted::none(),
        adopted::bias(),
        counters::field(),
        counters::flag(),
        counters::mapping(),
        counters::flag_mapping(),
        adopted::typed(),
        counters::mapcount(),
        counters::lru(),
        structures::tree(),
        structures::aux(),
        structures::proxy(),
        structures::dynamic(),
    ]
    .concat()
}

/// The names of the designs, each once, in the order of the tables.
#[must_use]
pub fn designs() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = forms().iter().map(|form| form.design).collect();
    names.dedup();
    names
}

/// The model of what a kernel calls `pin_tracking=NAME`, if it is called otherwise here.
#[must_use]
pub fn model_of(kernels: &str) -> &str {
    match kernels {
        "flag+ext" => "flag",
        "lru+july" => "lru",
        same => same,
    }
}

/// A race that the archives have, by whose mail.
const HUBBARD: &str = "Hubbard 2018";
const KARA: &str = "Kara 2018";
const GLISSE: &str = "Glisse 2018-19";
const WILLIAMS: &str = "Williams 2018";
/// A form that nobody posted: what the drawing, or carelessness, would come to.
const DRAWN: &str = "drawn here";
/// The form that the kernel of our series carries.
const OURS: &str = "our kernel";

/// What a form is called, who found it, and what there is to say of it.
struct Words {
    form: &'static str,
    by: &'static str,
    says: &'static str,
}

fn words(form: &'static str, by: &'static str, says: &'static str) -> Words {
    Words { form, by, says }
}

/// Makes the forms of the design of this name.
#[derive(Clone, Copy)]
struct Of(&'static str);

impl Of {
    fn broken<D: Design + 'static>(
        self,
        words: Words,
        breaks: Invariant,
        scene: Scene,
        build: impl Fn() -> D + Send + Sync + 'static,
    ) -> Form {
        self.form(words, Expect::Breaks(breaks), vec![scene], build)
    }

    fn repaired<D: Design + 'static>(
        self,
        words: Words,
        scenes: Vec<Scene>,
        build: impl Fn() -> D + Send + Sync + 'static,
    ) -> Form {
        self.form(words, Expect::Silent, scenes, build)
    }

    fn form<D: Design + 'static>(
        self,
        Words { form, by, says }: Words,
        expect: Expect,
        scenes: Vec<Scene>,
        build: impl Fn() -> D + Send + Sync + 'static,
    ) -> Form {
        Form {
            design: self.0,
            form,
            by,
            says,
            expect,
            scenes,
            build: Arc::new(move || Arc::new(build())),
        }
    }
}

/// What each repaired form has to stand, whatever its history.
fn common_scenes() -> Vec<Scene> {
    let after = Asked::AfterMkclean;
    vec![
        scene::write_back_of_a_held_page(Policy::Skip, after),
        scene::write_back_of_a_held_page(Policy::Wait, after),
        scene::write_back_of_a_held_page(Policy::Bounce, after),
        scene::write_back_and_a_clean_unpin(Policy::Bounce),
        scene::two_pins(Policy::Bounce),
        scene::plain_reference(Policy::Bounce),
        scene::many_references(Policy::Bounce),
        scene::fork_and_exit(Policy::Bounce),
        scene::fork_under_fsync(Policy::Bounce),
        scene::truncation(),
        scene::reclaim_of_a_held_page(Policy::Bounce),
        scene::migration(),
        scene::interrupt(Policy::Bounce).reaching(&[Mark::AskedWhileHeld]),
    ]
}

/// The common scenes, and those that only this design can stand.
fn common_and(more: Vec<Scene>) -> Vec<Scene> {
    [common_scenes(), more].concat()
}
