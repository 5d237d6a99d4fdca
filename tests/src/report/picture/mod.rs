//! The picture of one guest frame: who held it, in which direction, from when to when, when it was touched, what the guest did
//! meanwhile, and where a promise was broken.
//!
//! The axis is the order of events, evenly spaced, because the races are choreographed: a microsecond and a second
//! are as wide. Times stand in the labels. [`scene`] decides what is shown, with the help of [`axis`] and [`lanes`];
//! [`wide`] draws it from left to right for a desk, [`tall`] from top to bottom, one line per event, for a phone. Both
//! take their colours from the page.

mod axis;
mod lanes;
mod scene;
mod svg;
mod tall;
mod wide;

pub(super) use scene::Scene;
pub(super) use tall::tall;
pub(super) use wide::wide;
