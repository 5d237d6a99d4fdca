//! `proxy` (D9): GUP gives out a tagged pointer to a proxy of the page, which has the count (Dan Williams and Dave Hansen, December 2018).
//!
//! An idea without code; the open question was who makes the proxy. The form here lets each GUP make one if it sees none: two do, the second
//! hides the first, and the first's pin with it. Repaired: a compare-and-exchange decides which, and a proxy that was emptied is not taken
//! away before the page is freed.

use super::numbered::Numbered;
use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Own, Pin, pin_ref, unpin_ref};

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Look, make, store.
    Stored,
    /// Look, make, compare and exchange.
    Exchanged,
}

/// The design.
#[derive(Debug)]
pub struct Proxy {
    form: Form,
    own: Own<Numbered>,
}

impl Proxy {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            own: Own::default(),
        }
    }

    fn make(&self, cpu: &Cpu) -> usize {
        cpu.tell(|_| {
            let mut own = self.own.get();
            if self.form == Form::Exchanged && own.current > 0 {
                return (own.current, format!("grab: lost to proxy {}", own.current));
            }
            let number = own.make(0);
            (number, format!("grab: makes proxy {number}"))
        })
    }
}

impl Design for Proxy {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        pin_ref(cpu)?;
        let seen = cpu.tell(|_| {
            let current = self.own.get().current;
            (current, format!("grab: proxy is {current}"))
        });
        let proxy = if seen == 0 { self.make(cpu) } else { seen };
        cpu.step(format!("grab: proxy {proxy} count+1"), |_| {
            *self.own.get().count_in(proxy) += 1
        });
        // The handle is the proxy itself.
        Ok(Pin(u32::try_from(proxy).unwrap_or(u32::MAX)))
    }

    fn unpin(&self, cpu: &Cpu, pin: Pin) {
        cpu.step(format!("unpin: proxy {} count-1", pin.0), |_| {
            *self.own.get().count_in(pin.0 as usize) -= 1
        });
        unpin_ref(cpu);
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        cpu.tell(|_| {
            let own = self.own.get();
            let count = own.count();
            (
                count > 0,
                format!("pinned? proxy {} count is {count}", own.current),
            )
        })
    }

    fn left_over(&self) -> Option<String> {
        self.own.get().left_over("proxies'")
    }

    fn show(&self) -> String {
        let own = self.own.get();
        format!("proxy={} n={:?}", own.current, own.counts)
    }
}
