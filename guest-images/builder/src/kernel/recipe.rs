//! All that a kernel is made of, read and checked before anything is fetched; its digest is what a build is known by.

use super::catalogue::{Catalogue, SourcePackage};
use super::config::Config;
use super::files::KernelFiles;
use super::patch::Patch;
use crate::digest::sha256;
use crate::error::Error;

/// Raised when a build makes something else of the same recipe.
const BUILDER: u32 = 1;

/// What one kernel is made of, less the compiler.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) source: SourcePackage,
    /// Name of the binary.
    pub(super) binary: String,
    pub(super) flavour: String,
    /// Designs that the binary has.
    pub(super) designs: Vec<String>,
    pub(super) series: Vec<Patch>,
    pub(super) config: Config,
}

impl Recipe {
    /// The recipe of the binary that has `design`.
    pub(super) fn read(files: &KernelFiles, design: &str, flavour: &str) -> Result<Self, Error> {
        let catalogue = Catalogue::read(files)?;
        let design = catalogue.design(design)?;
        let flavour = catalogue.flavour(flavour)?;
        let mut binaries = catalogue.binaries.iter();
        let binary = binaries
            .find(|binary| binary.name == design.binary)
            .expect("checked when it was read");
        let mut config = Config::default();
        for part in [binary, flavour] {
            for fragment in &part.fragments {
                let path = format!("config/{fragment}");
                let text = files.read(
                    &path,
                    &format!(", which `{}` in source.toml names", part.name),
                )?;
                config.add(&files.name_of(&path), &text)?;
            }
        }
        Ok(Self {
            source: catalogue.source.clone(),
            binary: binary.name.clone(),
            flavour: flavour.name.clone(),
            designs: catalogue
                .designs_of(&binary.name)
                .map(|design| design.name.clone())
                .collect(),
            series: series(files)?,
            config,
        })
    }

    /// Names what is built: the source, what the patches do, the configuration.
    pub(super) fn digest(&self) -> String {
        let mut text = format!(
            "{BUILDER}\n{}\n{}\n",
            self.source.sha256,
            self.series_digest()
        );
        text.push_str(&self.config.to_text());
        sha256(text.as_bytes())
    }

    /// Names what the patches do, whatever their messages say.
    pub(super) fn series_digest(&self) -> String {
        let essence: String = self.series.iter().map(Patch::essence).collect();
        sha256(essence.as_bytes())
    }
}

/// The patches of the series, in order.
fn series(files: &KernelFiles) -> Result<Vec<Patch>, Error> {
    let mut patches = Vec::new();
    for name in files.series()? {
        let text = files.read(&format!("patches/{name}"), ", which patches/series names")?;
        patches.push(Patch::parse(&name, &text)?);
    }
    Ok(patches)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::super::catalogue::tests::TEXT;
    use super::*;

    const PATCH: &str = "Subject: x\n\n--- a/mm/a.c\n+++ b/mm/a.c\n@@ -1 +1 @@\n-a\n+b\n";

    /// A tree with all that [`TEXT`] names, and one patch.
    pub(in crate::kernel) fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("source.toml", TEXT),
            ("patches/series", "1.patch\n"),
            ("patches/1.patch", PATCH),
            ("config/guest.config", "CONFIG_A=y\n"),
            ("config/field.config", "CONFIG_FIELD=y\n"),
            ("config/debug.config", "CONFIG_DEBUG=y\n"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn digest(dir: &tempfile::TempDir, design: &str, flavour: &str) -> String {
        let files = KernelFiles::Directory(dir.path().to_owned());
        Recipe::read(&files, design, flavour).unwrap().digest()
    }

    #[test]
    fn designs_of_one_binary_share_a_digest_and_what_is_built_otherwise_has_another() {
        let dir = tree();
        let bias = digest(&dir, "bias", "guest");
        assert_eq!(bias, digest(&dir, "flag+ext", "guest"));
        assert_ne!(bias, digest(&dir, "field", "guest"));
        assert_ne!(bias, digest(&dir, "bias", "debug"));
    }

    #[test]
    fn the_digest_is_of_what_is_built_and_not_of_what_is_said_about_it() {
        let dir = tree();
        let before = digest(&dir, "bias", "guest");
        let change = |path: &str, from: &str, to: &str| {
            let path = dir.path().join(path);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from));
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
        };
        change("patches/1.patch", "Subject: x", "Subject: y");
        change("config/guest.config", "CONFIG_A=y", "# why\nCONFIG_A=y");
        change("source.toml", "summary = 's'", "summary = 't'");
        assert_eq!(before, digest(&dir, "bias", "guest"));
        for (path, from, to) in [
            ("patches/1.patch", "+b", "+c"),
            ("config/guest.config", "CONFIG_A=y", "CONFIG_B=y"),
            ("source.toml", "e849", "e848"),
        ] {
            change(path, from, to);
            let after = digest(&dir, "bias", "guest");
            assert_ne!(before, after, "{path}");
            change(path, to, from);
        }
    }

    #[test]
    fn a_patch_or_fragment_that_is_named_and_not_there_is_told_with_who_names_it() {
        let dir = tree();
        let files = KernelFiles::Directory(dir.path().to_owned());
        fs::remove_file(dir.path().join("config/debug.config")).unwrap();
        let told = Recipe::read(&files, "bias", "debug")
            .unwrap_err()
            .to_string();
        assert!(
            told.ends_with("has no config/debug.config, which `debug` in source.toml names"),
            "{told}"
        );
        fs::write(dir.path().join("patches/series"), "1.patch\n2.patch\n").unwrap();
        let told = Recipe::read(&files, "bias", "guest")
            .unwrap_err()
            .to_string();
        assert!(
            told.ends_with("has no patches/2.patch, which patches/series names"),
            "{told}"
        );
    }
}
