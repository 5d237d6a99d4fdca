//! Reads a scenario file: unknown keys are refused with file, line and the nearest known one; `include` steps are replaced
//! by the steps of their part, and a file with variants is several scenarios.

use std::path::{Path, PathBuf};

use pincushion_devices::toml_error::describe;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::based;
use super::catalogue;
use super::check::check;
use super::condition;
use super::model::{Scenario, Step};
use super::names;
use super::only;
use super::variant::{Settings, refuse_unused};

/// Parts may include parts, so deep at most.
const MAX_DEPTH: u32 = 8;

/// Why a scenario file is refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key or value that is not known. Begins with `path:line:column`.
    #[error("{0}")]
    Syntax(String),
    /// It cannot be meant. Begins with `path:line`.
    #[error("{place}: {problem}")]
    Meaning {
        /// `path:line`, or `path`.
        place: String,
        /// What is wrong, and the way out.
        problem: String,
    },
}

/// What `parts/NAME.toml` holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[expect(dead_code, reason = "for the reader of the file")]
    summary: String,
    #[serde(rename = "step")]
    steps: Vec<Step>,
}

/// Reads and checks a file of one scenario. `path` is where `text` came from: for messages, and `parts` beside it are found
/// before the built-in ones.
///
/// # Errors
/// [`LoadError`].
pub fn parse(text: &str, path: &Path) -> Result<Scenario, LoadError> {
    let mut all = parse_all(text, path)?;
    if let [_, _, ..] = &all[..] {
        let names: Vec<&str> = all.iter().map(|(_, one)| one.name.as_str()).collect();
        let problem = format!("is several scenarios ({}): name one", names.join(", "));
        return Err(LoadError::Meaning {
            place: path.display().to_string(),
            problem,
        });
    }
    Ok(all.remove(0).1)
}

/// Reads and checks a file: its only scenario, or one for each of its variants, with the variant's name. `path` as for [`parse`].
///
/// # Errors
/// [`LoadError`].
pub fn parse_all(text: &str, path: &Path) -> Result<Vec<(Option<String>, Scenario)>, LoadError> {
    let all = Settings::of_file(text, path)?;
    let scenarios = all
        .iter()
        .map(|one| Ok((one.variant.clone(), parse_one(text, path, one)?)));
    let scenarios = scenarios.collect::<Result<_, _>>()?;
    refuse_unused(&all, path)?;
    Ok(scenarios)
}

fn parse_one(text: &str, path: &Path, settings: &Settings) -> Result<Scenario, LoadError> {
    let text = settings.fill(text, path)?;
    let mut scenario: Scenario = from_toml(&text, path)?;
    let variants = std::mem::take(&mut scenario.variants);
    scenario.set.clear();
    only::choose(&mut scenario, &variants, settings.variant.as_deref()).map_err(|problem| {
        LoadError::Meaning {
            place: path.display().to_string(),
            problem,
        }
    })?;
    if let Some(variant) = &settings.variant {
        scenario.name = format!("{}-{variant}", scenario.name);
    }
    if let Some(base) = scenario.based_on.take() {
        let based = based::on(&base, &mut scenario);
        based.map_err(|problem| LoadError::Meaning {
            place: path.display().to_string(),
            problem,
        })?;
    }
    if let Err((index, problem)) = check(&scenario) {
        let place = match index {
            Some((table, index)) => format!("{}:{}", path.display(), line_of(&text, table, index)),
            None => path.display().to_string(),
        };
        return Err(LoadError::Meaning { place, problem });
    }
    names::check(&scenario).map_err(|unknown| LoadError::Meaning {
        place: match text.find(&unknown.name) {
            Some(at) => format!(
                "{}:{}",
                path.display(),
                text[..at].matches('\n').count() + 1
            ),
            None => path.display().to_string(),
        },
        problem: unknown.problem,
    })?;
    scenario.steps = expand(std::mem::take(&mut scenario.steps), path, settings, 0)?;
    // Once more with all parts in their places: names that they use must exist.
    match check(&scenario) {
        Ok(()) => Ok(scenario),
        Err((_, problem)) => Err(LoadError::Meaning {
            place: path.display().to_string(),
            problem,
        }),
    }
}

