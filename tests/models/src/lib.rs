//! One small model per design that was ever proposed for telling pinned pages from others, and the search for schedules that break it.
//!
//! For: seeing in a second, as a table of steps, the race for which a design was sent back, and that its repaired form has it no more.
//! A model has one page of a file, two page tables, one disk, and actors that are written after the kernel's own functions step by step.
//! `shuttle` decides who takes the next step; each step is one atomic access and is seen by all at once.
//!
//! Promises: the same seed gives the same search and the same table; a search that found something names the invariant and the schedule.
//! Does not promise: that a design is right. Silence covers the schedules tried, of actors that were written down here. Orders of memory
//! accesses are not in these models: [`handshake`] asks loom about them, and `litmus/` asks the kernel's own memory model.

pub mod actors;
pub mod catalogue;
pub mod cpu;
pub mod design;
pub mod designs;
mod director;
pub mod explore;
pub mod handshake;
pub mod invariant;
pub mod page;
pub mod scene;
pub mod schedule;
pub mod state;
pub mod table;
pub mod trial;
