//! Which pages of a region the guest has stored to, by KVM's dirty log.
//!
//! Promises that a store before [`StoreLog::take`] is in its answer or in that of a later call, never in none: KVM clears its notes and only then
//! write-protects the pages again, and the caller reads the pages afterwards. Where KVM cannot say, as for the first question to a
//! new VM, the answer is that any page may have been stored to. It knows nothing of what devices write.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use kvm_ioctls::VmFd;

/// The notes of one region.
#[derive(Debug, Default)]
pub(crate) struct StoreLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The present VM, and the region's slot in it.
    source: Option<(Weak<VmFd>, u32)>,
    /// All stores so far were told. A VM that went took its last notes with it.
    is_complete: bool,
}

impl StoreLog {
    /// From now on this VM has the region.
    pub(crate) fn connect(&self, vm: &Arc<VmFd>, slot: u32) {
        *self.lock() = State {
            source: Some((Arc::downgrade(vm), slot)),
            is_complete: false,
        };
    }

    /// Pages stored to since the last call, of a region of `len` bytes; `None`: any.
    pub(crate) fn take(&self, len: usize) -> Option<Vec<u64>> {
        let mut state = self.lock();
        let (vm, slot) = state.source.as_ref()?;
        let Some(vm) = vm.upgrade() else {
            *state = State::default();
            return None;
        };
        let pages = match vm.get_dirty_log(*slot, len) {
            Ok(pages) => pages,
            Err(error) => {
                log::debug!("KVM_GET_DIRTY_LOG of slot {slot}: {error}");
                return None;
            }
        };
        std::mem::replace(&mut state.is_complete, true).then_some(pages)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_machine_any_page_may_have_been_stored_to() {
        assert_eq!(StoreLog::default().take(1 << 21), None);
    }
}
