//! What people write: fault plans, `--fault` flags, scenarios, machine files.
//!
//! Byte 0 says which; the rest is text. Verifies: it is refused with words that name the file, or is read; what was read can be
//! explained, obeyed by an injector, and written so that it reads back as what it was.

use std::path::Path;

use pincushion_devices::context::Context;
use pincushion_devices::fault::{Outside, Plan, Rule};
use pincushion_devices::trace::Tracer;
use pincushion_test::scenario;
use pincushion_vmm::config::VmConfig;
use pincushion_vmm::config::key_values;

pub fn target(bytes: &[u8]) {
    let Some((which, text)) = bytes.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match which % 4 {
        0 => plan(text),
        1 => flag(text),
        2 => scenario(text),
        _ => machine(text),
    }
}

fn plan(text: &str) {
    match Plan::parse(text, Path::new("p.toml")) {
        Ok(plan) => obeyed(&plan),
        Err(error) => assert!(error.to_string().starts_with("p.toml"), "{error}"),
    }
}

fn obeyed(plan: &Plan) {
    let again = toml::to_string(plan).expect("a plan is TOML");
    let again = Plan::parse(&again, Path::new("again.toml"));
    assert_eq!(again.as_ref(), Ok(plan), "written and read again");
    let json = serde_json::to_string(plan).expect("a plan is JSON");
    let again: Plan = serde_json::from_str(&json).expect("what was written");
    assert_eq!(again, *plan, "written and read again as JSON");
    let said = plan.explain(|_| Outside::Unknown);
    assert!(!said.is_empty());
    let context = Context::new(plan.clone(), std::sync::Arc::new(Tracer::new()));
    let context = context.expect("a plan that was read is obeyed");
    for device in ["a", "b"] {
        let _ = context.injector().for_device(device);
    }
    context.finish();
}

fn flag(text: &str) {
    match Rule::from_flag(text) {
        Ok(rule) => obeyed(&Plan {
            seed: 0,
            rules: vec![rule],
        }),
        Err(error) => assert!(!error.is_empty()),
    }
}

fn scenario(text: &str) {
    // Parts that a scenario includes are only looked for beside it, and there is nothing.
    let path = Path::new("/nonexistent/s.toml");
    match scenario::parse(text, path) {
        Ok(scenario) => {
            let again = toml::to_string(&scenario).expect("a scenario is TOML");
            let again = scenario::parse(&again, path).expect("what was written");
            assert_eq!(again, scenario, "written and read again");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn machine(text: &str) {
    let path = Path::new("vm.toml");
    match VmConfig::parse(path, text) {
        Ok(config) => {
            let again = toml::to_string(&config).expect("a machine is TOML");
            let again = VmConfig::parse(path, &again).expect("what was written");
            assert_eq!(again, config, "written and read again");
            let resolved = config.resolve();
            if let Err(error) = resolved {
                assert!(!error.to_string().is_empty());
            }
        }
        Err(error) => assert!(error.to_string().starts_with("vm.toml"), "{error}"),
    }
    // The same text as the value of a flag.
    let _ = key_values::parse::<pincushion_vmm::config::BlkConfig>(text);
    let _ = key_values::parse::<pincushion_vmm::config::NetConfig>(text);
}
