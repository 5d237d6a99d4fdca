//! Flags that a kernel's register dump shows and no CPU can have had there: the memory that they were printed from was overwritten, or the CPU
//! is emulated, and the emulator failed.

use super::splat::text;

/// Whether a line of registers (`RSP: 0018:ffffc90000557ab8 EFLAGS: 1fd68646`) shows flags that no CPU has: of bits 3, 5, 15 and 22 to 31,
/// which are always clear, one is set, or bit 1, which is always set, is clear (Intel SDM volume 1, 3.4.3).
pub(super) fn has_impossible_flags(line: &str) -> bool {
    const CLEAR: u32 = 1 << 3 | 1 << 5 | 1 << 15 | !((1 << 22) - 1);
    const SET: u32 = 1 << 1;
    flags(line).is_some_and(|flags| flags & CLEAR != 0 || flags & SET == 0)
}

/// Whether a line of registers shows flags with interrupts off.
pub(super) fn interrupts_are_off(line: &str) -> bool {
    const IF: u32 = 1 << 9;
    flags(line).is_some_and(|flags| flags & IF == 0)
}

fn flags(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("EFLAGS: ")?;
    u32::from_str_radix(rest.split_whitespace().next()?, 16).ok()
}

/// Whether a line of a call trace is the entry of a maskable interrupt, so that the registers below it are those that were interrupted. A
/// CPU takes none while its interrupts are off (Intel SDM volume 3, 6.8.1).
pub(super) fn enters_by_interrupt(line: &str) -> bool {
    // What stands behind a question mark is left over on the stack.
    let frame = text(line).trim_start();
    frame.starts_with("asm_sysvec_") || frame.starts_with("asm_common_interrupt+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_no_cpu_has_are_seen() {
        let line = |flags| format!("[   21.2] RSP: 0018:ffffc90000557ab8 EFLAGS: {flags}");
        for impossible in ["1fd68646", "00000244", "0000824e"] {
            assert!(has_impossible_flags(&line(impossible)), "{impossible}");
        }
        for possible in ["00000246", "00010246", "00200a93", "00000002", ""] {
            assert!(!has_impossible_flags(&line(possible)), "{possible}");
        }
        assert!(!has_impossible_flags(
            "RIP: 0010:alloc_pages_bulk_noprof+0x0/0x630"
        ));
        for (digits, off) in [("00000006", true), ("00000206", false), ("", false)] {
            assert_eq!(interrupts_are_off(&line(digits)), off);
        }
    }

    #[test]
    fn the_entry_of_an_interrupt_is_known_from_that_of_a_fault_and_from_what_is_left_over() {
        let is = |frame: &str| enters_by_interrupt(&format!("[    6.926960]  {frame}+0x1a/0x20"));
        assert!(is("asm_sysvec_apic_timer_interrupt") && is("asm_common_interrupt"));
        assert!(!is("asm_exc_page_fault") && !is("? asm_sysvec_apic_timer_interrupt"));
        assert!(!is("sysvec_apic_timer_interrupt"));
    }
}
