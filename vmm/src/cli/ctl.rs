//! `pincushion ctl SOCK ...`: talks to a running machine. Tables for people, JSON for programs.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::show;
use crate::control::client::{Client, ClientError};
use crate::control::model;
use crate::exit_code;

/// Options of `pincushion ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// The machine's control socket (`pincushion run --api-sock PATH`)
    sock: PathBuf,
    /// Print JSON, as the socket gives it
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The machine at a glance
    State,
    /// What is held now, the oldest first
    Holds {
        /// Only of this device
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
    },
    /// Who holds a frame now
    Frame {
        /// Number of the frame: guest physical address / 4096
        frame: u64,
    },
    /// Gates, and how many requests wait there
    Gates,
    /// Open a gate for good
    Open {
        /// Its name
        gate: String,
        /// Also where neither the plan names it nor a request waits there
        #[arg(long)]
        undeclared: bool,
    },
    /// Show the fault plan, or put another in its place; what is parked keeps its wait
    Plan {
        /// The new plan, in TOML (docs/fault-plan.md)
        file: Option<PathBuf>,
        /// The rules of the new plan do not act before `arm`
        #[arg(long, requires = "file")]
        disarmed: bool,
    },
    /// Let the rules of the plan act
    Arm,
    /// Let no rule of the plan act; what is parked keeps its wait
    Disarm,
    /// The devices, and what of them may be changed
    Devices,
    /// Change a device while it runs
    Set {
        /// Its name
        device: String,
        /// `hold-ms=N` (each request that no rule speaks of is held so long; 0: not at all) or a setting of the device
        #[arg(required = true, value_name = "NAME=N", value_parser = parse_setting)]
        settings: Vec<(String, u64)>,
    },
    /// Counters and latencies per queue
    Metrics {
        /// As Prometheus wants them
        #[arg(long, conflicts_with = "json")]
        prometheus: bool,
    },
    /// The latest events
    Events {
        /// Go on with those that come, until the machine ends
        #[arg(long)]
        follow: bool,
        /// Only events with a greater number [default: the last 20, or with --follow only new ones]
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
    },
    /// Stop the vCPUs and let the devices take no new work
    Pause,
    /// Go on
    Resume,
    /// Write the machine into a file, from which `pincushion run --restore FILE` goes on; it goes on itself
    Snapshot {
        /// Which; what is there is replaced
        file: PathBuf,
    },
    /// End the run at once: the guest hears nothing
    PowerOff,
    /// Reset the machine, as the guest's own reset does
    Reset,
}

fn parse_setting(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=N")?;
    let value = value
        .parse()
        .map_err(|_| format!("`{value}` is not a whole number"))?;
    Ok((name.to_owned(), value))
}

/// Does one thing and says what came of it.
pub fn ctl(args: &CtlArgs) -> u8 {
    let client = match Client::new(&args.sock) {
        Ok(client) => client,
        Err(error) => {
            eprintln!("pincushion ctl: cannot make a socket: {error}");
            return exit_code::FAILED;
        }
    };
    let ctl = Ctl {
        client,
        json: args.json,
    };
    match ctl.run(&args.command) {
        Ok(()) => exit_code::OK,
        Err(error) => {
            eprintln!("pincushion ctl: {error}");
            error.exit_code()
        }
    }
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{}: cannot read it: {source}", path.display())]
    ReadPlan {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Plan(#[from] pincushion_devices::fault::PlanError),
}

impl CtlError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => client_exit_code(error),
            Self::ReadPlan { .. } | Self::Plan(_) => exit_code::BAD_ARGUMENTS,
        }
    }
}

/// The exit code of a client's error.
pub(super) fn client_exit_code(error: &ClientError) -> u8 {
    match error {
        ClientError::NoSocket { .. }
        | ClientError::NobodyListens { .. }
        | ClientError::Connect { .. } => exit_code::SETUP_ERROR,
        ClientError::Refused {
            status: 400..=499, ..
        } => exit_code::BAD_ARGUMENTS,
        ClientError::Refused { .. }
        | ClientError::Garbled { .. }
        | ClientError::NoAnswer { .. } => exit_code::FAILED,
    }
}

