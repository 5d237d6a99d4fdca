//! The order in which modules can be loaded.

use std::collections::BTreeSet;

use object::{Object as _, ObjectSection as _};

use super::{Module, ModuleError, ModuleTree, normal};

/// The modules called `names` and all that they need, each after what it needs, less what is built in.
pub(super) fn in_load_order(tree: &ModuleTree, names: &[&str]) -> Result<Vec<Module>, ModuleError> {
    let mut walk = Walk {
        tree,
        done: BTreeSet::new(),
        path: Vec::new(),
        order: Vec::new(),
    };
    for name in names {
        walk.visit(&normal(name))?;
    }
    Ok(walk.order)
}

/// A depth-first walk over `depends=`.
struct Walk<'a> {
    tree: &'a ModuleTree,
    done: BTreeSet<String>,
    /// The modules between the one asked for and the one visited now.
    path: Vec<String>,
    order: Vec<Module>,
}

impl Walk<'_> {
    fn visit(&mut self, name: &str) -> Result<(), ModuleError> {
        if self.done.contains(name) || self.tree.is_builtin(name) {
            return Ok(());
        }
        if self.path.iter().any(|above| above == name) {
            return Err(ModuleError::Circle(format!(
                "{} -> {name}",
                self.path.join(" -> ")
            )));
        }
        let Some(path) = self.tree.file_of(name) else {
            return Err(self.tree.unknown(name, self.path.last()));
        };
        let module = self.tree.read(name, path)?;
        let info = ModInfo::of(&module)?;
        self.path.push(name.to_owned());
        for needed in info.depends() {
            self.visit(&needed)?;
        }
        for wanted in info.wants_before() {
            // Whatever is not there is not needed: that is what makes it soft.
            if let Some(provider) = self.provider(&wanted)?
                && !self.path.contains(&provider)
            {
                self.visit(&provider)?;
            }
        }
        self.path.pop();
        self.done.insert(name.to_owned());
        self.order.push(module);
        Ok(())
    }

    /// The module that a soft dependency means: one of this name, or the generic form of an algorithm of the kernel's crypto API
    /// (`crypto-crc32c`), which ext4 asks for by name where it is no part of the kernel.
    fn provider(&self, wanted: &str) -> Result<Option<String>, ModuleError> {
        let name = normal(wanted);
        if self.tree.file_of(&name).is_some() {
            return Ok(Some(name));
        }
        for (name, path) in self.tree.files_ending("_generic") {
            let module = self.tree.read(name, path)?;
            if ModInfo::of(&module)?.has_alias(wanted) {
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }
}

/// A module's `.modinfo`, a section of NUL-terminated `key=value` texts.
struct ModInfo(Vec<String>);

impl ModInfo {
    fn of(module: &Module) -> Result<Self, ModuleError> {
        let wrong = |reason: String| ModuleError::NotAModule {
            path: module.source.clone(),
            reason,
        };
        let elf = object::File::parse(module.bytes.as_slice())
            .map_err(|source| wrong(source.to_string()))?;
        let section = elf
            .section_by_name(".modinfo")
            .ok_or_else(|| wrong("it has no .modinfo".to_owned()))?;
        let data = section.data().map_err(|source| wrong(source.to_string()))?;
        let entries = data.split(|byte| *byte == 0);
        Ok(Self(
            entries
                .map(|entry| String::from_utf8_lossy(entry).into_owned())
                .collect(),
        ))
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let entries = self.0.iter();
        entries.filter_map(move |entry| entry.strip_prefix(key)?.strip_prefix('='))
    }

    /// What it cannot be loaded without.
    fn depends(&self) -> Vec<String> {
        let names = self.values("depends").flat_map(|list| list.split(','));
        names.filter(|name| !name.is_empty()).map(normal).collect()
    }

    /// What it would like to be loaded before, `softdep=pre: a b post: c`.
    fn wants_before(&self) -> Vec<String> {
        let mut wanted = Vec::new();
        for list in self.values("softdep") {
            let mut is_before = false;
            for word in list.split_whitespace() {
                match word {
                    "pre:" => is_before = true,
                    "post:" => is_before = false,
                    name if is_before => wanted.push(name.to_owned()),
                    _ => {}
                }
            }
        }
        wanted
    }

    fn has_alias(&self, wanted: &str) -> bool {
        self.values("alias").any(|alias| alias == wanted)
    }
}
