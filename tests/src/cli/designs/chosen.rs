//! What was asked for: designs, policies and scenarios, the runs that they mean, and the table of them.

use pincushion_image::kernel::{Catalogue, KernelFiles, find_built};
use pincushion_image::{KernelSpec, Store};
use pincushion_vmm::program::complain;

use super::DesignsArgs;
use super::earlier::made_by;
use crate::cli::Failure;
use crate::cli::run::command_line;
use crate::designs::{
    About, Absent, BASELINE_DESIGN, Measured, Parts, ScenarioColumn, TAG, TAG_CHECK, TAG_COST,
    TAG_ONCE, Table,
};
use crate::report::RunSummary;
use crate::scenario::Scenario;
use crate::suite::{Item, Selection, SelectionError, WARM_UP, select, today};
use crate::verdict::Verdict;

/// Designs, policies and scenarios that were asked for; all of them exist.
pub(super) struct Chosen {
    designs: Vec<String>,
    policies: Vec<String>,
    /// What costs are compared with.
    pub(super) baseline: String,
}

impl Chosen {
    pub(super) fn of(args: &DesignsArgs) -> Result<Self, pincushion_image::Error> {
        let catalogue = Catalogue::read(&KernelFiles::of(None))?;
        for name in &args.design {
            catalogue.design(name)?;
        }
        for name in &args.policy {
            catalogue.policy(name)?;
        }
        let is_wanted =
            |wanted: &[String], name: &String| wanted.is_empty() || wanted.contains(name);
        let baseline = format!("design:{BASELINE_DESIGN}+{}", catalogue.policies[0]);
        let designs = catalogue.designs.into_iter().map(|design| design.name);
        Ok(Self {
            designs: designs
                .filter(|name| is_wanted(&args.design, name))
                .collect(),
            policies: catalogue
                .policies
                .into_iter()
                .filter(|name| is_wanted(&args.policy, name))
                .collect(),
            baseline,
        })
    }

    /// The designs whose kernels are missing: of what was chosen, and of what costs are compared with.
    pub(super) fn to_build(&self, store: &Store) -> Result<Vec<String>, Failure> {
        let mut wanted = self.designs.clone();
        if !wanted.iter().any(|design| design == BASELINE_DESIGN) {
            wanted.push(BASELINE_DESIGN.to_owned());
        }
        let (_, absent) = built_of(&wanted, store)?;
        Ok(absent.into_iter().map(|absent| absent.design).collect())
    }

    /// Those whose kernel is in the cache, and the others with the line that builds them.
    pub(super) fn built(&self, store: &Store) -> Result<(Vec<&String>, Vec<Absent>), Failure> {
        built_of(&self.designs, store)
    }

    /// All runs that the table wants, boot set by boot set.
    pub(super) fn items(
        &self,
        built: &[&String],
        repeat: u32,
    ) -> Result<Vec<Item>, SelectionError> {
        let mut items = Vec::new();
        for repeat in 1..=repeat {
            for (scenario, about) in scenarios()? {
                let mut kernels = Vec::new();
                for design in built {
                    let policies = match about {
                        Asked::Once => &self.policies[..1],
                        Asked::Check => &self.policies[self.policies.len() - 1..],
                        Asked::EachPolicy | Asked::Cost => &self.policies[..],
                    };
                    kernels.extend(policies.iter().map(|policy| kernel(design, policy)));
                }
                // Without it the others' costs are compared with nothing.
                if about == Asked::Cost && !kernels.contains(&self.baseline) {
                    kernels.insert(0, self.baseline.clone());
                }
                items.extend(kernels.into_iter().map(|kernel| Item {
                    scenario: scenario.clone(),
                    file: None,
                    kernel,
                    repeat,
                }));
            }
        }
        Ok(items)
    }

    /// With a run before those of each scenario whose measures count for nothing: in a machine that has just booted the first kernel is slower
    /// than the others.
    pub(super) fn warmed_up(&self, costs: Vec<Item>) -> Vec<Item> {
        let mut all: Vec<Item> = Vec::new();
        for item in costs {
            let is_first = !all.iter().any(|known| known.scenario == item.scenario);
            let warm_up = is_first.then(|| Item {
                kernel: self.baseline.clone(),
                repeat: WARM_UP,
                ..item.clone()
            });
            all.extend(warm_up.into_iter().chain([item]));
        }
        all
    }

