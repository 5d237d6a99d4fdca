//! `aux` (D8): a side structure with the count, reached by `page->private`, which holds the file system's pointer from then on (John Hubbard,
//! December 2018).
//!
//! Nobody posted it in a form that runs; the form here is the drawing taken at its word. The word that GUP replaces belongs to the file
//! system, which knows nothing of it: reclaim detaches its buffers and takes the count with them, and two first pins each bring a structure.
//! Repaired: one compare-and-exchange installs it, the file system detaches through it, and it stays until the page is freed.

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Own, Pin, not_zero, pin_ref, unpin_ref};

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Read, allocate, store.
    Stored,
    /// Installed once, kept, and known to the file system.
    Installed,
}

/// What the word holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Private {
    /// Nothing, or what the file system put there.
    FileSystem,
    /// The structure with this number.
    Aux(usize),
}

#[derive(Debug)]
struct Fields {
    private: Private,
    /// The count of each structure ever made.
    counts: Vec<i64>,
}

/// The design.
#[derive(Debug)]
pub struct Aux {
    form: Form,
    own: Own<Fields>,
}

impl Aux {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            own: Own::new(Fields {
                private: Private::FileSystem,
                counts: Vec::new(),
            }),
        }
    }

    fn look(&self, cpu: &Cpu, verb: &'static str) -> Private {
        cpu.tell(|_| {
            let private = self.own.get().private;
            let word = match private {
                Private::FileSystem => "the fs's".to_owned(),
                Private::Aux(number) => format!("aux {number}"),
            };
            (private, format!("{verb}: private is {word}"))
        })
    }

    fn install(&self, cpu: &Cpu) -> usize {
        cpu.tell(|_| {
            let mut own = self.own.get();
            if let (Form::Installed, Private::Aux(number)) = (self.form, own.private) {
                return (number, format!("grab: cmpxchg lost to aux {number}"));
            }
            let number = own.counts.len();
            own.counts.push(0);
            own.private = Private::Aux(number);
            (number, format!("grab: private = new aux {number}"))
        })
    }
}

impl Design for Aux {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        pin_ref(cpu)?;
        let number = match self.look(cpu, "grab") {
            Private::Aux(number) => number,
            Private::FileSystem => self.install(cpu),
        };
        cpu.step(format!("grab: aux {number} count+1"), |_| {
            self.own.get().counts[number] += 1
        });
        Ok(Pin(0))
    }

    fn unpin(&self, cpu: &Cpu, _pin: Pin) {
        // By the page, as the drawing has it: a caller keeps a page and nothing else.
        if let Private::Aux(number) = self.look(cpu, "unpin") {
            cpu.step(format!("unpin: aux {number} count-1"), |_| {
                self.own.get().counts[number] -= 1
            });
        }
        unpin_ref(cpu);
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        match self.look(cpu, "pinned?") {
            Private::FileSystem => false,
            Private::Aux(number) => cpu.tell(|_| {
                let count = self.own.get().counts[number];
                (count > 0, format!("pinned? aux {number} count is {count}"))
            }),
        }
    }

    fn strip_private(&self, cpu: &Cpu) {
        cpu.step("detach private", |_| {
            if self.form == Form::Stored {
                self.own.get().private = Private::FileSystem;
            }
        });
    }

    fn left_over(&self) -> Option<String> {
        not_zero(
            "the sum of all side structures' counts",
            self.own.get().counts.iter().sum(),
        )
    }

    fn show(&self) -> String {
        let own = self.own.get();
        match own.private {
            Private::FileSystem => "fs".to_owned(),
            Private::Aux(number) => format!("aux{number} n={}", own.counts[number]),
        }
    }
}
