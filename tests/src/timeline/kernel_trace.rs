//! The kernel's own trace (tracefs), as a scenario had the guest read it: by which calls a function was reached.

use serde::Deserialize;

/// `kernel-trace`: text of `/sys/kernel/tracing/trace` with stacks behind its events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KernelTrace {
    /// What was traced, for people: "the fsync".
    pub what: String,
    /// The text.
    pub text: String,
}

impl KernelTrace {
    /// The stack of each event, innermost function first, without offsets.
    ///
    /// An event's line names the probed function, `cleans: (folio_clear_dirty_for_io+0x0/0x2c0)`; below it stands `<stack trace>`, and a line
    /// ` => FUNCTION` for each caller. The probed function leads its own stack or not, by the kind of probe.
    #[must_use]
    pub fn stacks(&self) -> Vec<Vec<&str>> {
        let mut stacks: Vec<Vec<&str>> = Vec::new();
        let mut probed = None;
        for line in self.text.lines() {
            if let Some(function) = line.trim_start().strip_prefix("=> ") {
                let Some(stack) = stacks.last_mut() else {
                    continue;
                };
                let name = name_of(function);
                if stack.last() != Some(&name) {
                    stack.push(name);
                }
            } else if line.contains("<stack trace>") {
                stacks.push(probed.take().into_iter().collect());
            } else if let Some((_, place)) = line.split_once(": (") {
                probed = Some(name_of(place));
            }
        }
        stacks
    }

    /// The stack to show: the first that a system call for durability led to, else the first.
    #[must_use]
    pub fn clearest(&self) -> Option<Vec<&str>> {
        let mut stacks = self.stacks();
        let is_of_sync = |stack: &Vec<&str>| stack.iter().any(|name| name.contains("sync"));
        let at = stacks.iter().position(is_of_sync).unwrap_or_default();
        (at < stacks.len()).then(|| stacks.swap_remove(at))
    }
}

/// `do_fsync` of `do_fsync+0x38/0x60`, and of `do_fsync`.
fn name_of(place: &str) -> &str {
    let end = place.find(['+', ')', ' ']).unwrap_or(place.len());
    &place[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# tracer: nop\n#\n\
        kworker/u2:1-30 [000] ..... 11.2: cleans: (folio_clear_dirty_for_io+0x0/0x2c0)\n\
        kworker/u2:1-30 [000] ..... 11.2: <stack trace>\n => wb_writeback\n => worker_thread\n\
        agent-71 [000] ..... 12.5: cleans: (folio_clear_dirty_for_io+0x0/0x2c0)\n\
        agent-71 [000] ..... 12.5: <stack trace>\n => folio_clear_dirty_for_io+0x1\n => ext4_sync_file+0x20/0x90\n => do_fsync\n";

    fn trace(text: &str) -> KernelTrace {
        KernelTrace {
            what: "the fsync".into(),
            text: text.into(),
        }
    }

    #[test]
    fn a_stack_begins_with_the_function_that_was_probed_and_has_it_once() {
        let trace = trace(TEXT);
        assert_eq!(
            trace.stacks(),
            [
                vec!["folio_clear_dirty_for_io", "wb_writeback", "worker_thread"],
                vec!["folio_clear_dirty_for_io", "ext4_sync_file", "do_fsync"]
            ]
        );
        assert_eq!(trace.clearest().unwrap()[1], "ext4_sync_file");
    }

    #[test]
    fn a_text_that_is_no_trace_has_no_stack() {
        for text in ["", "=> a", "<stack trace>", "cleans: (f"] {
            assert!(trace(text).stacks().concat().is_empty(), "{text}");
        }
        assert_eq!(trace("").clearest(), None);
    }
}
