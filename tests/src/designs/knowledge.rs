//! What is known of designs without running them: knowledge.toml, each fact with its source.

use serde::{Deserialize, Serialize};

/// The file.
const TEXT: &str = include_str!("knowledge.toml");

/// A sentence and where it is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// It.
    pub says: String,
    /// A patch of the series, or a function of the kernel.
    pub source: String,
}

/// What is known of a design.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Facts {
    /// Of the design.
    pub name: String,
    /// How many pins of one small page there can be.
    pub most_pins: Known,
    /// Whether get_user_pages_fast() stays fast.
    pub gup_fast: Known,
    /// Atomic operations for a pin and an unpin.
    pub atomics: Known,
    /// "Is this folio pinned?"
    pub folio: Known,
    /// "Is any page of this file pinned?"
    pub file: Known,
    /// "Who has pinned it?"
    pub who: Known,
}

/// A design that has no kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Infeasible {
    /// Its name and its number in the debate.
    pub name: String,
    /// What it would be.
    pub is: String,
    /// Where it fails, line by line.
    pub fails: Vec<Known>,
    /// What it would take.
    pub takes: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    design: Vec<Facts>,
    infeasible: Vec<Infeasible>,
}

/// What the file says of a design.
#[must_use]
pub fn of(design: &str) -> Option<Facts> {
    all().into_iter().find(|facts| facts.name == design)
}

/// Designs that cannot be a kernel of this series.
#[must_use]
pub fn infeasible() -> Vec<Infeasible> {
    file().infeasible
}

fn all() -> Vec<Facts> {
    file().design
}

fn file() -> File {
    toml::from_str(TEXT).expect("part of the program, and tested")
}

#[cfg(test)]
mod tests {
    use pincushion_image::kernel::{Catalogue, KernelFiles};

    use super::*;

    #[test]
    fn facts_are_of_designs_that_there_are_and_each_has_its_source() {
        let catalogue = Catalogue::read(&KernelFiles::Embedded).unwrap();
        let mut names = Vec::new();
        for facts in all() {
            assert!(
                catalogue.design(&facts.name).is_ok(),
                "no kernel has the design `{}`",
                facts.name
            );
            assert!(
                !names.contains(&facts.name),
                "{} is there twice",
                facts.name
            );
            let Facts {
                name,
                most_pins,
                gup_fast,
                atomics,
                folio,
                file,
                who,
            } = facts;
            for known in [most_pins, gup_fast, atomics, folio, file, who] {
                assert!(!known.says.is_empty() && !known.source.is_empty(), "{name}");
            }
            names.push(name);
        }
        for Infeasible {
            name,
            is,
            fails,
            takes,
        } in infeasible()
        {
            assert!(catalogue.design(&name).is_err(), "{name} has a kernel");
            assert!(!is.is_empty() && !takes.is_empty() && !fails.is_empty());
            for known in fails {
                assert!(!known.says.is_empty() && !known.source.is_empty(), "{name}");
            }
        }
        assert_eq!(of("bias").unwrap().name, "bias");
        assert_eq!(of("no such design"), None);
    }
}
