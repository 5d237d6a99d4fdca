//! The guest's agent: PID 1, which runs a scenario's steps and reports each.
//!
//! It promises that each line on `/dev/ttyS1` is answered by a report, that a step's two marks stand
//! as close around its system calls as it can make them, and that it does not crash: a wrong request
//! is refused, a panic in a step's thread and a fault in a mapping become the step's failure. It does
//! not limit how long a step takes: the host does.
//!
//! ```text
//! ttyS1 --> serve --queue--> workers --> steps --> sys --> kernel
//!                               |
//! ports <-- marks, reports <----+
//! ```
//!
//! The vocabulary is [`pincushion_abi::Step`], the way out is [`pincushion_abi::port`], and what the
//! kernel command line can say to the agent is [`pincushion_abi::cmdline`].

mod agent;
mod boot;
mod fault;
mod found;
mod kmsg;
mod modules;
mod port;
mod reaper;
mod serve;
mod stamp;
mod steps;
mod sys;
mod workers;

fn main() {
    std::panic::set_hook(Box::new(|panic| console(&panic.to_string())));
    sys::guard::install();
    let reason = match boot::run() {
        Ok(()) => "the request line ended".to_owned(),
        Err(reason) => reason,
    };
    console(&reason);
    boot::power_off();
}

/// Says something on the guest's console, for people. Takes no lock, so a forked child may use it.
fn console(text: &str) {
    sys::tty::say_on_console(format!("pincushion-agent: {text}\n").as_bytes());
}
