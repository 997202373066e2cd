//! What a request asks for, in this node's own terms: matches of the journal, and containers of pods.

use k8sctl_proto::node::v1::{LogSelector, LogSource};

use super::LogError;
use super::export::Entry;

/// Sources that are units, with their names for people.
const UNITS: [(LogSource, &str, &str); 3] = [
    (LogSource::Kubelet, "kubelet", "kubelet.service"),
    (LogSource::Containerd, "containerd", "containerd.service"),
    (LogSource::Agent, "agent", "k8s-node-agent.service"),
];
/// Sources that are static pods: name, beginning of the pod's name, container.
const STATIC_PODS: [(LogSource, &str, &str, &str); 4] = [
    (LogSource::Etcd, "etcd", "etcd-", "etcd"),
    (LogSource::Apiserver, "apiserver", "kube-apiserver-", "kube-apiserver"),
    (
        LogSource::ControllerManager,
        "controller-manager",
        "kube-controller-manager-",
        "kube-controller-manager",
    ),
    (LogSource::Scheduler, "scheduler", "kube-scheduler-", "kube-scheduler"),
];
/// Where they are.
const SYSTEM: &str = "kube-system";
/// What the name of a unit ends with.
const UNIT_TYPES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names of units, whole.
    pub units: Vec<String>,
    /// The kernel's lines.
    pub kernel: bool,
    /// Containers.
    pub containers: Vec<Containers>,
}

/// Some containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containers {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod, or how it begins.
    pub pod: PodName,
    /// `None` means: all of the pod.
    pub container: Option<String>,
    /// What its lines are said to be from. `None` means: `NAMESPACE/POD/CONTAINER`.
    pub source: Option<&'static str>,
}

/// Which pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodName {
    /// The one with this name.
    Whole(String),
    /// A static pod: behind this comes the name of the node.
    Beginning(&'static str),
}

impl Wanted {
    /// Of a request. One of sources that nobody knows, and of nothing else, is an error.
    pub fn of(selector: &LogSelector) -> Result<Self, LogError> {
        let is_empty = selector.sources.is_empty() && selector.units.is_empty() && selector.pods.is_empty();
        let asks = |source| selector.sources().any(|wanted| wanted == source);
        let mut wanted = Self { kernel: asks(LogSource::Kernel), ..Self::default() };
        for (source, _, unit) in UNITS {
            if is_empty || asks(source) {
                wanted.units.push(unit.to_owned());
            }
        }
        for unit in &selector.units {
            let unit = unit_name(unit);
            if !wanted.units.contains(&unit) {
                wanted.units.push(unit);
            }
        }
        for (source, name, beginning, container) in STATIC_PODS {
            if asks(source) {
                wanted.containers.push(Containers {
                    namespace: SYSTEM.to_owned(),
                    pod: PodName::Beginning(beginning),
                    container: Some(container.to_owned()),
                    source: Some(name),
                });
            }
        }
        wanted.containers.extend(selector.pods.iter().map(|pod| Containers {
            namespace: pod.namespace.clone(),
            pod: PodName::Whole(pod.name.clone()),
            container: Some(pod.container.clone()).filter(|name| !name.is_empty()),
            source: None,
        }));
        if !wanted.has_journal() && wanted.containers.is_empty() {
            return Err(LogError::Sources(selector.sources.clone()));
        }
        Ok(wanted)
    }

    /// Whether anything of the journal is asked for.
    pub fn has_journal(&self) -> bool {
        self.kernel || !self.units.is_empty()
    }

    /// The matches of journalctl: what a unit says, and what systemd says of it.
    pub fn matches(&self) -> Vec<String> {
        let mut matches: Vec<String> = self.units.iter().flat_map(|unit| matches_of(unit)).collect();
        if self.kernel {
            matches.push("_TRANSPORT=kernel".to_owned());
        }
        // Between two of one field journalctl takes the plus for granted, between two fields it does not.
        let mut arguments = Vec::with_capacity(2 * matches.len());
        for text in matches {
            if !arguments.is_empty() {
                arguments.push("+".to_owned());
            }
            arguments.push(text);
        }
        arguments
    }

    /// What an entry of the journal is said to be from.
    pub fn source_of(&self, entry: &Entry) -> String {
        let is_wanted = |unit: &&str| self.units.iter().any(|wanted| wanted == unit);
        let units = [entry.unit.as_deref(), entry.about.as_deref()];
        match units.into_iter().flatten().find(is_wanted) {
            Some(unit) => source_of_unit(unit).to_owned(),
            None if entry.kernel => "kernel".to_owned(),
            None => entry.unit.clone().unwrap_or_else(|| "journal".to_owned()),
        }
    }
}

impl Containers {
    /// Whether this pod is one of them.
    pub fn has_pod(&self, namespace: &str, pod: &str) -> bool {
        self.namespace == namespace
            && match &self.pod {
                PodName::Whole(name) => name == pod,
                PodName::Beginning(beginning) => pod.starts_with(beginning),
            }
    }