fn from_toml<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T, LoadError> {
    toml::from_str(text).map_err(|error| LoadError::Syntax(describe(path, text, &error)))
}

fn expand(
    steps: Vec<Step>,
    path: &Path,
    settings: &Settings,
    depth: u32,
) -> Result<Vec<Step>, LoadError> {
    let mut all = Vec::new();
    for step in steps {
        let Some(name) = &step.include else {
            all.push(step);
            continue;
        };
        if depth == MAX_DEPTH {
            let problem = format!("parts include each other more than {MAX_DEPTH} deep");
            return Err(LoadError::Meaning {
                place: path.display().to_string(),
                problem,
            });
        }
        let (part_path, text) = read_part(name, path, depth > 0)?;
        let settings = settings.within(&step.set);
        let text = settings.fill(&text, &part_path)?;
        let part: Part = from_toml(&text, &part_path)?;
        for mut one in expand(part.steps, &part_path, &settings, depth + 1)? {
            condition::inherit(&mut one, step.when.as_ref()).map_err(|problem| {
                let place = path.display().to_string();
                LoadError::Meaning { place, problem }
            })?;
            all.push(one);
        }
    }
    Ok(all)
}

/// `path` is who includes it, a scenario or another part.
fn read_part(name: &str, path: &Path, is_part: bool) -> Result<(PathBuf, String), LoadError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // A part lies in the folder itself.
    let beside = if is_part {
        folder.to_owned()
    } else {
        folder.join("parts")
    };
    let beside = beside.join(format!("{name}.toml"));
    if beside.is_file() {
        let text = std::fs::read_to_string(&beside).map_err(|source| LoadError::Read {
            path: beside.clone(),
            source,
        })?;
        return Ok((beside, text));
    }
    if let Some(text) = catalogue::part(name) {
        return Ok((PathBuf::from(format!("parts/{name}.toml")), text.to_owned()));
    }
    let near = pincushion_devices::toml_error::nearest(name, catalogue::part_names());
    let guess = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    let problem = format!(
        "there is no part `{name}`, neither {} nor built in{guess}",
        beside.display()
    );
    Err(LoadError::Meaning {
        place: path.display().to_string(),
        problem,
    })
}

