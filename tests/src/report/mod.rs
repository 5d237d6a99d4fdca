//! Reports: the same runs as a terminal table, JSON lines, JUnit XML, and one HTML page with a picture per guest frame.
//!
//! Events and judgements are the product; everything here is a view of them. No report decides anything.

mod html;
mod json_lines;
mod junit;
mod picture;
mod shown;
mod summary;
mod terminal;
mod words;

pub use html::{About, html};
pub use json_lines::json_lines;
pub use junit::junit;
pub use shown::shown;
pub use summary::{PromiseState, RunSummary};
pub use terminal::terminal;
