//! How is it said in words what begins a run of a pipeline?

use lidless_core::spec::PipelineSpec;
use lidless_core::trigger::{CatchUp, IncidentMoment, RunEnd, Trigger};

use crate::config::settings::PipelineSettings;
use crate::config::units::say_duration;
use crate::schedule;

/// Returns a few words for each thing, besides a person, that begins a run.
pub(super) fn words(spec: &PipelineSpec, settings: &PipelineSettings) -> Vec<String> {
    let hook = settings.hook.iter().map(|_| "on a signed request".to_owned());
    spec.triggers.iter().map(word).chain(hook).collect()
}

fn word(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Every { every } => format!("every {}", say_duration(*every)),
        Trigger::Cron { expression, zone, catch_up } => {
            let said = schedule::check(expression).unwrap_or_else(|_| expression.clone());
            let missed = match catch_up {
                CatchUp::None => "",
                CatchUp::One => ", one for all that were missed",
                CatchUp::All => ", also those that were missed",
            };
            format!("{said} ({zone}){missed}")
        }
        Trigger::Incident { services, when } => {
            let moment = match when {
                IncidentMoment::Opened => "opens",
                IncidentMoment::GivenUp => "is given up",
                IncidentMoment::Closed => "is over",
            };
            format!("when an incident of {} {moment}", services.join(" or "))
        }
        Trigger::Run { pipeline, when } => {
            let end = match when {
                RunEnd::Done => "is done",
                RunEnd::Failed => "has failed",
                RunEnd::Any => "has ended",
            };
            format!("when a run of {pipeline} {end}")
        }
    }
}
