//! The keyboard controller, reduced to the one command that PCs use it for: pulse the reset line.

use crate::bus::{BusDevice, Flow};

/// Offset of the command and status port from 0x60.
const COMMAND: u64 = 4;
/// "Pulse output line 0", which is the CPU's reset.
const RESET_COMMAND: u8 = 0xfe;

/// Ports 0x60 to 0x64. Status reads 0: input buffer empty, so that a kernel that resets does not wait.
#[derive(Debug, Default)]
pub struct I8042;

impl I8042 {
    /// Number of I/O ports, from 0x60. Port 0x61 in between is KVM's.
    pub const LEN: u64 = 5;
}

impl BusDevice for I8042 {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Flow {
        if offset == COMMAND && data.first() == Some(&RESET_COMMAND) {
            Flow::Reset
        } else {
            Flow::Continue
        }
    }

    fn reset(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_command_resets() {
        assert_eq!(I8042.write(COMMAND, &[0xfe]), Flow::Reset);
        assert_eq!(I8042.write(COMMAND, &[0xaa]), Flow::Continue);
        assert_eq!(I8042.write(0, &[0xfe]), Flow::Continue);
        let mut status = [0xff];
        I8042.read(COMMAND, &mut status);
        assert_eq!(status, [0]);
    }
}
