use plugin_package::Requirement;

use super::*;

fn member(name: &str) -> Member {
    let part = Part {
        name: name.to_owned(),
        version: semver::Version::new(1, 0, 0),
        provides: Vec::new(),
        requires: Vec::new(),
        conflicts: Vec::new(),
    };
    Member { part, is_wanted: true, standing: None, doing: None, failed: None }
}

impl Member {
    fn requiring(mut self, what: &str) -> Self {
        let requirement =
            Requirement { what: what.to_owned(), version: None, optional: false, why: String::new() };
        self.part.requires.push(requirement);
        self
    }

    fn providing(mut self, what: &str) -> Self {
        self.part.provides.push(what.to_owned());
        self
    }

    fn standing(mut self, state: PluginState, is_current: bool) -> Self {
        let (origin, message) = (Origin::Spec, "a pod is missing".to_owned());
        self.standing = Some(Standing { origin, state, message, is_unfinished: false, is_current });
        self
    }

    fn ready(self) -> Self {
        self.standing(PluginState::Ready, true)
    }

    fn outdated(self) -> Self {
        self.standing(PluginState::Ready, false)
    }

    fn by_command(mut self) -> Self {
        if let Some(standing) = &mut self.standing {
            standing.origin = Origin::Command;
        }
        self
    }

    fn unwanted(mut self) -> Self {
        self.is_wanted = false;
        self
    }
}

fn failure() -> Failure {
    Failure::new("PLUGIN-NOT-READY", "plugin base", "why", "next")
}

fn steps(members: &[Member]) -> Vec<Step> {
    plan_steps(members, Gate::Everything)
}

fn wait(why: &str) -> Step {
    Step::Wait(why.to_owned())
}

#[test]
fn a_plugin_begins_when_all_that_it_needs_is_ready_and_others_beside_it() {
    let base = member("base").providing("loadbalancer");
    let top = member("top").requiring("loadbalancer");
    let other = member("other");
    let all = [top.clone(), base.clone(), other.clone()];
    assert_eq!(steps(&all), [wait("it waits for base"), Step::Begin, Step::Begin]);
    let busy = Member { doing: Some("is being upgraded".to_owned()), ..base.clone().ready() };
    let all = [top.clone(), busy, other.clone().ready()];
    assert_eq!(
        steps(&all),
        [wait("it waits for base, which is being upgraded"), wait("it is being upgraded"), Step::Done]
    );
    // An upgrade of what it needs comes first, too.
    let all = [top.clone(), base.clone().outdated()];
    assert_eq!(steps(&all), [wait("it waits for base"), Step::Begin]);
    assert_eq!(steps(&[top.clone(), base.clone().ready()]), [Step::Begin, Step::Done]);
    // What a command added is enough, as it is.
    let added = base.outdated().by_command().unwanted();
    assert_eq!(steps(&[top, added]), [Step::Begin, Step::Done]);
}

#[test]
fn one_that_failed_is_not_tried_again_and_holds_up_only_those_that_need_it() {
    let base = Member { failed: Some(failure()), ..member("base") };
    let all = [base, member("top").requiring("base"), member("other")];
    assert_eq!(steps(&all), [Step::Failed(failure()), wait("it waits for base, which failed"), Step::Begin]);
}

#[test]
fn before_nodes_are_ready_only_the_network_comes() {
    let all = [
        member("flannel").providing("cni").requiring("base"),
        member("base"),
        member("metallb").requiring("cni"),
        member("there").ready(),
    ];
    assert_eq!(
        plan_steps(&all, Gate::Network),
        [wait("it waits for base"), Step::Begin, wait("it waits until all nodes are ready"), Step::Done]
    );
}

#[test]
fn what_left_the_file_goes_in_the_reverse_order_and_what_a_command_added_stays() {
    let base = member("base").ready().unwanted();
    let top = member("top").requiring("base").ready().unwanted();
    let added = member("added").ready().by_command().unwanted();
    assert_eq!(
        steps(&[base.clone(), top, added.clone()]),
        [wait("it waits until top is gone"), Step::Remove, Step::Done]
    );
    assert_eq!(steps(&[base, added]), [Step::Remove, Step::Done]);
}

#[test]
fn of_what_there_may_be_one_the_old_one_goes_first() {
    let old = member("flannel").providing("cni").ready().unwanted();
    let new = member("cilium").providing("cni");
    assert_eq!(steps(&[new.clone(), old]), [wait("it waits until flannel is gone"), Step::Remove]);
    assert_eq!(steps(&[new]), [Step::Begin]);
}

#[test]
fn what_is_as_it_shall_be_is_left_alone_and_what_was_begun_goes_on() {
    assert_eq!(steps(&[member("a").ready().by_command()]), [Step::Own]);
    let degraded = member("a").standing(PluginState::Degraded, true);
    assert_eq!(steps(&[degraded]), [wait("it is not ready any more: a pod is missing")]);
    let mut begun = member("a").standing(PluginState::Installing, false);
    if let Some(standing) = &mut begun.standing {
        standing.is_unfinished = true;
    }
    assert_eq!(steps(&[begun.clone()]), [Step::Resume]);
    assert_eq!(steps(&[begun.unwanted()]), [Step::Resume]);
}
