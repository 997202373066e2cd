//! What a request names, and whether any node knows it: a pod is on one node, and a unit may be on some only.

use k8sctl_proto::node::v1::{LogSelector, LogUnknown, log_unknown::Wanted};
use k8sctl_types::failure::Failure;

/// See the module. Units first, then pods, in the order of the request.
#[derive(Debug)]
pub struct Asked {
    things: Vec<Thing>,
    units: usize,
    /// Some node has answered.
    has_answer: bool,
    is_settled: bool,
}

#[derive(Debug)]
struct Thing {
    object: String,
    is_known: bool,
    /// What the node says that knows most.
    message: String,
}

impl Asked {
    /// Of a request. One that goes on has been answered before.
    pub fn of(selector: &LogSelector, goes_on: bool) -> Self {
        let units = selector.units.iter().map(|name| format!("unit {name}"));
        let pods = selector.pods.iter().map(|pod| format!("pod {}/{}", pod.namespace, pod.name));
        let things = units.chain(pods);
        let things: Vec<Thing> =
            things.map(|object| Thing { object, is_known: false, message: String::new() }).collect();
        Self {
            is_settled: goes_on || things.is_empty(),
            things,
            units: selector.units.len(),
            has_answer: false,
        }
    }

    /// Notes what one node knows nothing of.
    pub fn answer(&mut self, unknown: &[LogUnknown]) {
        self.has_answer = true;
        for (place, thing) in self.things.iter_mut().enumerate() {
            let is_it = |it: &&LogUnknown| match it.wanted {
                Some(Wanted::Unit(at)) => at as usize == place,
                Some(Wanted::Pod(at)) => (at as usize).saturating_add(self.units) == place,
                None => false,
            };
            match unknown.iter().find(is_it) {
                None => thing.is_known = true,
                // Whoever has the pod and not the container has more to say.
                Some(it) if it.message.len() > thing.message.len() => thing.message.clone_from(&it.message),
                Some(_) => {}
            }
        }
    }

    /// The first thing that no node knows, once all have answered that can.
    pub fn unknown(&mut self) -> Option<Failure> {
        if self.is_settled || !self.has_answer {
            return None;
        }
        self.is_settled = true;
        let place = self.things.iter().position(|thing| !thing.is_known)?;
        let thing = &self.things[place];
        Some(if place < self.units {
            let next = "name a unit of systemd in the VMs; `k8sctl help logs` lists the sources";
            Failure::new("NODE-UNIT-UNKNOWN", &thing.object, &thing.message, next)
        } else {
            let next = "`kubectl get pods -A -o wide` lists the pods and their nodes; \
                        the logs of one that is gone stay a while on its node";
            Failure::new("NODE-POD-UNKNOWN", &thing.object, &thing.message, next)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8sctl_proto::node::v1::PodLogs;

    fn selector() -> LogSelector {
        let pod =
            |name: &str| PodLogs { namespace: "default".into(), name: name.into(), container: "x".into() };
        LogSelector {
            units: vec!["frob".into()],
            pods: vec![pod("web"), pod("db")],
            ..LogSelector::default()
        }
    }

    fn unknown(wanted: Wanted, message: &str) -> LogUnknown {
        LogUnknown { wanted: Some(wanted), message: message.to_owned() }
    }

    #[test]
    fn what_one_node_knows_is_known() {
        let mut asked = Asked::of(&selector(), false);
        assert_eq!(asked.unknown(), None, "nobody has answered");
        asked.answer(&[unknown(Wanted::Unit(0), "no unit"), unknown(Wanted::Pod(1), "no pod")]);
        asked.answer(&[unknown(Wanted::Pod(0), "no pod")]);
        assert_eq!(asked.unknown(), None);
    }

    #[test]
    fn what_no_node_knows_is_named_by_the_one_that_knows_most() {
        let mut asked = Asked::of(&selector(), false);
        asked.answer(&[unknown(Wanted::Pod(1), "no pod")]);
        asked.answer(&[unknown(Wanted::Pod(1), "no container x, it has: app")]);
        asked.answer(&[unknown(Wanted::Pod(1), "no pod")]);
        let failure = asked.unknown().expect("it is not known");
        assert_eq!((failure.id.as_str(), failure.object.as_str()), ("NODE-POD-UNKNOWN", "pod default/db"));
        assert_eq!(failure.reason, "no container x, it has: app");
        assert_eq!(asked.unknown(), None, "told once");
        let mut asked = Asked::of(&selector(), false);
        asked.answer(&[unknown(Wanted::Unit(0), "no unit frob.service")]);
        assert_eq!(asked.unknown().map(|it| it.id).as_deref(), Some("NODE-UNIT-UNKNOWN"));
        let mut goes_on = Asked::of(&selector(), true);
        goes_on.answer(&[unknown(Wanted::Unit(0), "no unit")]);
        assert_eq!(goes_on.unknown(), None);
    }
}
