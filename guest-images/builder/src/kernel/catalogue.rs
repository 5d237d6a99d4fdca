//! What source.toml says: the source package, and which designs, policies, flavours and binaries there are.

use serde::{Deserialize, Serialize};

use super::KernelError;
use super::files::KernelFiles;
use crate::apt::PackageId;
use crate::error::Error;

const FILE: &str = "source.toml";

/// All of source.toml.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// What becomes of a pinned page at write-back; the first is the default.
    pub policies: Vec<String>,
    /// What all is built from.
    pub source: SourcePackage,
    /// The kernels that are built.
    #[serde(rename = "binary")]
    pub binaries: Vec<Part>,
    /// Ways to build each; the first is the default.
    #[serde(rename = "flavour")]
    pub flavours: Vec<Part>,
    /// The designs.
    #[serde(rename = "design")]
    pub designs: Vec<Design>,
}

/// A source package of Debian's, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePackage {
    /// Its name; the source lies in `usr/src/<package>.tar.xz` of it.
    pub package: String,
    /// Debian's version.
    pub version: String,
    /// Digest of the `.deb`.
    pub sha256: String,
    /// How many objects a build from nothing makes, about.
    pub objects: u32,
}

impl SourcePackage {
    pub(super) fn id(&self) -> PackageId {
        PackageId {
            name: self.package.clone(),
            version: self.version.clone(),
            sha256: self.sha256.clone(),
        }
    }
}

/// A binary or a flavour: a name, and what it adds to the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Files in config/; later lines win.
    pub fragments: Vec<String>,
}

/// A way to know pinned pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Design {
    /// As in `pin_tracking=NAME`.
    pub name: String,
    /// The binary that has it.
    pub binary: String,
    /// One line.
    pub summary: String,
}

impl Catalogue {
    /// Reads source.toml.
    ///
    /// # Errors
    /// It is not there or wrong.
    pub fn read(files: &KernelFiles) -> Result<Self, Error> {
        let text = files.read(FILE, "")?;
        let bad = |why: String| KernelError::BadCatalogue {
            path: files.name_of(FILE),
            why,
        };
        let catalogue: Self =
            toml::from_str(&text).map_err(|error| bad(error.to_string().trim_end().to_owned()))?;
        catalogue.check().map_err(bad)?;
        Ok(catalogue)
    }

    fn check(&self) -> Result<(), String> {
        if self.policies.is_empty() || self.flavours.is_empty() || self.designs.is_empty() {
            return Err("at least one policy, flavour and design".to_owned());
        }
        let digest = &self.source.sha256;
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("source.sha256 = \"{digest}\" is no SHA-256 digest"));
        }
        for design in &self.designs {
            if !self
                .binaries
                .iter()
                .any(|binary| binary.name == design.binary)
            {
                return Err(format!(
                    "design `{}` is in binary `{}`, which is not described",
                    design.name, design.binary
                ));
            }
        }
        let mut names: Vec<&str> = self
            .designs
            .iter()
            .map(|design| design.name.as_str())
            .collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("there are two designs `{}`", twice[0]));
        }
        let policies = self.policies.iter().map(String::as_str);
        let parts = self
            .binaries
            .iter()
            .chain(&self.flavours)
            .map(|part| part.name.as_str());
        let designs = self.designs.iter().map(|design| design.name.as_str());
        // They go onto a kernel's command line and into names of directories.
        let is_plain = |name: &str| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '_'))
        };
        match policies
            .chain(parts)
            .chain(designs)
            .find(|name| !is_plain(name))
        {
            Some(name) => Err(format!(
                "`{name}` cannot be a name: letters, digits, `+` and `_` only"
            )),
            None => Ok(()),
        }
    }

    /// The design of this name.
    ///
    /// # Errors
    /// There is none; the nearest and all are told.
    pub fn design(&self, name: &str) -> Result<&Design, KernelError> {
        let found = named(&self.designs, "design", name, |design| &design.name);
        let meant = self.design_in(name.strip_prefix("design:").unwrap_or(name));
        found.map_err(|error| match (error, meant) {
            (
                KernelError::Unknown {
                    what, name, known, ..
                },
                Some(meant),
            ) => KernelError::Unknown {
                what,
                name,
                guess: format!("; its kernel is `{meant}`, and has every policy"),
                known,
            },
            (error, _) => error,
        })
    }

    /// The design in what names a kernel to run, as `bias+bounce`. Its own name may have a `+`, so the longest that fits is meant.
    pub(super) fn design_in(&self, name: &str) -> Option<&str> {
        let names = self.designs.iter().map(|design| design.name.as_str());
        let is_meant = |design: &&str| {
            let rest = name.strip_prefix(design);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', '-']))
        };
        names.filter(is_meant).max_by_key(|name| name.len())
    }

    /// The flavour of this name.
    ///
    /// # Errors
    /// As [`Self::design`].
    pub fn flavour(&self, name: &str) -> Result<&Part, KernelError> {
        named(&self.flavours, "flavour", name, |flavour| &flavour.name)
    }

    /// The policy of this name.
    ///
    /// # Errors
    /// As [`Self::design`].
    pub fn policy(&self, name: &str) -> Result<&str, KernelError> {
        named(&self.policies, "policy", name, |policy| policy).map(String::as_str)
    }

    /// The designs in one binary, in order.
    pub fn designs_of<'a>(&'a self, binary: &'a str) -> impl Iterator<Item = &'a Design> {
        self.designs
            .iter()
            .filter(move |design| design.binary == binary)
    }
}