    pub(super) fn table(
        &self,
        runs: &[RunSummary],
        made: &str,
        absent: Vec<Absent>,
    ) -> anyhow::Result<Table> {
        let all = scenarios()?;
        let rows: Vec<_> = self
            .designs
            .iter()
            .flat_map(|design| {
                let policies = self.policies.iter();
                policies.map(move |policy| (design.clone(), policy.clone(), kernel(design, policy)))
            })
            .filter(|(.., kernel)| runs.iter().any(|run| run.kernel == *kernel))
            .collect();
        let mut absent = absent;
        absent.retain(|absent| !rows.iter().any(|(design, ..)| *design == absent.design));
        let ours = |run: &&RunSummary| {
            let is_row = rows.iter().any(|(.., kernel)| *kernel == run.kernel);
            (is_row || run.kernel == self.baseline)
                && all
                    .iter()
                    .any(|(scenario, _)| scenario.name == run.scenario)
        };
        let runs: Vec<RunSummary> = runs.iter().filter(ours).cloned().collect();
        complain(format_args!(
            "-- reading what {} runs have measured, from their logs",
            runs.len()
        ));
        let measured: Vec<Measured> = runs
            .iter()
            .map(|run| {
                Measured::read(&run.run_dir).unwrap_or_else(|error| {
                    // What does not apply to a kernel is not run at all.
                    if run.judgement.verdict != Verdict::NotApplicable {
                        complain(format_args!(
                            "-- nothing is measured by {}: {}",
                            run.run_dir.display(),
                            crate::words(&error)
                        ));
                    }
                    Measured::default()
                })
            })
            .collect();
        let columns = all.iter().filter(|(scenario, about)| {
            matches!(about, Asked::EachPolicy | Asked::Once) && !scenario.promises.is_empty()
        });
        let columns: Vec<ScenarioColumn> = columns
            .map(|(scenario, about)| ScenarioColumn {
                scenario: scenario.name.clone(),
                number: scenario.number.clone(),
                file_systems: scenario.file_systems().join(", "),
                summary: scenario.summary.clone(),
                once: *about == Asked::Once,
            })
            .collect();
        let (runs_by, times) = made_by(&runs);
        let about = About {
            command: command_line(),
            date: today(),
            commit: crate::suite::workspace_commit(),
            made: format!("{} runs, {made}", runs.len()),
            runs_by,
            times,
        };
        let parts = Parts {
            rows: &rows,
            columns: &columns,
            runs: &runs,
            measured: &measured,
            baseline: &self.baseline,
        };
        let mut table = Table::of(&parts, about, absent);
        table.put_into_words();
        Ok(table)
    }
}

/// Puts the runs of one kernel one behind the other, so that its snapshots are still there for those like them.
pub(super) fn kernel_by_kernel(items: &mut [Item]) {
    let kernels = crate::each_once(items.iter().map(|item| &item.kernel));
    let kernels: Vec<String> = kernels.into_iter().cloned().collect();
    let place = |name: &String| kernels.iter().position(|kernel| kernel == name);
    items.sort_by_cached_key(|item| (item.repeat, place(&item.kernel)));
}

/// Those whose kernel is in the cache, and the others with the line that builds them.
fn built_of<'a>(
    designs: &'a [String],
    store: &Store,
) -> Result<(Vec<&'a String>, Vec<Absent>), Failure> {
    let files = KernelFiles::of(None);
    let (mut built, mut absent) = (Vec::new(), Vec::new());
    for design in designs {
        let spec: KernelSpec = format!("design:{design}").parse().map_err(Failure::usage)?;
        let KernelSpec::Design(choice) = spec else {
            continue;
        };
        match find_built(store, &files, &choice) {
            Ok(_) => built.push(design),
            Err(why) => absent.push(Absent {
                design: design.clone(),
                why: crate::words(&why),
            }),
        }
    }
    Ok((built, absent))
}

/// What a scenario asks of a design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Something that its policy may change.
    EachPolicy,
    /// Its tracking alone.
    Once,
    /// Whether its tracking is right, under a load that another policy would break.
    Check,
    /// How long something takes.
    Cost,
}

/// The scenarios of the table by their tags, without the controls, which say nothing of designs.
fn scenarios() -> Result<Vec<(Scenario, Asked)>, SelectionError> {
    let selection = Selection {
        tags: [TAG_COST, TAG, TAG_ONCE, TAG_CHECK]
            .map(str::to_owned)
            .to_vec(),
        ..Selection::default()
    };
    let mut all: Vec<(Scenario, Asked)> = Vec::new();
    for Item { scenario, .. } in select(&selection)? {
        let is_known = all.iter().any(|(known, _)| known.name == scenario.name);
        if is_known || scenario.name.ends_with("-control") {
            continue;
        }
        let has = |tag: &str| scenario.tags.iter().any(|known| known == tag);
        let asked = if has(TAG_COST) {
            Asked::Cost
        } else if has(TAG_ONCE) {
            Asked::Once
        } else if has(TAG_CHECK) {
            Asked::Check
        } else {
            Asked::EachPolicy
        };
        all.push((scenario, asked));
    }
    Ok(all)
}

