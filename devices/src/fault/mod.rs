//! Faults: plain data ([`Plan`]), who decides, and who lets go.

pub mod plan;

pub use plan::{Plan, Rule};