struct Ctl {
    client: Client,
    json: bool,
}

impl Ctl {
    fn run(&self, command: &Command) -> Result<(), CtlError> {
        let client = &self.client;
        match command {
            Command::State => self.print(&client.get("/v1/machine")?, show::state),
            Command::Holds { device } => self.holds(device.as_deref())?,
            Command::Frame { frame } => {
                self.print(
                    &client.get(&format!("/v1/frames/{frame}"))?,
                    show::one_frame,
                );
            }
            Command::Gates => self.print(&client.get("/v1/gates")?, show::gates),
            Command::Open { gate, undeclared } => {
                let address = format!("/v1/gates/{}/open?undeclared={undeclared}", encoded(gate));
                self.print(&client.post(&address)?, show::one_gate);
            }
            Command::Plan { file: None, .. } => self.print(&client.get("/v1/plan")?, show::plan),
            Command::Plan {
                file: Some(path),
                disarmed,
            } => self.replace_plan(path, !disarmed)?,
            Command::Arm => self.print(&client.post("/v1/plan/arm")?, show::plan),
            Command::Disarm => self.print(&client.post("/v1/plan/disarm")?, show::plan),
            Command::Devices => self.print(&client.get("/v1/devices")?, show::devices),
            Command::Set { device, settings } => self.set(device, settings)?,
            Command::Metrics { prometheus: true } => drop(print(&client.text("/metrics")?)),
            Command::Metrics { prometheus: false } => {
                self.print(&client.get("/v1/metrics")?, show::metrics);
            }
            Command::Events { follow, after } => self.events(*follow, *after)?,
            Command::Pause => self.print(&client.post("/v1/machine/pause")?, show::state),
            Command::Resume => self.print(&client.post("/v1/machine/resume")?, show::state),
            Command::Snapshot { file } => self.snapshot(file)?,
            Command::PowerOff => self.confirmed("power-off")?,
            Command::Reset => self.confirmed("reset")?,
        }
        Ok(())
    }

    fn print<T: Serialize>(&self, value: &T, table: fn(&T) -> String) {
        match self.json {
            true => print_json(value),
            false => drop(print(&table(value))),
        }
    }

    /// Only the word itself ends a guest.
    fn confirmed(&self, word: &str) -> Result<(), CtlError> {
        let body = json!({ "confirm": word });
        let address = format!("/v1/machine/{word}");
        let after: model::Machine = self.client.send(&Method::POST, &address, &body)?;
        self.print(&after, show::state);
        Ok(())
    }

    /// The machine may have another working directory than we.
    fn snapshot(&self, file: &std::path::Path) -> Result<(), CtlError> {
        let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let body = json!({ "path": path });
        let address = "/v1/machine/snapshot";
        let made: model::SnapshotMade = self.client.send(&Method::POST, address, &body)?;
        self.print(&made, show::snapshot);
        Ok(())
    }

    fn holds(&self, device: Option<&str>) -> Result<(), CtlError> {
        let filter = device.map_or_else(String::new, |name| format!("&device={}", encoded(name)));
        let mut all = model::Holds {
            total: 0,
            holds: Vec::new(),
            next: Some(0),
        };
        while let Some(after) = all.next {
            let address = format!("/v1/holds?limit=1000&after={after}{filter}");
            let page: model::Holds = self.client.get(&address)?;
            all.total = page.total;
            all.holds.extend(page.holds);
            all.next = page.next;
        }
        self.print(&all, show::holds);
        Ok(())
    }

    fn replace_plan(&self, path: &std::path::Path, armed: bool) -> Result<(), CtlError> {
        let text = std::fs::read_to_string(path).map_err(|source| CtlError::ReadPlan {
            path: path.to_owned(),
            source,
        })?;
        // Here first: the message then names the file and the line.
        pincushion_devices::fault::Plan::parse(&text, path)?;
        let body = json!({ "toml": text, "armed": armed });
        let new = self.client.send(&Method::PUT, "/v1/plan", &body)?;
        self.print(&new, show::plan);
        Ok(())
    }

