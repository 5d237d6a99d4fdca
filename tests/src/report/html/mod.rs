//! The HTML page: one file, no network, readable without scripts, in light and dark, from phone to desk.

mod card_view;
mod evidence;
mod page;
mod view;

pub use page::{About, html};
