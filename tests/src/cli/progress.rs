//! Progress on standard error: a line per run, or per step, the same on a terminal and in a pipe.

use pincushion_vmm::program::complain;

use crate::report::RunSummary;
use crate::suite::{Item, Progress, WARM_UP};

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// A line per run.
    Runs,
    /// A line per step too.
    Steps,
}

/// Tells on standard error; reports own standard output.
#[derive(Debug)]
pub(super) struct ToStderr {
    pub(super) detail: Detail,
    /// Several runs at once: each line says whose it is.
    pub(super) is_mixed: bool,
}

impl ToStderr {
    fn say(&self, text: &str) {
        complain(text);
    }

    fn whose(&self, item: &Item) -> String {
        if self.is_mixed {
            format!("{} on {}: ", item.scenario.name, item.kernel)
        } else {
            String::new()
        }
    }
}

impl Progress for ToStderr {
    fn note(&self, text: &str) {
        self.say(&format!("-- {text}"));
    }

    fn line(&self, item: &Item, line: &str) {
        if self.detail == Detail::Steps {
            self.say(&format!("   {}{line}", self.whose(item)));
        }
    }

    fn began(&self, item: &Item) {
        if self.detail == Detail::Steps {
            self.say(&format!(
                ">> {} on {}: {}",
                item.scenario.name, item.kernel, item.scenario.summary
            ));
        }
    }

    fn ended(&self, item: &Item, summary: &RunSummary, surprise: Option<&str>) {
        let mark = if summary.as_expected { "ok" } else { "NO" };
        let repeat = match item.repeat {
            WARM_UP => " (to warm up)".to_owned(),
            1 => String::new(),
            repeat => format!(" (run {repeat})"),
        };
        self.say(&format!(
            "{mark} {} on {}{repeat}: {} in {}",
            item.scenario.name,
            item.kernel,
            summary.seen(),
            summary.time()
        ));
        if let Some(surprise) = surprise {
            self.say(&format!("   {surprise}"));
            if summary.run_dir.is_dir() {
                self.say(&format!("   evidence: {}", summary.run_dir.display()));
            }
        }
    }
}
