//! Swap files and devices.

use pincushion_abi::step::Swap;

use crate::agent::Agent;
use crate::fault::sentence;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::transfer::whole;
use crate::sys::memory::PAGE;
use crate::sys::{c_string, file, swap};

/// `union swap_header` (include/linux/swap.h): the numbers stand behind 1024 bytes for a boot loader, the signature at the page's end.
const NUMBERS_AT: usize = 1024;
const SIGNATURE: &[u8] = b"SWAPSPACE2";

/// One act of the family.
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, act: &Swap) -> StepResult {
    match act {
        Swap::Format { file, len } => format(agent, stamp, file, *len),
        Swap::On { path } => {
            let path = c_string(path)?;
            stamp.around(|| swap::on(&path))?;
            Ok(Found::nothing())
        }
        Swap::Off { path } => {
            let path = c_string(path)?;
            stamp.around(|| swap::off(&path))?;
            Ok(Found::nothing())
        }
    }
}

fn format(agent: &Agent, stamp: &mut Stamp<'_>, name: &str, len: u64) -> StepResult {
    let fd = agent.file(name)?;
    let header = header(len).ok_or_else(|| {
        sentence(
            "swap",
            format!("{len} bytes: a swap space has 2 to 2^32 pages"),
        )
    })?;
    let written = stamp.around(|| file::pwrite(fd, &header, 0))?;
    whole("pwrite64", written, PAGE as u64)?;
    Ok(Found::nothing())
}

/// The first page of a swap space of `len` bytes; `None` where that is no size for one.
fn header(len: u64) -> Option<[u8; PAGE]> {
    let last = u32::try_from((len / PAGE as u64).checked_sub(1)?).ok()?;
    if last == 0 {
        return None;
    }
    let mut page = [0; PAGE];
    page[NUMBERS_AT..][..4].copy_from_slice(&1u32.to_le_bytes());
    page[NUMBERS_AT + 4..][..4].copy_from_slice(&last.to_le_bytes());
    page[PAGE - SIGNATURE.len()..].copy_from_slice(SIGNATURE);
    Some(page)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::steps::testing::Bench;

    #[test]
    fn a_header_says_how_long_the_space_is_and_a_space_of_one_page_is_none() {
        let page = header(64 << 20).unwrap();
        assert_eq!(page[1024..1032], [1, 0, 0, 0, 0xff, 0x3f, 0, 0]);
        assert_eq!(&page[4086..], b"SWAPSPACE2");
        assert!(header(4096).is_none() && header(0).is_none());
    }

    #[test]
    fn a_format_keeps_what_is_behind_the_first_page() {
        let bench = Bench::new();
        bench.create("s");
        bench.ok(json!({"op": "write-pattern", "file": "s", "offset": 0, "len": 12288, "pattern": {"byte": 7}}));
        bench.ok(json!({"op": "swap", "do": "format", "file": "s", "len": 12288}));
        let rest = json!({"op": "read-verify", "file": "s", "offset": 4096, "len": 8192, "pattern": {"byte": 7}});
        assert_eq!(bench.ok(rest)["equal"], pincushion_abi::Value::Bool(true));
    }

    #[test]
    fn what_cannot_be_swapped_to_is_a_fault_of_that_call() {
        let bench = Bench::new();
        let on = json!({"op": "swap", "do": "on", "path": bench.path("none")});
        assert_eq!(bench.fails(on).call, "swapon");
    }
}
