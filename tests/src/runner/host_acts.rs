//! What a step does to the machine from the host's side.

use pincushion_vmm::config::units::parse_size;
use toml::Value;

use super::stage::Stage;
use super::trouble::Trouble;
use crate::scenario::control_step::ControlStep;
use crate::scenario::fill;
use crate::scenario::model::BalloonAct;

impl Stage<'_> {
    pub(super) fn ask_balloon(&self, act: &BalloonAct) -> Result<(), Trouble> {
        let Some(balloon) = &self.balloon else {
            return Err(Trouble::Stuck("the machine has no balloon".into()));
        };
        match act {
            BalloonAct::Target(target) => {
                let bytes = parse_size(target).map_err(Trouble::Stuck)?;
                balloon
                    .set_target(bytes)
                    .map_err(|error| Trouble::Stuck(error.to_string()))
            }
            BalloonAct::Statistics(wanted) => {
                if *wanted {
                    balloon.request_statistics();
                }
                Ok(())
            }
        }
    }

    pub(super) fn type_text(&self, text: &str) -> Result<(), Trouble> {
        let taken = self
            .console
            .as_ref()
            .map(|console| console.send(text.as_bytes()));
        if taken == Some(text.len()) {
            return Ok(());
        }
        Err(Trouble::Stuck(
            "the virtio console does not take what is typed".into(),
        ))
    }

    pub(super) fn ask_control(&self, step: &ControlStep) -> Result<(), Trouble> {
        let Some(control) = &self.control else {
            return Err(Trouble::Stuck("the machine has no control socket".into()));
        };
        let stuck = |why: &dyn std::fmt::Display| Trouble::Stuck(why.to_string());
        let plain = Value::try_from(step).map_err(|error| stuck(&error))?;
        let filled = fill(&plain, &self.values).map_err(|missing| stuck(&missing))?;
        let step: ControlStep = filled.try_into().map_err(|error| stuck(&error))?;
        control.ask(&step).map_err(Trouble::Stuck)
    }
}
