//! `mapcount` (D6): a pin raises the mapcount; write-back counts the page tables that really map the page, and more mapcount is a pin
//! (Jerome Glisse, December 2018).
//!
//! Two things break it. Every place that compares refcount and mapcount is fooled, since a pin raises both: migration moves a page under a
//! device. And the two numbers of the question are read one after the other: a child that ends in between takes the difference away; a
//! second look at the mapcount does not help when a fork and an exit cancel out. Repaired: migration counts page tables too, and the
//! question is asked again while a sequence number of the reverse map moves.

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Own, Pin};
use crate::page::{CHILD, PARENT, Pte};

/// How the question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The page tables, then the mapcount.
    Torn,
    /// The mapcount before and after.
    ReadTwice,
    /// A sequence number before and after.
    Sequence,
}

/// How migration decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// It compares refcount with mapcount, as the kernel did.
    Missing,
    /// It counts page tables.
    Done,
}

/// The design.
#[derive(Debug)]
pub struct Mapcount {
    count: Count,
    audit: Audit,
    sequence: Own<u32>,
}

impl Mapcount {
    /// In a form.
    #[must_use]
    pub fn new(count: Count, audit: Audit) -> Self {
        Self {
            count,
            audit,
            sequence: Own::new(0),
        }
    }

    /// The reverse map's walk: one page table after the other.
    fn count_page_tables(cpu: &Cpu) -> i64 {
        let mut count = 0;
        for who in [PARENT, CHILD] {
            count += cpu.tell(|state| {
                let maps = state.page.ptes[who] != Pte::None;
                let (whose, word) = (
                    ["parent", "child"][who],
                    if maps { "maps it" } else { "does not" },
                );
                (i64::from(maps), format!("pinned? rmap: {whose} {word}"))
            });
        }
        count
    }

    fn mapcount(cpu: &Cpu) -> i64 {
        cpu.tell(|state| {
            (
                state.page.mapcount,
                format!("pinned? mapcount is {}", state.page.mapcount),
            )
        })
    }

    fn sequence(&self, cpu: &Cpu) -> u32 {
        cpu.tell(|_| {
            let sequence = *self.sequence.get();
            (sequence, format!("pinned? sequence is {sequence}"))
        })
    }
}

impl Design for Mapcount {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        cpu.tell(|state| {
            if state.page.refs <= 0 {
                return (Err(BackOff), "grab: refcount is 0");
            }
            state.page.refs += 1;
            state.page.mapcount += 1;
            (Ok(Pin(0)), "grab: refcount+1, mapcount+1")
        })
    }

    fn unpin(&self, cpu: &Cpu, _pin: Pin) {
        cpu.step("unpin: mapcount-1, refcount-1", |state| {
            state.page.mapcount -= 1;
            state.put_refs(1);
        });
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        while !cpu.is_over() {
            match self.count {
                Count::Torn => {
                    let real = Self::count_page_tables(cpu);
                    return Self::mapcount(cpu) > real;
                }
                Count::ReadTwice => {
                    let before = Self::mapcount(cpu);
                    let real = Self::count_page_tables(cpu);
                    if Self::mapcount(cpu) == before {
                        return before > real;
                    }
                }
                Count::Sequence => {
                    let before = self.sequence(cpu);
                    let real = Self::count_page_tables(cpu);
                    let mapcount = Self::mapcount(cpu);
                    if self.sequence(cpu) == before {
                        return mapcount > real;
                    }
                }
            }
        }
        true
    }

    fn may_move(&self, cpu: &Cpu) -> bool {
        cpu.tell(|state| {
            let page = &state.page;
            // The file's, migration's own, and one for each mapping that is left.
            let mappings = match self.audit {
                Audit::Missing => page.mapcount,
                Audit::Done => page.real_mappings(),
            };
            let (refs, expected) = (page.refs, 2 + mappings);
            let word = if refs == expected {
                "may move"
            } else {
                "in use"
            };
            (
                refs == expected,
                format!("refcount {refs}, expected {expected}: {word}"),
            )
        })
    }

    fn remapped(&self) {
        *self.sequence.get() += 1;
    }

    fn left_over(&self) -> Option<String> {
        None
    }

    fn show(&self) -> String {
        match self.count {
            Count::Torn | Count::ReadTwice => "in map".to_owned(),
            Count::Sequence => format!("in map, seq {}", self.sequence.get()),
        }
    }
}
