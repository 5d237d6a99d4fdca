//! Each input of the corpus is met again by every `cargo test`, without libFuzzer.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{TARGETS, Target};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

pub fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let alone = std::env::var_os("PINCUSHION_FUZZ_INPUT").map(PathBuf::from);
    let trials = TARGETS.iter().map(|(name, target)| {
        let (target, alone) = (*target, alone.clone());
        let dir = Path::new(CORPUS).join(name);
        Trial::test(format!("{name}_meets_its_corpus"), move || {
            replay(target, &dir, alone.as_deref())
        })
    });
    let planted = Trial::test("chains_finds_a_planted_bug", || {
        println!("a panic that says `used while it is held` is what is wanted");
        let met = std::panic::catch_unwind(crate::chains::meet_planted_bug);
        let said = met.err().and_then(|said| said.downcast::<String>().ok());
        match said {
            Some(said) if said.contains("used while it is held") => Ok(()),
            other => Err(format!("it was not found: {other:?}").into()),
        }
    });
    let trials = trials.chain([planted]).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn replay(target: Target, dir: &Path, alone: Option<&Path>) -> Result<(), Failed> {
    let files = match alone {
        Some(file) => vec![file.to_owned()],
        None => {
            let entries = std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
            entries.collect::<Result<_, _>>()?
        }
    };
    if files.is_empty() {
        return Err(format!("{} has no input", dir.display()).into());
    }
    for file in files {
        let bytes = std::fs::read(&file)?;
        let met = std::panic::catch_unwind(|| target(&bytes));
        if met.is_err() {
            return Err(format!("{}: the message is above", file.display()).into());
        }
    }
    Ok(())
}