    /// Whether this container of such a pod is one of them.
    pub fn has_container(&self, container: &str) -> bool {
        self.container.as_ref().is_none_or(|wanted| wanted == container)
    }
}

/// The matches of one unit.
pub fn matches_of(unit: &str) -> [String; 2] {
    [format!("_SYSTEMD_UNIT={unit}"), format!("UNIT={unit}")]
}

/// The whole name of a unit: `kubelet` is `kubelet.service`.
pub fn unit_name(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((_, kind)) if UNIT_TYPES.contains(&kind) => name.to_owned(),
        _ => format!("{name}.service"),
    }
}

/// What lines of a unit are said to be from.
pub fn source_of_unit(unit: &str) -> &str {
    UNITS.iter().find(|(_, _, known)| *known == unit).map_or(unit, |(_, name, _)| name)
}

/// What lines of a source are said to be from; `None` for none.
pub fn source_name(source: LogSource) -> Option<&'static str> {
    let unit = UNITS.iter().find(|(known, ..)| *known == source).map(|(_, name, _)| *name);
    let pod = || STATIC_PODS.iter().find(|(known, ..)| *known == source).map(|(_, name, ..)| *name);
    unit.or_else(pod).or_else(|| (source == LogSource::Kernel).then_some("kernel"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8sctl_proto::node::v1::PodLogs;

    #[test]
    fn nothing_asked_for_means_the_three_units_and_something_means_that() {
        let of = |selector: &LogSelector| Wanted::of(selector).expect("it is known");
        let all = of(&LogSelector::default());
        assert_eq!(all.units, ["kubelet.service", "containerd.service", "k8s-node-agent.service"]);
        assert!(!all.kernel && all.containers.is_empty());
        let pods = vec![PodLogs { namespace: "a".into(), name: "b".into(), container: String::new() }];
        let pod = of(&LogSelector { pods, ..LogSelector::default() });
        assert!(!pod.has_journal() && pod.containers.len() == 1, "{pod:?}");
        let both = LogSelector {
            sources: vec![LogSource::Kubelet.into(), LogSource::Kernel.into()],
            units: vec!["kubelet".into(), "systemd-networkd.service".into()],
            ..LogSelector::default()
        };
        let matches = of(&both).matches().join(" ");
        let expected = "_SYSTEMD_UNIT=kubelet.service + UNIT=kubelet.service + \
                        _SYSTEMD_UNIT=systemd-networkd.service + UNIT=systemd-networkd.service + _TRANSPORT=kernel";
        assert_eq!(matches, expected);
    }

    #[test]
    fn sources_that_nobody_knows_open_nothing() {
        for sources in [vec![LogSource::Unspecified.into()], vec![99], vec![-1, 0]] {
            let selector = LogSelector { sources, ..LogSelector::default() };
            let error = Wanted::of(&selector).expect_err("it would be the whole journal");
            assert!(error.to_string().starts_with("none of the sources"), "{error}");
        }
        let selector = LogSelector { sources: vec![99, LogSource::Agent.into()], ..LogSelector::default() };
        let agent = Wanted { units: vec!["k8s-node-agent.service".to_owned()], ..Wanted::default() };
        assert_eq!(Wanted::of(&selector).expect("one is known"), agent);
    }

    #[test]
    fn entries_are_said_to_be_from_what_was_asked_for() {
        let wanted = Wanted {
            units: vec!["kubelet.service".into(), "x.mount".into()],
            kernel: true,
            ..Wanted::default()
        };
        let of = |unit: &str, about: Option<&str>, kernel| {
            let unit = Some(unit.to_owned()).filter(|unit| !unit.is_empty());
            wanted.source_of(&Entry { unit, about: about.map(str::to_owned), kernel, ..Entry::default() })
        };
        assert_eq!(of("kubelet.service", None, false), "kubelet");
        assert_eq!(of("init.scope", Some("x.mount"), false), "x.mount");
        assert_eq!(of("", None, true), "kernel");
        assert_eq!(of("init.scope", None, false), "init.scope");
    }

    #[test]
    fn static_pods_are_found_by_their_beginning_and_others_by_their_name() {
        let etcd = LogSelector { sources: vec![LogSource::Etcd.into()], ..LogSelector::default() };
        let etcd = Wanted::of(&etcd).expect("it is known").containers.remove(0);
        assert!(etcd.has_pod("kube-system", "etcd-node-1") && !etcd.has_pod("default", "etcd-node-1"));
        assert!(etcd.has_container("etcd") && !etcd.has_container("other"));
        assert_eq!(unit_name("a.service"), "a.service");
        assert_eq!(unit_name("getty@tty1"), "getty@tty1.service");
        assert_eq!(unit_name("a.b"), "a.b.service");
    }
}
