//! Pure: what is to be done to each plugin of a cluster so that it comes to be as its file says, given where all of them
//! stand. Called by [`super::converge`] again and again; it takes no hint of what it decided before.

use k8sctl_types::failure::Failure;

use super::wish::Gate;
use crate::dag::{self, EXCLUSIVE, Part};
use crate::records::Origin;
use crate::status::PluginState;

/// A plugin that the file has, or that is installed.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) part: Part,
    /// The file has it.
    pub(super) is_wanted: bool,
    /// How it is installed; `None`: it is not.
    pub(super) standing: Option<Standing>,
    /// What is done to it now.
    pub(super) doing: Option<String>,
    /// The try of this attempt failed.
    pub(super) failed: Option<Failure>,
}

impl Member {
    /// The file has it, or has brought it.
    pub(super) fn is_of_spec(&self) -> bool {
        let of_spec = |standing: &Standing| standing.origin == Origin::Spec;
        self.is_wanted || self.standing.as_ref().is_some_and(of_spec)
    }
}

/// How a plugin is installed.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) origin: Origin,
    pub(super) state: PluginState,
    pub(super) message: String,
    /// Something was begun and has not ended.
    pub(super) is_unfinished: bool,
    /// It is what the file wants: this package, asked with this.
    pub(super) is_current: bool,
}

/// What is to be done to one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: it is as it shall be, or none of our business.
    Done,
    /// Nothing yet.
    Wait(String),
    /// Nothing any more in this attempt.
    Failed(Failure),
    /// To go on with what was begun.
    Resume,
    /// To apply what the file wants.
    Begin,
    /// To note that the file has it.
    Own,
    /// To take it away.
    Remove,
}

/// One step for each, in their order.
pub(super) fn plan_steps(members: &[Member], gate: Gate) -> Vec<Step> {
    let parts: Vec<_> = members.iter().map(|member| member.part.clone()).collect();
    let waits = dag::waits_for(&parts);
    let network = needed_for_network(members, &waits);
    let step = |index: usize| {
        let member = &members[index];
        if let Some(doing) = &member.doing {
            return Step::Wait(format!("it {doing}"));
        }
        if let Some(failure) = &member.failed {
            return Step::Failed(failure.clone());
        }
        if member.standing.as_ref().is_some_and(|standing| standing.is_unfinished) {
            return Step::Resume;
        }
        if !member.is_wanted {
            return removal_step(members, &waits, index);
        }
        if let Some(standing) = member.standing.as_ref().filter(|standing| standing.is_current) {
            return current_step(standing);
        }
        if gate == Gate::Network && !network.contains(&index) {
            return Step::Wait("it waits until all nodes are ready".to_owned());
        }
        if let Some(other) = in_the_way(members, index) {
            return Step::Wait(format!("it waits until {} is gone", other.part.name));
        }
        let missing = waits[index].iter().find(|&&other| !is_settled(&members[other]));
        match missing {
            Some(&other) => Step::Wait(waits_for(&members[other])),
            None => Step::Begin,
        }
    };
    (0..members.len()).map(step).collect()
}

fn current_step(standing: &Standing) -> Step {
    match (standing.state, standing.origin) {
        (PluginState::Ready, Origin::Spec) => Step::Done,
        (PluginState::Ready, Origin::Command) => Step::Own,
        _ => Step::Wait(format!("it is not ready any more: {}", standing.message)),
    }
}

fn removal_step(members: &[Member], waits: &[Vec<usize>], index: usize) -> Step {
    match &members[index].standing {
        Some(standing) if standing.origin == Origin::Spec => {}
        // What a command added stays.
        _ => return Step::Done,
    }
    let needs_it = |other: &usize| waits[*other].contains(&index) && is_leaving(&members[*other]);
    match (0..members.len()).find(needs_it) {
        Some(other) => Step::Wait(format!("it waits until {} is gone", members[other].part.name)),
        None => Step::Remove,
    }
}

/// It shall go, and is still there.
fn is_leaving(member: &Member) -> bool {
    !member.is_wanted && member.is_of_spec()
}

/// One that shall go and still has that of which there may be one.
fn in_the_way(members: &[Member], index: usize) -> Option<&Member> {
    let both = |other: &Part| {
        let here = &members[index].part.provides;
        other.provides.iter().any(|what| here.contains(what) && EXCLUSIVE.contains(&what.as_str()))
    };
    members.iter().find(|member| is_leaving(member) && both(&member.part))
}

/// Others may build on it.
fn is_settled(member: &Member) -> bool {
    let settled = |standing: &Standing| {
        standing.state == PluginState::Ready
            && !standing.is_unfinished
            && (standing.is_current || !member.is_wanted)
    };
    member.doing.is_none() && member.standing.as_ref().is_some_and(settled)
}

fn waits_for(other: &Member) -> String {
    let name = &other.part.name;
    match (&other.failed, &other.doing) {
        (Some(_), _) => format!("it waits for {name}, which failed"),
        (None, Some(doing)) => format!("it waits for {name}, which {doing}"),
        (None, None) => format!("it waits for {name}"),
    }
}

/// Those that make the pod network, and what they need.
fn needed_for_network(members: &[Member], waits: &[Vec<usize>]) -> Vec<usize> {
    let makes = |index: &usize| members[*index].part.provides.iter().any(|what| what == "cni");
    let mut needed: Vec<_> = (0..members.len()).filter(makes).collect();
    let mut next = 0;
    while let Some(&index) = needed.get(next) {
        for &other in &waits[index] {
            if !needed.contains(&other) {
                needed.push(other);
            }
        }
        next += 1;
    }
    needed
}

#[cfg(test)]
mod tests;