/// The one of this name; the error tells the nearest and all.
fn named<'a, T>(
    all: &'a [T],
    what: &'static str,
    name: &str,
    name_of: impl Fn(&T) -> &str,
) -> Result<&'a T, KernelError> {
    let found = all.iter().find(|one| name_of(one) == name);
    found.ok_or_else(|| unknown(what, name, all.iter().map(name_of)))
}

fn unknown<'a>(
    what: &'static str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> KernelError {
    /// Below this the nearest name is no slip of the finger.
    const ALIKE: f64 = 0.4;
    let known: Vec<&str> = known.collect();
    let likeness = |candidate: &&str| strsim::normalized_damerau_levenshtein(name, candidate);
    let nearest = known
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let nearest = nearest.filter(|nearest| likeness(nearest) >= ALIKE);
    KernelError::Unknown {
        what,
        name: name.to_owned(),
        guess: nearest.map_or(String::new(), |nearest| {
            format!("; did you mean `{nearest}`?")
        }),
        known: known.join(", "),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two binaries, and a design whose name has the mark of a policy.
    pub(in crate::kernel) const TEXT: &str = "policies = ['none', 'bounce']\n\
        [source]\npackage = 'linux-source-6.12'\nversion = '6.12.1-1'\n\
        sha256 = 'e849faf31ca3555757f3a8877cb01af92122f744f75d1f3102734651c4e14703'\nobjects = 10\n\
        [[binary]]\nname = 'pin'\nfragments = ['guest.config']\n[[binary]]\nname = 'field'\nfragments = ['guest.config', 'field.config']\n\
        [[flavour]]\nname = 'guest'\nfragments = []\n[[flavour]]\nname = 'debug'\nfragments = ['debug.config']\n\
        [[design]]\nname = 'bias'\nbinary = 'pin'\nsummary = 's'\n[[design]]\nname = 'flag+ext'\nbinary = 'pin'\nsummary = 's'\n\
        [[design]]\nname = 'field'\nbinary = 'field'\nsummary = 's'\n";

    pub(in crate::kernel) fn catalogue() -> Catalogue {
        toml::from_str(TEXT).unwrap()
    }

    fn refusal(from: &str, to: &str) -> String {
        assert!(TEXT.contains(from), "{from}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), TEXT.replacen(from, to, 1)).unwrap();
        let error = Catalogue::read(&KernelFiles::Directory(dir.path().to_owned()));
        error.unwrap_err().to_string()
    }

    #[test]
    fn a_kernel_to_run_is_no_design_to_build_and_two_of_one_name_are_refused() {
        for name in ["bias+bounce", "design:bias", "design:bias+none-debug"] {
            let told = catalogue().design(name).unwrap_err().to_string();
            assert!(
                told.contains("its kernel is `bias`, and has every policy"),
                "{told}"
            );
        }
        let told = catalogue()
            .design("flag+ext+bounce")
            .unwrap_err()
            .to_string();
        assert!(told.contains("its kernel is `flag+ext`"), "{told}");
        let told = refusal("name = 'flag+ext'", "name = 'bias'");
        assert!(told.contains("there are two designs `bias`"), "{told}");
    }

    #[test]
    fn the_embedded_source_is_pinned_by_digest_and_all_that_it_names_is_there() {
        let files = KernelFiles::Embedded;
        let catalogue = Catalogue::read(&files).unwrap();
        assert_eq!(catalogue.source.sha256.len(), 64);
        for part in catalogue.binaries.iter().chain(&catalogue.flavours) {
            for fragment in &part.fragments {
                files.read(&format!("config/{fragment}"), "").unwrap();
            }
        }
    }

    /// A name that no patch knows would boot as another design than its column says.
    #[test]
    fn every_design_that_can_be_named_is_in_the_series() {
        let files = KernelFiles::Embedded;
        let texts = files.series().unwrap();
        let read = |name: &String| files.read(&format!("patches/{name}"), "").unwrap();
        let series: String = texts.iter().map(|name| read(name).into_owned()).collect();
        let is_added = |name: &str| {
            let mut added = series.lines().filter(|line| line.starts_with('+'));
            added.any(|line| line.contains(".name") && line.contains(&format!("= \"{name}\"")))
        };
        for design in Catalogue::read(&files).unwrap().designs {
            assert!(
                is_added(&design.name),
                "no patch has .name = \"{}\"",
                design.name
            );
        }
    }

    #[test]
    fn an_unknown_name_is_told_with_the_nearest_and_all_known() {
        let catalogue = catalogue();
        let told = catalogue.design("bais").unwrap_err().to_string();
        assert_eq!(
            told,
            "there is no design `bais`; did you mean `bias`?; known: bias, flag+ext, field"
        );
        let told = catalogue.policy("zzz").unwrap_err().to_string();
        assert_eq!(told, "there is no policy `zzz`; known: none, bounce");
        assert!(
            catalogue
                .flavour("debg")
                .unwrap_err()
                .to_string()
                .contains("`debug`?")
        );
        assert_eq!(catalogue.designs_of("pin").count(), 2);
    }

    #[test]
    fn a_wrong_catalogue_is_told_with_its_place() {
        for (from, to, told) in [
            ("objects = 10", "objetcs = 10", "objetcs"),
            ("'e849", "'849", "is no SHA-256"),
            (
                "binary = 'field'",
                "binary = 'filed'",
                "binary `filed`, which is not described",
            ),
            (
                "name = 'flag+ext'",
                "name = 'flag ext'",
                "`flag ext` cannot be a name",
            ),
            (
                "policies = ['none', 'bounce']",
                "policies = []",
                "at least one policy",
            ),
        ] {
            let refusal = refusal(from, to);
            assert!(
                refusal.contains("source.toml: ") && refusal.contains(told),
                "{refusal}"
            );
        }
    }
}