    fn set(&self, device: &str, settings: &[(String, u64)]) -> Result<(), CtlError> {
        let mut change = model::DeviceChange::default();
        for (name, value) in settings {
            match name.as_str() {
                "hold-ms" => change.hold_ms = Some(*value),
                name => drop(change.settings.insert(name.to_owned(), *value)),
            }
        }
        let address = format!("/v1/devices/{}", encoded(device));
        let device: model::Device = self.client.send(&Method::PATCH, &address, &change)?;
        let devices = vec![device];
        self.print(&model::Devices { devices }, show::devices);
        Ok(())
    }

    fn events(&self, follow: bool, after: Option<u64>) -> Result<(), CtlError> {
        let line = |text: &[u8]| print_event(text, self.json);
        if follow {
            let address = after.map_or_else(
                || "/v1/events/stream".to_owned(),
                |after| format!("/v1/events/stream?after={after}"),
            );
            return Ok(self.client.lines(&address, line)?);
        }
        let newest =
            || Ok::<_, ClientError>(self.client.get::<model::Machine>("/v1/machine")?.events);
        let after = match after {
            Some(after) => after,
            None => newest()?.saturating_sub(20),
        };
        let address = format!("/v1/events?limit=10000&after={after}");
        let page: model::Events = self.client.get(&address)?;
        if page.lost > 0 {
            eprintln!("pincushion ctl: {} events before these are gone", page.lost);
        }
        for event in &page.events {
            line(event.to_string().as_bytes());
        }
        Ok(())
    }
}

/// A name as a part of an address.
fn encoded(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| match keep(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

fn print(text: &str) -> bool {
    // A reader that went away (`| head`) has seen enough.
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

fn print_json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    print(&format!("{text}\n"));
}

/// One event in one line; `false` when nobody reads any more.
fn print_event(text: &[u8], as_json: bool) -> bool {
    let line = String::from_utf8_lossy(text);
    match serde_json::from_str::<Value>(&line) {
        Ok(event) if !as_json => print(&event_line(&event)),
        _ => print(&format!("{line}\n")),
    }
}

fn event_line(event: &Value) -> String {
    let number = |key: &str| event.get(key).and_then(Value::as_u64);
    let word = event.get("event").and_then(Value::as_str).unwrap_or("?");
    let mut line = match (number("seq"), number("time_ns")) {
        (Some(seq), Some(ns)) => {
            let (seconds, micros) = (ns / 1_000_000_000, ns / 1000 % 1_000_000);
            format!("{seq:>8}  {seconds:>5}.{micros:06}  {word:<15}")
        }
        _ => format!("{:>8}  {:>12}  {word:<15}", "", ""),
    };
    if let Some(request) = event.get("request") {
        let part = |key: &str| {
            request
                .get(key)
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        let device = part("device");
        line += &format!(
            "  {}:{}#{}",
            device.trim_matches('"'),
            part("queue"),
            part("ordinal")
        );
    }
    let rest = event.as_object().into_iter().flatten();
    for (key, value) in rest {
        if !matches!(key.as_str(), "seq" | "time_ns" | "event" | "request") {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            line += &format!("  {key}={value}");
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_part_of_an_address() {
        assert_eq!(encoded("a b/c"), "a%20b%2Fc");
        assert_eq!(encoded("blk0-x_~."), "blk0-x_~.");
    }

    #[test]
    fn an_event_is_one_line() {
        let event = json!({
            "seq": 7, "time_ns": 1_500_000_000u64, "event": "parked",
            "request": { "device": "b", "queue": 0, "ordinal": 3 }, "point": "fetched",
        });
        assert_eq!(
            event_line(&event),
            "       7      1.500000  parked           b:0#3  point=fetched\n"
        );
        let lost = event_line(&json!({ "event": "events-lost", "lost": 9 }));
        assert!(
            lost.contains("events-lost") && lost.contains("lost=9"),
            "{lost}"
        );
    }
}
