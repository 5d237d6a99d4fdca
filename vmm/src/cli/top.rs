//! `pincushion top SOCK`: queues and held pages of a running machine, live. It only looks: no key changes the machine.
//!
//! The terminal is given back as it was on every way out: a key, a signal, the end of the machine, a panic.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Terminal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::ctl::client_exit_code;
use super::top_view::{Seen, draw};
use crate::control::client::{Client, ClientError};
use crate::exit_code;

/// Options of `pincushion top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The machine's control socket (`pincushion run --api-sock PATH`)
    sock: PathBuf,
    /// Milliseconds between two looks, 100 to 60000
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    every: u64,
}

/// Holds that are asked for: more than a screen has lines for.
const HOLDS: usize = 200;

/// Shows the machine until a key is pressed or it ends.
pub fn top(args: &TopArgs) -> u8 {
    if !std::io::stdout().is_terminal() {
        eprintln!(
            "pincushion top: standard output is no terminal; `pincushion ctl {} metrics` prints the same once",
            args.sock.display()
        );
        return exit_code::BAD_ARGUMENTS;
    }
    match watch(args) {
        Ok(()) => exit_code::OK,
        Err(TopError::Client(error)) => {
            eprintln!("pincushion top: {error}");
            client_exit_code(&error)
        }
        Err(TopError::Host(error)) => {
            eprintln!("pincushion top: the terminal: {error}");
            exit_code::FAILED
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum TopError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Host(#[from] std::io::Error),
}

fn watch(args: &TopArgs) -> Result<(), TopError> {
    let client = Client::new(&args.sock)?;
    // Before the screen is taken: a wrong path is told where it can be read.
    let first = look(&client)?;
    let asked_to_leave = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, asked_to_leave.clone())?;
    }
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, &client, first, args, &asked_to_leave);
    ratatui::try_restore()?;
    match shown {
        // A machine that ends closes its socket.
        Err(TopError::Client(
            ClientError::NoSocket { .. }
            | ClientError::NobodyListens { .. }
            | ClientError::Garbled { .. },
        )) => {
            println!("the machine has ended");
            Ok(())
        }
        shown => shown,
    }
}

fn show(
    terminal: &mut DefaultTerminal,
    client: &Client,
    first: Seen,
    args: &TopArgs,
    asked_to_leave: &AtomicBool,
) -> Result<(), TopError> {
    let every = Duration::from_millis(args.every);
    let (mut before, mut now) = (None, first);
    let mut scroll = 0;
    loop {
        terminal.draw(|frame| draw(frame, before.as_ref(), &now, scroll))?;
        let next = Instant::now() + every;
        loop {
            if asked_to_leave.load(Ordering::Relaxed) {
                return Ok(());
            }
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // A signal is noticed soon enough.
            if !event::poll(left.min(Duration::from_millis(100)))? {
                continue;
            }
            match key(&event::read()?) {
                Key::Leave => return Ok(()),
                Key::Scroll(lines) => {
                    scroll = now.holds.holds.len().saturating_sub(1).min(lines(scroll));
                }
                Key::Other => {}
            }
            terminal.draw(|frame| draw(frame, before.as_ref(), &now, scroll))?;
        }
        before = Some(std::mem::replace(&mut now, look(client)?));
        scroll = scroll.min(now.holds.holds.len().saturating_sub(1));
    }
}

/// The screen of this many columns and lines that `pincushion top` shows at first, as text, for whoever has no terminal.
///
/// # Errors
/// [`ClientError`].
///
/// # Panics
/// Never: a screen in memory takes everything.
pub fn top_screen(client: &Client, columns: u16, lines: u16) -> Result<String, ClientError> {
    let seen = look(client)?;
    let backend = TestBackend::new(columns, lines);
    let mut terminal = Terminal::new(backend).expect("memory is no terminal that fails");
    terminal
        .draw(|frame| draw(frame, None, &seen, 0))
        .expect("memory is no terminal that fails");
    let screen = terminal.backend().to_string();
    let lines = screen.lines().map(|line| line.trim_matches('"').trim_end());
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    Ok(lines.join("\n"))
}

fn look(client: &Client) -> Result<Seen, ClientError> {
    Ok(Seen {
        at: Instant::now(),
        machine: client.get("/v1/machine")?,
        metrics: client.get("/v1/metrics")?,
        holds: client.get(&format!("/v1/holds?limit={HOLDS}"))?,
        gates: client.get("/v1/gates")?,
    })
}

/// What a key means.
enum Key {
    Leave,
    Scroll(fn(usize) -> usize),
    Other,
}

fn key(event: &Event) -> Key {
    let Event::Key(key) = event else {
        return Key::Other;
    };
    if key.kind == KeyEventKind::Release {
        return Key::Other;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Key::Leave,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Leave,
        KeyCode::Down | KeyCode::Char('j') => Key::Scroll(|line| line + 1),
        KeyCode::Up | KeyCode::Char('k') => Key::Scroll(|line| line.saturating_sub(1)),
        KeyCode::PageDown => Key::Scroll(|line| line + 10),
        KeyCode::PageUp => Key::Scroll(|line| line.saturating_sub(10)),
        KeyCode::Home => Key::Scroll(|_| 0),
        _ => Key::Other,
    }
}
