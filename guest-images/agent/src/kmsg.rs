//! The kernel's log, record by record from /dev/kmsg.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use pincushion_abi::Fault;

use crate::fault;

/// Most bytes of lines in one report; JSON needs a little more than the text itself.
const REPORT_BYTES: usize = 40 * 1024;

/// Where the reading stands.
#[derive(Default)]
pub struct KernelLog {
    file: Option<File>,
    /// A line that was read and did not fit into the last report.
    pending: Option<String>,
}

/// One report's worth of the log.
#[derive(Debug, Default)]
pub struct Lines {
    /// `[    1.234567] text`.
    pub lines: Vec<String>,
    /// There is more.
    pub more: bool,
    /// How often records were overwritten before they were read.
    pub lost: u64,
}

impl KernelLog {
    /// What came since the last call.
    pub fn read(&mut self) -> Result<Lines, Fault> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/kmsg")
                .map_err(|error| fault::io("open /dev/kmsg", &error))?,
        };
        let mut found = Lines::default();
        let mut bytes = 0;
        let mut record = vec![0; 8192];
        let result = loop {
            let line = match self.pending.take() {
                Some(line) => line,
                None => match file.read(&mut record) {
                    Ok(len) => readable(&String::from_utf8_lossy(&record[..len])),
                    Err(error) => match error.raw_os_error() {
                        Some(libc::EAGAIN) => break Ok(found),
                        Some(libc::EINTR) => continue,
                        Some(libc::EPIPE) => {
                            found.lost += 1;
                            continue;
                        }
                        _ => break Err(fault::io("read /dev/kmsg", &error)),
                    },
                },
            };
            if bytes + line.len() > REPORT_BYTES {
                self.pending = Some(line);
                found.more = true;
                break Ok(found);
            }
            bytes += line.len() + 4;
            found.lines.push(line);
        };
        self.file = Some(file);
        result
    }
}

/// A record `priority,sequence,microseconds,flags;text\n KEY=value` as dmesg shows it.
fn readable(record: &str) -> String {
    let (header, rest) = record.split_once(';').unwrap_or(("", record));
    let text = rest.lines().next().unwrap_or("");
    let micros: u64 = header
        .split(',')
        .nth(2)
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    format!(
        "[{:5}.{:06}] {text}",
        micros / 1_000_000,
        micros % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_with_its_time_and_without_its_keys() {
        assert_eq!(
            readable("6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n"),
            "[    5.140900] NET: Registered"
        );
        assert_eq!(readable("no header"), "[    0.000000] no header");
    }
}
