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
        let depends = depends(&module)?;
        self.path.push(name.to_owned());
        for needed in &depends {
            self.visit(needed)?;
        }
        self.path.pop();
        self.done.insert(name.to_owned());
        self.order.push(module);
        Ok(())
    }
}

/// The `depends=` of a module's `.modinfo`, a section of NUL-terminated `key=value` texts.
fn depends(module: &Module) -> Result<Vec<String>, ModuleError> {
    let wrong = |reason: String| ModuleError::NotAModule {
        path: module.source.clone(),
        reason,
    };
    let elf =
        object::File::parse(module.bytes.as_slice()).map_err(|source| wrong(source.to_string()))?;
    let section = elf
        .section_by_name(".modinfo")
        .ok_or_else(|| wrong("it has no .modinfo".to_owned()))?;
    let data = section.data().map_err(|source| wrong(source.to_string()))?;
    let lists = data
        .split(|byte| *byte == 0)
        .filter_map(|entry| entry.strip_prefix(b"depends="));
    Ok(lists
        .flat_map(|list| list.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .map(|name| normal(&String::from_utf8_lossy(name)))
        .collect())
}
