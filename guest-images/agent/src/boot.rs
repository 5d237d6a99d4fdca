//! From the kernel's hand-over to the first request: mounts, modules, the way in and the way out.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::thread;

use pincushion_abi::{Report, cmdline};

use crate::agent::Agent;
use crate::fault::{Errno, name};
use crate::port::{IoPorts, Port, SerialLines};
use crate::sys::{c_string, file, fs as calls, process, tty};
use crate::{console, modules, serve};

const TTY: &str = "/dev/ttyS1";

/// What is mounted before anything else: source, target, type.
const MOUNTS: [(&str, &str, &str); 5] = [
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),
    ("debugfs", "/sys/kernel/debug", "debugfs"),
];

/// What the kernel command line says to the agent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    serial: bool,
    hung_task: Option<String>,
    unknown: Vec<String>,
}

/// Boots and serves. Ends with the reason why it cannot (go on to) serve.
pub fn run() -> Result<(), String> {
    if std::process::id() != 1 {
        return Err("this is PID 1 of a guest: it does nothing elsewhere".into());
    }
    mount_all();
    let options = Options::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let mut notes: Vec<String> = options
        .unknown
        .iter()
        .map(|word| format!("{word:?} is unknown"))
        .collect();
    if let Some(seconds) = &options.hung_task
        && let Err(error) = fs::write("/proc/sys/kernel/hung_task_timeout_secs", seconds)
    {
        notes.push(format!(
            "the hung task limit could not be set to {seconds:?}: {error}"
        ));
    }
    let module_errors = modules::load_listed();

    let tty =
        open_tty().map_err(|errno| format!("no second serial port: {TTY}: {}", say(&errno)))?;
    let port: Arc<dyn Port> = if options.serial {
        Arc::new(SerialLines::new(
            tty.try_clone().map_err(|error| format!("{TTY}: {error}"))?,
        ))
    } else {
        let ports = IoPorts::open();
        Arc::new(ports.map_err(|errno| format!("no I/O ports: iopl: {}", say(&errno)))?)
    };
    let agent = Arc::new(Agent::new(port));
    start_reaper(&agent).map_err(|error| format!("no thread to reap children: {error}"))?;
    agent.port.report(&Report::Hello {
        version: pincushion_abi::VERSION,
        release: release(),
        module_errors,
    });
    for text in notes {
        agent.port.report(&Report::Note { text });
    }
    serve::serve(&agent, tty).map_err(|error| format!("{TTY}: {error}"))
}

/// Ends the machine; where the kernel cannot, tells so and waits for ever, as PID 1 must not end.
pub fn power_off() -> ! {
    if std::process::id() != 1 {
        std::process::exit(1);
    }
    file::sync();
    let errno = process::reboot(libc::RB_POWER_OFF);
    console(&format!("could not power off: {}", say(&errno)));
    loop {
        thread::park();
    }
}

fn say(errno: &Errno) -> String {
    format!("{} {}", errno.call, name(errno.number))
}

fn mount_all() {
    for (source, target, fstype) in MOUNTS {
        let made = fs::create_dir_all(target);
        let mounted = c_string(source).and_then(|source| {
            let (target, fstype) = (c_string(target)?, c_string(fstype)?);
            Ok(calls::mount(&source, &target, &fstype, 0, c""))
        });
        match mounted {
            Ok(Ok(())) => {}
            // devtmpfs may be there already (CONFIG_DEVTMPFS_MOUNT).
            Ok(Err(errno)) if errno.number == libc::EBUSY => {}
            Ok(Err(errno)) => console(&format!("{target}: {} (directory: {made:?})", say(&errno))),
            Err(fault) => console(&format!("{target}: {}", fault.name)),
        }
    }
}

/// The second serial port, raw. EIO means that the driver found no such port.
fn open_tty() -> Result<File, Errno> {
    let errno = |error: &io::Error| Errno {
        call: "open",
        number: error.raw_os_error().unwrap_or(0),
    };
    let tty = File::options()
        .read(true)
        .write(true)
        .open(TTY)
        .map_err(|error| errno(&error))?;
    tty::set_raw(&tty)?;
    Ok(tty)
}

fn start_reaper(agent: &Arc<Agent>) -> io::Result<()> {
    let agent = Arc::clone(agent);
    thread::Builder::new()
        .name("reaper".into())
        .spawn(move || agent.reaper.run())
        .map(drop)
}

fn release() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease");
    text.map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

impl Options {
    fn parse(line: &str) -> Self {
        let mut options = Self::default();
        for word in line
            .split_whitespace()
            .filter(|word| word.starts_with("pincushion."))
        {
            if word == cmdline::AGENT_SERIAL {
                options.serial = true;
            } else if let Some(seconds) = word.strip_prefix(cmdline::HUNG_TASK) {
                options.hung_task = Some(seconds.to_owned());
            } else {
                options.unknown.push(word.to_owned());
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read_and_the_kernels_own_words_are_left_alone() {
        let options = Options::parse(
            "console=ttyS0 quiet pincushion.agent=serial pincushion.hung_task=600\n",
        );
        let expected = Options {
            serial: true,
            hung_task: Some("600".into()),
            unknown: vec![],
        };
        assert_eq!(options, expected);
        assert_eq!(
            Options::parse("pincushion.agent=serail x").unknown,
            ["pincushion.agent=serail"]
        );
    }

    #[test]
    fn outside_a_guest_the_agent_says_what_it_is() {
        assert!(run().unwrap_err().contains("PID 1"));
    }
}
