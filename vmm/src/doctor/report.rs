//! All checks of `pincushion doctor`, each with the way out.

use std::path::Path;

use serde::Serialize;

use super::kvm::{KvmAbility, probe};
use crate::host_memory;
use crate::nested::is_inside;

/// How well a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As it should be.
    Good,
    /// Something else takes its place, or something optional is missing.
    Fair,
    /// Something needed is missing.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub health: Health,
    /// What was seen.
    pub seen: String,
    /// What to do about it; empty where nothing is to do.
    pub advice: String,
}

impl Check {
    fn good(name: &'static str, seen: String) -> Self {
        Self {
            name,
            health: Health::Good,
            seen,
            advice: String::new(),
        }
    }
}

/// Looks at everything that Pincushion needs from a host, or in the nested machine, where guests only run.
#[must_use]
pub fn examine() -> Vec<Check> {
    let ability = probe();
    if is_inside() {
        return examine_inside(&ability);
    }
    let needs_nested = !ability.runs_stock_kernels();
    vec![
        kvm(&ability),
        qemu(needs_nested),
        file_system_tools(),
        program(
            "apt-get",
            &["apt-get"],
            "not a Debian host: give kernels by path (--kernel PATH)",
        ),
        memory(),
        io_uring(),
    ]
}

fn examine_inside(ability: &KvmAbility) -> Vec<Check> {
    let here = "not needed inside the nested machine";
    let mut kvm = kvm(ability);
    if !ability.runs_stock_kernels() {
        kvm.health = Health::Missing;
        kvm.advice =
            "the nested machine cannot nest once more: report this with its console (--log FILE)"
                .into();
    }
    let mut tools = file_system_tools();
    if tools.health == Health::Missing {
        tools.health = Health::Fair;
        tools.advice = format!("{here} by `run`; scenarios bring them (`pincushion test run`)");
    }
    vec![
        kvm,
        Check::good("qemu", here.into()),
        tools,
        Check::good("apt-get", here.into()),
        Check {
            health: Health::Good,
            advice: String::new(),
            ..memory()
        },
        io_uring(),
    ]
}

fn file_system_tools() -> Check {
    program(
        "mke2fs and e2fsck",
        &["mke2fs", "e2fsck", "debugfs"],
        "install e2fsprogs: scenarios make and check their file systems with it",
    )
}

fn kvm(ability: &KvmAbility) -> Check {
    let (health, seen, advice) = match ability {
        KvmAbility::Full => (Health::Good, "runs stock kernels".into(), String::new()),
        KvmAbility::PayloadsOnly { fails_at, detail } => (
            Health::Fair,
            format!("opens, but fails at {fails_at} ({detail})"),
            "guests that boot Linux run in the nested machine (`pincushion nested -- CMD`); tests and the demo choose it by themselves".into(),
        ),
        KvmAbility::None { reason } => (
            Health::Fair,
            reason.clone(),
            "until then guests run in the nested machine (`pincushion nested -- CMD`)".into(),
        ),
    };
    Check {
        name: "kvm",
        health,
        seen,
        advice,
    }
}

fn qemu(needed: bool) -> Check {
    const INSTALL: &str = "apt-get install -y --no-install-recommends qemu-system-x86";
    match find_program("qemu-system-x86_64") {
        Some(path) => Check::good("qemu", path),
        None if !needed => Check::good("qemu", "not installed, not needed".into()),
        None => Check {
            name: "qemu",
            health: Health::Missing,
            seen: "not installed, and the nested machine needs it".into(),
            advice: format!("`{INSTALL}` (the demo and the tests do it when they are root)"),
        },
    }
}

fn program(name: &'static str, programs: &[&str], advice: &str) -> Check {
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| find_program(program).is_none())
        .collect();
    if missing.is_empty() {
        return Check::good(name, "found".into());
    }
    Check {
        name,
        health: Health::Missing,
        seen: format!("missing: {}", missing.join(", ")),
        advice: advice.into(),
    }
}

fn memory() -> Check {
    let available_kib = host_memory::available().unwrap_or(0) >> 10;
    let enough = available_kib >= 4 << 20;
    Check {
        name: "memory",
        health: if enough { Health::Good } else { Health::Fair },
        seen: format!("{} MiB available", available_kib >> 10),
        advice: if enough {
            String::new()
        } else {
            "the nested machine wants 4 GiB: run fewer guests at once (--jobs 1)".into()
        },
    }
}

fn io_uring() -> Check {
    match ::io_uring::IoUring::new(2) {
        Ok(_) => Check::good("io_uring", "allowed".into()),
        Err(error) => Check {
            name: "io_uring",
            health: Health::Fair,
            seen: format!("refused: {error}"),
            advice: "disks with backend=uring do not work here; backend=file does".into(),
        },
    }
}

fn find_program(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(
            ["/usr/sbin", "/sbin"]
                .iter()
                .map(|dir| Path::new(dir).to_owned()),
        )
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .map(|found| found.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_good_has_a_way_out() {
        for check in examine() {
            assert!(
                check.health == Health::Good || !check.advice.is_empty(),
                "{check:?}"
            );
        }
    }
}
