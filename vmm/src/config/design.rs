//! `--kernel design:NAME`: a kernel of our own designs, from the cache of what `pincushion image kernel build` has built.

use std::path::{Path, PathBuf};

use pincushion_image::{Error, KernelSpec, Silent, Store};

/// A kernel's file, and the words without which it is not what its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesignKernel {
    pub(crate) path: PathBuf,
    pub(crate) parameters: String,
}

/// The kernel that `name` means, if it begins with `design:`; nothing for a path.
pub(crate) fn design_kernel(name: &Path) -> Result<Option<DesignKernel>, Error> {
    let Some(name) = name.to_str().filter(|name| name.starts_with("design:")) else {
        return Ok(None);
    };
    let spec: KernelSpec = name.parse()?;
    let kernel = Store::open_default()?.kernel(&spec, &mut Silent)?;
    Ok(Some(DesignKernel {
        path: kernel.vmlinux,
        parameters: kernel.parameters,
    }))
}

/// The same for the words of a command that shall run where the cache is not: `--kernel design:NAME` becomes the kernel's file and
/// `--append` with its words.
pub(crate) fn spell_out(words: Vec<String>) -> Result<Vec<String>, Error> {
    spelled_out(words, |name| design_kernel(Path::new(name)))
}

fn spelled_out(
    words: Vec<String>,
    find: impl Fn(&str) -> Result<Option<DesignKernel>, Error>,
) -> Result<Vec<String>, Error> {
    let mut spelled = Vec::new();
    let mut before = String::new();
    for word in words {
        let name = match word.strip_prefix("--kernel=") {
            Some(name) => Some(name),
            None => (before == "--kernel").then_some(word.as_str()),
        };
        match name.map(&find).transpose()?.flatten() {
            Some(kernel) => {
                if before == "--kernel" {
                    spelled.pop();
                }
                let path = kernel.path.display().to_string();
                spelled.extend([
                    "--kernel".to_owned(),
                    path,
                    "--append".to_owned(),
                    kernel.parameters,
                ]);
            }
            None => spelled.push(word.clone()),
        }
        before = word;
    }
    Ok(spelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_left_to_whoever_opens_it_and_an_unknown_design_is_told() {
        assert_eq!(design_kernel(Path::new("./design")).unwrap(), None);
        let told = design_kernel(Path::new("design:bais"))
            .unwrap_err()
            .to_string();
        assert!(told.contains("did you mean `bias`?"), "{told}");
    }

    #[test]
    fn a_design_in_a_command_line_becomes_its_file_and_its_words() {
        let find = |name: &str| {
            Ok((name == "design:bias").then(|| DesignKernel {
                path: "/c/vmlinux".into(),
                parameters: "pin_tracking=bias".into(),
            }))
        };
        let spelled = |line: &str| {
            let words = line.split(' ').map(str::to_owned).collect();
            spelled_out(words, find).unwrap().join(" ")
        };
        let there = "run --kernel /c/vmlinux --append pin_tracking=bias --cpus 2";
        assert_eq!(spelled("run --kernel design:bias --cpus 2"), there);
        assert_eq!(spelled("run --kernel=design:bias --cpus 2"), there);
        assert_eq!(
            spelled("run --kernel ./k --cmdline design:bias"),
            "run --kernel ./k --cmdline design:bias"
        );
    }
}