/// Line, from 1, of the `index`-th element of the array of tables `table`.
fn line_of(text: &str, table: &str, index: usize) -> usize {
    #[derive(Deserialize)]
    struct Tables {
        #[serde(default)]
        step: Vec<toml::Spanned<IgnoredAny>>,
        #[serde(default)]
        rule: Vec<toml::Spanned<IgnoredAny>>,
        #[serde(default)]
        disk: Vec<toml::Spanned<IgnoredAny>>,
    }
    let start = toml::from_str::<Tables>(text).ok().and_then(|tables| {
        let list = match table {
            "step" => tables.step,
            "rule" => tables.rule,
            _ => tables.disk,
        };
        list.get(index).map(|spanned| spanned.span().start)
    });
    text[..start.unwrap_or(0)].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name = 'x'\nsummary = 'y'\n[expect.default]\nverdict = 'pass'\n[[disk]]\nid = 'a'\nsize = '16M'\ncontent = 'ext4'\n";

    fn refused(rest: &str) -> String {
        parse(&format!("{HEAD}{rest}"), Path::new("x.toml"))
            .unwrap_err()
            .to_string()
    }

    fn accepted(rest: &str) -> Scenario {
        parse(&format!("{HEAD}{rest}"), Path::new("x.toml")).unwrap()
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_its_neighbour() {
        let said = refused("[[step]]\ngates = 'read'\n");
        assert!(
            said.starts_with("x.toml:10:1: unknown key `gates`; did you mean `gate`?"),
            "{said}"
        );
    }

    #[test]
    fn a_step_that_does_nothing_or_two_things_is_refused_with_its_line() {
        let said = refused("[[step]]\ngate = 'g'\n[[step]]\nsay = 'hello'\n");
        assert!(
            said.starts_with("x.toml:11: step 2: does nothing"),
            "{said}"
        );
        let said = refused("[[step]]\ngate = 'g'\npower-off = true\n");
        assert!(
            said.starts_with("x.toml:9: step 1: does two things (gate, power-off)"),
            "{said}"
        );
    }

    #[test]
    fn a_program_for_the_guest_is_a_bare_name_and_nothing_that_a_package_manager_takes_for_an_option()
     {
        for name in ["", "-y", "./x.deb", "fio -o A=b", "/usr/bin/fio"] {
            let said = refused(&format!("[vm]\nprograms = ['fio', '{name}']\n"));
            let wanted = format!("vm.programs has {name:?}: name a program without its directory");
            assert!(said.contains(&wanted), "{said}");
        }
        let scenario = accepted("[vm]\nprograms = ['stress-ng', 'mkfs.ext4']\n");
        assert_eq!(scenario.vm.programs.len(), 2);
    }

    #[test]
    fn a_guest_step_is_checked_before_any_guest_runs() {
        let said = refused("[[step]]\nguest = { op = 'fsink', file = 'f' }\n");
        assert!(
            said.contains("unknown value `fsink`; did you mean `fsync`?"),
            "{said}"
        );
        let said = refused("[[step]]\nguest = { op = 'fsync', flie = 'f' }\n");
        assert!(
            said.contains("unknown key `flie`; did you mean `file`?"),
            "{said}"
        );
    }

    #[test]
    fn a_value_that_equals_nothing_is_refused() {
        for (step, words) in [
            (
                "fact = { key = 'k', value = { frames = [nan] } }",
                "fact: `nan`",
            ),
            (
                "guest = { op = 'sync' }\nexpect = { values = { took = 1.5 } }",
                "expect: `1.5`",
            ),
            (
                "fact = { key = 'k', value = 2026-11-28 }",
                "fact: `2026-11-28`",
            ),
        ] {
            let said = refused(&format!("[[step]]\n{step}\n"));
            assert!(
                said.starts_with("x.toml:9: step 1: ") && said.contains(words),
                "{step}: {said}"
            );
        }
        accepted("[[step]]\nfact = { key = 'k', value = [1, 'a', { b = true }] }\n");
    }

    #[test]
    fn a_rule_is_checked_as_the_device_will() {
        let said = refused("[[rule]]\ndevise = 'a'\nverify = true\n");
        assert!(
            said.starts_with("x.toml:9: rule 1: ") && said.contains("did you mean `device`"),
            "{said}"
        );
        let said = refused("[[rule]]\ndevice = 'b'\nverify = true\n");
        assert!(
            said.contains("there is no device `b` in this machine"),
            "{said}"
        );
        let said = refused("[[rule]]\ndevice = 'a'\n");
        assert!(said.contains("has no action"), "{said}");
    }

    #[test]
    fn a_device_that_the_machine_lacks_is_refused_wherever_it_is_asked_for() {
        for (step, words) in [
            (
                "await = { event = 'parked', device = 'b' }",
                "there is no device `b`",
            ),
            (
                "guest = { op = 'open', path = '${pmem.p}', flags = [], file = 'f' }",
                "there is no device `p`",
            ),
            (
                "guest = { op = 'open', path = '${disk.aa}', flags = [], file = 'f' }",
                "there is no device `aa` in this machine; did you mean `a`?",
            ),
            ("host = { fsck = { disk = 'p' } }", "there is no device `p`"),
            ("link = { net = 'n', up = false }", "there is no card `n`"),
            ("balloon = { statistics = true }", "add [balloon]"),
            (
                "control = { get = '/v1/holds' }",
                "add vm = { control = true }",
            ),
        ] {
            let said = refused(&format!("[[step]]\n{step}\n"));
            assert!(
                said.starts_with("x.toml:9: step 1: ") && said.contains(words),
                "{step}: {said}"
            );
        }
    }

    #[test]
    fn a_name_is_used_only_after_it_was_given() {
        let fact = "[[step]]\nfact = { key = 'file-page-gone', value = { frames = '${page.frame-numbers}' } }\n";
        let said = refused(fact);
        assert!(said.contains("no earlier step is named `page`"), "{said}");
        let named = "[[step]]\nname = 'page'\nguest = { op = 'frames', map = 'm' }\n";
        assert_eq!(accepted(&format!("{named}{fact}")).steps.len(), 2);
    }

    #[test]
    fn a_background_step_is_joined_or_abandoned() {
        let sent = "[[step]]\nname = 'r'\nthread = 't'\nguest = { op = 'fsync', file = 'f' }\n";
        assert!(refused(sent).contains("nobody joins `r`"));
        accepted(&format!("{sent}[[step]]\njoin = 'r'\n"));
        accepted(&format!("{sent}abandon = true\n"));
    }

    #[test]
    fn a_part_stands_where_it_is_included() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("parts")).unwrap();
        let part = "summary = 's'\n[[step]]\nname = 'p'\nguest = { op = 'sync' }\n[[step]]\ngate = 'two'\n";
        std::fs::write(dir.path().join("parts/start.toml"), part).unwrap();
        let text = format!("{HEAD}[[step]]\ninclude = 'start'\n[[step]]\ngate = 'three'\n");
        let scenario = parse(&text, &dir.path().join("x.toml")).unwrap();
        let gates: Vec<_> = scenario
            .steps
            .iter()
            .map(|step| step.gate.as_deref())
            .collect();
        assert_eq!(gates, [None, Some("two"), Some("three")]);
    }

    #[test]
    fn a_part_may_include_a_part_that_lies_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("parts")).unwrap();
        for (name, step) in [("outer", "include = 'inner'"), ("inner", "gate = 'deep'")] {
            let part = format!("summary = 's'\n[[step]]\n{step}\n");
            std::fs::write(dir.path().join(format!("parts/{name}.toml")), part).unwrap();
        }
        let text = format!("{HEAD}[[step]]\ninclude = 'outer'\n");
        let scenario = parse(&text, &dir.path().join("x.toml")).unwrap();
        assert_eq!(scenario.steps[0].gate.as_deref(), Some("deep"));
    }

    #[test]
    fn each_variant_is_a_scenario_with_its_own_values_also_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("parts")).unwrap();
        let part = "summary = 's'\n[[step]]\ngate = '${set.gate}'\n";
        std::fs::write(dir.path().join("parts/open.toml"), part).unwrap();
        let text = "name = 'x'\nsummary = 'on ${set.fs}'\nset = { gate = 'g' }\n[expect.default]\nverdict = 'pass'\n\
            [[variant]]\nname = 'ext4'\nset = { fs = 'ext4' }\n[[variant]]\nname = 'xfs'\nset = { fs = 'xfs', gate = 'h' }\n\
            [[disk]]\nid = 'a'\nsize = '16M'\ncontent = '${set.fs}'\n[[step]]\ninclude = 'open'\n";
        let path = dir.path().join("x.toml");
        let all = parse_all(text, &path).unwrap();
        let told: Vec<_> = all
            .iter()
            .map(|(_, one)| {
                (
                    one.name.as_str(),
                    one.summary.as_str(),
                    one.disks[0].content,
                    one.steps[0].gate.as_deref(),
                )
            })
            .collect();
        use super::super::model::Content::{Ext4, Xfs};
        assert_eq!(
            told,
            [
                ("x-ext4", "on ext4", Ext4, Some("g")),
                ("x-xfs", "on xfs", Xfs, Some("h"))
            ]
        );
        // What a run's directory keeps is one scenario.
        let kept = toml::to_string(&all[1].1).unwrap();
        assert_eq!(parse(&kept, &path).unwrap(), all[1].1);
        assert!(
            parse(text, &path)
                .unwrap_err()
                .to_string()
                .contains("is several scenarios (x-ext4, x-xfs)")
        );
    }

    #[test]
    fn a_missing_part_is_named() {
        assert!(refused("[[step]]\ninclude = 'nowhere'\n").contains("there is no part `nowhere`"));
    }

    #[test]
    fn a_scenario_survives_being_written_and_read() {
        let scenario = accepted(
            "[[rule]]\ndevice = 'a'\nhold = { gate = 'g' }\n[[step]]\nguest = { op = 'sync' }\n\
             expect = { errno = 'EIO' }\n[[step]]\nawait = { event = 'parked', device = 'a' }\n",
        );
        let text = toml::to_string(&scenario).unwrap();
        assert_eq!(parse(&text, Path::new("again.toml")).unwrap(), scenario);
    }
}
