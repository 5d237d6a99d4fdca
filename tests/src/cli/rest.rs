//! What a stopped suite has left to do, as command lines.

use std::collections::BTreeMap;

use clap::ValueEnum;

use super::run::HowArgs;
use crate::rundir::quoted;
use crate::suite::Item;

/// Lines that do just these items. Scenarios with the same kernels, as often on each, share a line.
pub(super) fn rest(items: &[&Item], seed: u64, how: &HowArgs) -> Vec<String> {
    let mut scenarios: Vec<(String, BTreeMap<&str, u32>)> = Vec::new();
    for item in items {
        let name = match &item.file {
            Some(path) => format!("--scenario {}", quoted(&path.to_string_lossy())),
            None => item.scenario.name.clone(),
        };
        let at = scenarios.iter().position(|(known, _)| *known == name);
        let at = at.unwrap_or_else(|| {
            scenarios.push((name, BTreeMap::new()));
            scenarios.len() - 1
        });
        *scenarios[at].1.entry(&item.kernel).or_default() += 1;
    }
    let mut lines: Vec<(u32, Vec<&str>, Vec<&str>)> = Vec::new();
    for (name, kernels) in &scenarios {
        let mut by_count = BTreeMap::<u32, Vec<&str>>::new();
        for (kernel, count) in kernels {
            by_count.entry(*count).or_default().push(kernel);
        }
        for (count, kernels) in by_count {
            let same = |line: &&mut (u32, Vec<&str>, _)| line.0 == count && line.1 == kernels;
            match lines.iter_mut().find(same) {
                Some(line) => line.2.push(name),
                None => lines.push((count, kernels, vec![name])),
            }
        }
    }
    let flags = flags(seed, how);
    lines
        .into_iter()
        .map(|(count, kernels, names)| line(count, &kernels, &names, &flags))
        .collect()
}

fn line(count: u32, kernels: &[&str], names: &[&str], flags: &str) -> String {
    let mut line = format!("pincushion test run {}", names.join(" "));
    for kernel in kernels {
        line += &format!(" --kernel {}", quoted(kernel));
    }
    if count > 1 {
        line += &format!(" --repeat {count}");
    }
    line + flags
}

/// Those that are not as by default.
pub(super) fn flags(seed: u64, how: &HowArgs) -> String {
    let place = how.place.to_possible_value();
    let place = place.as_ref().map_or("auto", |value| value.get_name());
    [
        (seed != 0).then(|| format!(" --seed {seed}")),
        (how.jobs != 1).then(|| format!(" --jobs {}", how.jobs)),
        (place != "auto").then(|| format!(" --place {place}")),
        how.keep.then(|| " --keep".to_owned()),
        how.fresh.then(|| " --fresh".to_owned()),
        how.verbose.then(|| " --verbose".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{PlaceChoice, Selection, select};

    #[test]
    fn lines_do_what_is_left_and_nothing_else() {
        let selection = Selection {
            names: vec!["boot-1-cpu".into(), "boot-2-cpu".into()],
            kernels: vec!["debian:6.12".into(), "my kernel".into()],
            repeat: 2,
            ..Selection::default()
        };
        let items = select(&selection).unwrap();
        let mut how = HowArgs {
            jobs: 1,
            place: PlaceChoice::Auto,
            keep: false,
            fresh: false,
            verbose: false,
        };
        let all: Vec<&Item> = items.iter().collect();
        assert_eq!(
            rest(&all, 0, &how),
            [
                "pincushion test run boot-1-cpu boot-2-cpu --kernel debian:6.12 --kernel 'my kernel' --repeat 2"
            ]
        );
        how.fresh = true;
        assert!(rest(&all, 0, &how)[0].ends_with(" --fresh"));
        how.fresh = false;
        (how.jobs, how.place) = (2, PlaceChoice::Nested);
        assert_eq!(
            rest(&all[1..], 7, &how),
            [
                "pincushion test run boot-1-cpu --kernel debian:6.12 --seed 7 --jobs 2 --place nested",
                "pincushion test run boot-1-cpu --kernel 'my kernel' --repeat 2 --seed 7 --jobs 2 --place nested",
                "pincushion test run boot-2-cpu --kernel debian:6.12 --kernel 'my kernel' --repeat 2 --seed 7 --jobs 2 --place nested",
            ]
        );
    }
}