pub(super) fn kernel(design: &str, policy: &str) -> String {
    format!("design:{design}+{policy}")
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;
    use crate::report::example;
    use crate::verdict::Verdict;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: DesignsArgs,
    }

    pub(in super::super) fn args(words: &[&str]) -> DesignsArgs {
        let line = Line::try_parse_from([&["designs"], words].concat());
        line.unwrap().args
    }

    pub(in super::super) fn run(scenario: &str, kernel: &str) -> RunSummary {
        RunSummary {
            scenario: scenario.into(),
            kernel: kernel.into(),
            ..example(Verdict::Pass, true)
        }
    }

    #[test]
    fn names_come_from_the_catalogue_and_an_unknown_one_is_told_with_the_known() {
        let all = Chosen::of(&args(&[])).unwrap();
        assert!(
            all.designs.contains(&"flag+ext".to_owned()),
            "{:?}",
            all.designs
        );
        assert_eq!(all.policies, ["none", "skip", "wait", "bounce"]);
        assert_eq!(all.baseline, "design:bias+none");
        let two = Chosen::of(&args(&["--design", "mapping", "--design", "none"])).unwrap();
        assert_eq!(two.designs, ["none", "mapping"], "in the catalogue's order");
        for (words, told) in [
            (
                ["--design", "bais"],
                "no design `bais`; did you mean `bias`?; known: none, bias,",
            ),
            (
                ["--policy", "bonce"],
                "no policy `bonce`; did you mean `bounce`?; known: none, skip,",
            ),
        ] {
            let refusal = Chosen::of(&args(&words)).err().unwrap().to_string();
            assert!(refusal.contains(told), "{refusal}");
        }
    }

    #[test]
    fn what_asks_no_policy_runs_once_for_a_design_and_costs_always_have_their_baseline() {
        let chosen = Chosen::of(&args(&["--design", "mapping"])).unwrap();
        let mapping = "mapping".to_owned();
        let items = chosen.items(&[&mapping], 2).unwrap();
        let kernels = |scenario: &str| -> Vec<&str> {
            let own = items
                .iter()
                .filter(|item| item.scenario.name == scenario && item.repeat == 2);
            own.map(|item| item.kernel.as_str()).collect()
        };
        assert_eq!(kernels("fork-while-read-held"), ["design:mapping+none"]);
        assert_eq!(kernels("clone-while-held-xfs").len(), 4);
        assert_eq!(
            kernels("pin-cost")[..2],
            ["design:bias+none", "design:mapping+none"]
        );
        assert!(kernels("clone-while-held-control").is_empty());
    }

    #[test]
    fn runs_of_one_kernel_follow_each_other_in_their_order() {
        let chosen = Chosen::of(&args(&["--design", "mapping"])).unwrap();
        let mapping = "mapping".to_owned();
        let mut items = chosen.items(&[&mapping], 2).unwrap();
        let names = |items: &[Item], kernel: &str| -> Vec<(u32, String)> {
            let own = items.iter().filter(|item| item.kernel == kernel);
            own.map(|item| (item.repeat, item.scenario.name.clone()))
                .collect()
        };
        let before = names(&items, "design:mapping+wait");
        kernel_by_kernel(&mut items);
        assert_eq!(names(&items, "design:mapping+wait"), before);
        let mut changes = items
            .iter()
            .map(|item| (item.repeat, &item.kernel))
            .collect::<Vec<_>>();
        changes.dedup();
        // Four policies and the baseline, in two boot sets.
        assert_eq!(changes.len(), 10);
    }

    #[test]
    fn each_scenario_that_measures_is_warmed_up_once() {
        let chosen = Chosen::of(&args(&["--design", "mapping", "--policy", "skip"])).unwrap();
        let mapping = "mapping".to_owned();
        let mut costs = chosen.items(&[&mapping], 2).unwrap();
        costs.retain(|item| ["pin-cost", "fork-while-read-held"].contains(&&*item.scenario.name));
        let all = chosen.warmed_up(costs.clone());
        let warm_ups = all.iter().filter(|item| item.repeat == WARM_UP);
        let kernels: Vec<&str> = warm_ups.map(|item| item.kernel.as_str()).collect();
        assert_eq!(kernels, ["design:bias+none"; 2]);
        assert_eq!(all[0].repeat, WARM_UP);
        assert_eq!(all.len(), costs.len() + 2);
        assert!(chosen.warmed_up(Vec::new()).is_empty());
    }
}
