//! PID 1 of the nested machine, and (started by itself with the argument `serve`) its server.

fn main() {
    if std::process::id() == 1 {
        pincushion_agent::nested::init::run();
    }
    if std::env::args().nth(1).as_deref() != Some("serve") {
        eprintln!(
            "pincushion-nested-agent is PID 1 of the nested machine and does nothing elsewhere"
        );
        std::process::exit(2);
    }
    if let Err(why) = pincushion_agent::nested::init::serve() {
        eprintln!("nested: {why}");
        std::process::exit(1);
    }
}
