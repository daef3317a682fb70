//! What changes when a configuration is loaded? Old names keep their ids, and with them incidents and budgets.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::moving;
use crate::event::Event;
use crate::id::{CheckId, ServiceId};
use crate::pipeline::plan::{Purpose, act_and_verify};
use crate::pipeline::run::Phase;
use crate::pipeline::{clock, drive, start, undo};
use crate::spec::{Action, Spec};
use crate::turning::Turning;
use crate::watch;

/// Puts a configuration in force, then brings up what lidless itself runs.
pub(crate) fn load(t: &mut Turning<'_>, spec: Arc<Spec>) {
    if *t.state.spec != *spec || t.state.seq.0 == 0 {
        let_go(t, &spec);
        let (services, checks) = assign(t, &spec);
        t.emit(Event::ConfigApplied { spec, services, checks });
        // An incident whose failing checks all left the configuration has nobody left to say that it is over.
        let open: Vec<_> = t.state.incidents.values().map(|incident| incident.service).collect();
        for service in open {
            watch::close_if_recovered(t, service, None, None);
        }
    }
    bring_up(t);
    let runs: Vec<_> = t.state.runs.keys().copied().collect();
    for run in runs {
        moving(t, run, |t| clock::unpark(t, run));
    }
    t.scratch.admit = true;
}

/// Ends the incidents and runs of services that are not in the new configuration.
fn let_go(t: &mut Turning<'_>, spec: &Spec) {
    let gone: Vec<_> = (0..t.state.services.len())
        .filter_map(|index| u32::try_from(index).ok().map(ServiceId))
        .filter(|id| {
            let service = &t.state.services[id.index()];
            service.index.is_some() && !spec.services.iter().any(|new| new.name == service.name)
        })
        .collect();
    for service in gone {
        // An act under way cannot be called back. Its run stays until its answer comes and begins nothing more; else the
        // service could come back meanwhile, and a second act would overlap the first.
        let idle = t.state.run_of(service).filter(|run| !matches!(run.focus_phase(), Phase::InFlight { .. }));
        if let Some((run, step)) = idle.map(|run| (run.id, run.focus().unwrap_or_default())) {
            moving(t, run, |t| undo::give_up(t, run, step, drive::LEFT.to_owned()));
        }
        watch::close(t, service, None, None);
    }
}

fn assign(t: &Turning<'_>, spec: &Spec) -> (Vec<ServiceId>, Vec<Vec<CheckId>>) {
    let dense = |index: usize| u32::try_from(index).expect("fewer than 2^32 services and checks");
    let services = t.state.services.iter().enumerate();
    let known: BTreeMap<&str, u32> =
        services.map(|(index, state)| (state.name.as_str(), dense(index))).collect();
    let checks = t.state.checks.iter().enumerate();
    let known_checks: BTreeMap<(u32, &str), u32> =
        checks.map(|(index, state)| ((state.service.0, state.name.as_str()), dense(index))).collect();
    let (mut next, mut next_check) = (dense(t.state.services.len()), dense(t.state.checks.len()));
    let take = |known: Option<u32>, next: &mut u32| {
        known.unwrap_or_else(|| {
            *next += 1;
            *next - 1
        })
    };
    let mut ids = Vec::with_capacity(spec.services.len());
    let mut check_ids = Vec::with_capacity(spec.services.len());
    for service in &spec.services {
        let id = take(known.get(service.name.as_str()).copied(), &mut next);
        ids.push(ServiceId(id));
        let of_service = service.checks.iter().map(|check| {
            CheckId(take(known_checks.get(&(id, check.name.as_str())).copied(), &mut next_check))
        });
        check_ids.push(of_service.collect());
    }
    (ids, check_ids)
}

/// Starts or adopts the processes that lidless runs, save those that a run is about, or an incident that may be healed.
///
/// What no heal looks after would otherwise stay down for good. After a boot of the machine everything is down, for a
/// reason that says nothing of the service; within one boot, what said "do not restart me" is left alone.
fn bring_up(t: &mut Turning<'_>) {
    if t.scratch.orders_only {
        return;
    }
    let new_boot = std::mem::take(&mut t.scratch.new_boot);
    let managed: Vec<_> = t
        .state
        .configured()
        .filter(|(_, state, spec)| {
            let left_alone = state.incident.is_some() && spec.heal.is_some() && !new_boot;
            spec.managed && state.run.is_none() && !left_alone
        })
        .map(|(id, _, spec)| (id, act_and_verify(id, spec, Action::Start)))
        .collect();
    for (service, plan) in managed {
        start::create(t, Purpose::BringUp { service }, plan);
    }
}
