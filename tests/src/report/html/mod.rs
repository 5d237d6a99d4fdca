//! The HTML page: one file, no network, readable without scripts, in light and dark, from phone to desk.

mod evidence;
mod page;
mod view;

pub use page::{About, html};
