//! Scenario files: what they say ([`model`]), which there are ([`catalogue`]), and how they are read and refused.

mod awaited;
mod based;
pub mod catalogue;
mod check;
mod condition;
mod content;
pub mod control_step;
mod expectation;
mod host_step;
mod interpolate;
mod load;
pub mod model;
mod names;
mod needs;
mod only;
mod outcome;
pub mod power_cut;
mod variant;

pub use condition::{REFUSED, holds};
pub(crate) use expectation::word as verdict_word;
pub use expectation::{Comparison, compare_on, expected_for};
pub use interpolate::{Missing, Values, fill, placeholders};
pub use load::{LoadError, parse, parse_all};
pub use model::Scenario;
pub use outcome::unmet;
