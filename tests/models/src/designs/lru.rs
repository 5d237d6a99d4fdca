//! `lru` (D1): the pin count lies in the page's two list pointers, so a pinned page is off the lists of reclaim (John Hubbard, 2018).
//!
//! July's form counted in `get_page` and `put_page` of a page that is flagged: a reference that is older than the pin is dropped as if it
//! were the pin. November's form has a put of its own, but lowers the count before it takes the lock: between the two the page can be
//! pinned and let go again, and the count crosses zero twice. Repaired: the last count is lowered under the lock (`atomic_dec_and_lock`),
//! and a pin may add without the lock only to a count that is not zero.

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Own, Pin, ask_flag, pin_ref, unpin_ref};
use crate::invariant::Invariant;
use crate::state::{Lock, State};

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `get_page` and `put_page` count.
    July,
    /// `put_user_page` counts, and locks too late.
    November,
    /// `put_user_page` with `atomic_dec_and_lock`.
    Repaired,
}

#[derive(Debug, Default)]
struct Fields {
    flag: bool,
    count: i64,
}

/// The design.
#[derive(Debug)]
pub struct Lru {
    form: Form,
    own: Own<Fields>,
}

impl Lru {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            own: Own::default(),
        }
    }

    /// `PageDmaPinned` set, count 1, off the list: under the zone's lock. Who meets the flag there adds to the count.
    fn mark_pinned(&self, cpu: &Cpu) {
        cpu.step("flag, off the lru, count+1", |state| {
            let mut own = self.own.get();
            own.flag = true;
            own.count += 1;
            state.page.on_lru = false;
        });
    }

    /// The end of the last pin, under the zone's lock, with the assertions of the posted code.
    fn mark_unpinned(&self, cpu: &Cpu) {
        cpu.step("no flag, back on the lru", |state| {
            let mut own = self.own.get();
            if !own.flag || state.page.on_lru {
                state.violate(
                    Invariant::OwnAssertion,
                    "VM_BUG_ON: the page is on the lru already, and not flagged as pinned",
                );
            }
            own.flag = false;
            state.page.on_lru = true;
        });
    }

    fn is_flagged(&self, cpu: &Cpu) -> bool {
        cpu.tell(|_| {
            let flag = self.own.get().flag;
            (
                flag,
                if flag {
                    "flag is set"
                } else {
                    "flag is not set"
                },
            )
        })
    }

    /// Adds to a count that is not zero.
    fn count_up(&self, cpu: &Cpu) -> bool {
        cpu.tell(|_| {
            let mut own = self.own.get();
            let counted = own.count > 0;
            own.count += i64::from(counted);
            (
                counted,
                if counted {
                    "grab: count+1, it was not 0"
                } else {
                    "grab: count is 0"
                },
            )
        })
    }

    /// The count that July's `put_page` lowers: whoever's reference it was.
    fn july_put(&self, cpu: &Cpu) {
        cpu.tell(|state: &mut State| {
            let mut own = self.own.get();
            if !own.flag {
                return ((), "put: no flag");
            }
            own.count -= 1;
            if own.count > 0 {
                return ((), "put: flag; count-1");
            }
            own.flag = false;
            state.page.on_lru = true;
            ((), "put: flag; count-1 is 0: unpinned")
        });
        cpu.step("put: refcount-1", |state| state.put_refs(1));
    }
}

impl Design for Lru {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        pin_ref(cpu)?;
        match self.form {
            Form::July => self.mark_pinned(cpu),
            Form::November if self.is_flagged(cpu) => {
                cpu.step("grab: count+1", |_| self.own.get().count += 1)
            }
            Form::Repaired if self.count_up(cpu) => {}
            Form::November | Form::Repaired => {
                cpu.locked_irqsave(Lock::Own, || self.mark_pinned(cpu));
            }
        }
        Ok(Pin(0))
    }

    fn unpin(&self, cpu: &Cpu, _pin: Pin) {
        match self.form {
            Form::July => return self.july_put(cpu),
            Form::November => {
                let is_last = cpu.tell(|_| {
                    let mut own = self.own.get();
                    own.count -= 1;
                    (own.count == 0, format!("unpin: count-1 is {}", own.count))
                });
                if is_last {
                    cpu.locked_irqsave(Lock::Own, || self.mark_unpinned(cpu));
                }
            }
            Form::Repaired => self.dec_and_lock(cpu),
        }
        unpin_ref(cpu);
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        ask_flag(cpu, || self.own.get().flag)
    }

    fn get(&self, cpu: &Cpu) {
        if self.form == Form::July {
            cpu.tell(|state| {
                let mut own = self.own.get();
                state.page.refs += 1;
                own.count += i64::from(own.flag);
                (
                    (),
                    if own.flag {
                        "get: refcount+1; flag, count+1"
                    } else {
                        "get: refcount+1; no flag"
                    },
                )
            });
        } else {
            cpu.step("get: refcount+1", |state| state.page.refs += 1);
        }
    }

    fn put(&self, cpu: &Cpu) {
        if self.form == Form::July {
            self.july_put(cpu);
        } else {
            cpu.step("put: refcount-1", |state| state.put_refs(1));
        }
    }

    fn left_over(&self) -> Option<String> {
        let own = self.own.get();
        (own.flag || own.count != 0)
            .then(|| format!("the flag is {} and the count {}", own.flag, own.count))
    }

    fn show(&self) -> String {
        let own = self.own.get();
        format!("{}n={}", if own.flag { "flag " } else { "" }, own.count)
    }
}

impl Lru {
    fn dec_and_lock(&self, cpu: &Cpu) {
        let lowered = cpu.tell(|_| {
            let mut own = self.own.get();
            let lowered = own.count > 1;
            own.count -= i64::from(lowered);
            (
                lowered,
                if lowered {
                    "unpin: count-1, not the last"
                } else {
                    "unpin: count is 1: lock"
                },
            )
        });
        if lowered {
            return;
        }
        cpu.locked_irqsave(Lock::Own, || {
            let is_last = cpu.tell(|_| {
                let mut own = self.own.get();
                own.count -= 1;
                (own.count == 0, format!("unpin: count-1 is {}", own.count))
            });
            if is_last {
                self.mark_unpinned(cpu);
            }
        });
    }
}
