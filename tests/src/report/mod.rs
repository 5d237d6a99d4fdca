//! Reports: the same runs as a terminal table, a card of all kernels (also as Markdown), JSON, JUnit XML, KTAP, and one HTML
//! page with a picture per guest frame.
//!
//! Events and judgements are the product; everything here is a view of them. No report decides anything.

mod card;
mod html;
mod json_lines;
mod junit;
mod ktap;
pub(crate) mod markdown;
mod picture;
mod shown;
mod summary;
mod terminal;
mod words;

pub use card::{Card, CellState, card_text};
pub use html::{About, html};
pub use json_lines::json_lines;
pub use junit::junit;
pub use ktap::ktap;
pub use markdown::card_markdown;
pub use shown::shown;
#[cfg(test)]
pub(crate) use summary::example;
pub use summary::{AboutScenario, PromiseState, RunSummary};
pub use terminal::{surprises, terminal};
