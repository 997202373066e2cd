//! Decides from what was observed what comes next on the way to membership. Pure.
//!
//! kubeadm is started as seldom as can be, since each start takes seconds on an emulated machine: once, and after an
//! interruption once more for what is left.

use super::kept::Drifted;

/// A control plane as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitObserved {
    /// All four static pod manifests are there, whole.
    pub manifests: bool,
    /// The kubelet's configuration and flags are there, whole.
    pub kubelet_config: bool,
    /// The kubelet's unit runs.
    pub kubelet_active: bool,
    /// The Node object has been away for so long that the kubelet must register it anew.
    pub node_is_lost: bool,
    /// Components that run with a kubeconfig of before it was renewed.
    pub stale: Vec<&'static str>,
    /// The API server says that it is ready; `Err` is what it says instead.
    pub api: Option<ApiObserved>,
    /// What the API server, or the attempt to reach it, said last.
    pub api_says: String,
}

impl InitObserved {
    /// Whether the Node is there, where nothing else is missing; `None` means: that cannot be said.
    pub fn registered(&self) -> Option<bool> {
        let api = self.api.filter(|api| api.configs && api.has_addons())?;
        self.kubelet_active.then_some(api.node.registered)
    }
}

/// What is in the API of a control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiObserved {
    /// ConfigMaps kubeadm-config and kubelet-config.
    pub configs: bool,
    /// ConfigMap cluster-info in kube-public.
    pub cluster_info: bool,
    /// DaemonSet kube-proxy.
    pub kube_proxy: bool,
    /// Deployment coredns; `true` when it is not wanted.
    pub coredns: bool,
    /// The Node object.
    pub node: NodeObserved,
}

impl ApiObserved {
    fn has_addons(&self) -> bool {
        self.cluster_info && self.kube_proxy && self.coredns
    }
}

/// The node's object in the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeObserved {
    /// The kubelet has registered it.
    pub registered: bool,
    /// kubeadm has put the CRI socket on it.
    pub annotated: bool,
    /// It has a control plane's label.
    pub marked: bool,
    /// Kubernetes holds it for a working node.
    pub ready: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Done,
    /// `kubeadm init` without these phases.
    Init {
        /// For a person.
        doing: &'static str,
        /// `--skip-phases`
        skip: Vec<&'static str>,
    },
    /// `kubeadm join`
    Join,
    /// Start the kubelet's unit.
    StartKubelet,
    /// Stop the kubelet's unit.
    StopKubelet,
    /// Restart the kubelet's unit, so that it registers its node.
    RestartKubelet,
    /// Write these files as kubeadm did.
    Restore(Drifted),
    /// Start these components of the control plane again.
    RestartComponents(Vec<&'static str>),
    /// Put the CRI socket on the Node object.
    Annotate,
    /// Nothing but looking again.
    Wait {
        /// For a person.
        doing: &'static str,
        /// What was seen last.
        last: String,
    },
}

/// What is done while the API server does not answer, or says that it is not ready.
const AWAITING_API: &str = "waiting for the API server";

impl Next {
    /// Whether there is nothing to do but to wait for the API server.
    pub fn awaits_api(&self) -> bool {
        matches!(self, Self::Wait { doing, .. } if *doing == AWAITING_API)
    }

    /// Whether it starts or stops the kubelet's unit. To restore files does so only behind the files, for which who works on
    /// the unit may be waiting.
    pub fn works_on_kubelet(&self) -> bool {
        match self {
            Self::Init { .. }
            | Self::Join
            | Self::StartKubelet
            | Self::StopKubelet
            | Self::RestartKubelet => true,
            Self::Done
            | Self::Restore(_)
            | Self::RestartComponents(_)
            | Self::Annotate
            | Self::Wait { .. } => false,
        }
    }
}

/// Left out on every way: `preflight` asks for crictl, which not every bundle has, and the steps before this one
/// checked what matters; there is no second control plane to upload certificates for; the certificates of the
/// kubelet come from the host in their final form, so that `kubelet-finalize` would only restart the kubelet.
const NEVER: [&str; 3] = ["preflight", "upload-certs", "kubelet-finalize"];
/// Phases that have been done where the manifests and the kubelet's configuration are there.
const OFFLINE: [&str; 6] =
    ["certs", "kubeconfig", "kubelet-start", "control-plane", "etcd", "wait-control-plane"];

/// The next thing to do on a control plane.
pub fn decide_init(observed: &InitObserved, coredns: bool) -> Next {
    let mut skip: Vec<&'static str> = NEVER.to_vec();
    if !observed.manifests || !observed.kubelet_config {
        // All of it: kubeadm waits for the API server itself, which costs less than to start it a second time.
        if !coredns {
            skip.push("addon/coredns");
        }
        return Next::Init { doing: "writing manifests and starting the kubelet", skip };
    }
    if !observed.kubelet_active {
        return Next::StartKubelet;
    }
    let Some(api) = observed.api else {
        return Next::Wait { doing: AWAITING_API, last: observed.api_says.clone() };
    };
    let addons = api.has_addons();
    if api.configs && addons && !api.node.registered {
        return await_registration(observed.node_is_lost);
    }
    if !api.configs || !addons || !api.node.annotated || !api.node.marked {
        skip.extend(OFFLINE);
        if addons {
            skip.extend(["bootstrap-token", "addon"]);
        } else if !coredns {
            skip.push("addon/coredns");
        }
        // It is begun before the kubelet has registered the node: kubeadm looks for it twice a second itself,
        // after the objects that need no node.
        return Next::Init { doing: "configuring the cluster", skip };
    }
    if !observed.stale.is_empty() {
        return Next::RestartComponents(observed.stale.clone());
    }
    Next::Done
}

fn await_registration(is_lost: bool) -> Next {
    if is_lost {
        return Next::RestartKubelet;
    }
    Next::Wait { doing: "waiting for the kubelet to register the node", last: "no Node object".into() }
}

/// A worker as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinObserved {
    /// The kubelet's configuration and flags are there, whole.
    pub kubelet_config: bool,
    /// The kubelet's unit runs.
    pub kubelet_active: bool,
    /// The Node object has been away for so long that the kubelet must register it anew.
    pub node_is_lost: bool,
    /// The configuration that a join reads is in the API; `true` once the kubelet's is here.
    pub configs: bool,
    /// The node's object; `None` when the API server cannot be asked.
    pub node: Option<NodeObserved>,
    /// What the API server, or the attempt to reach it, said last.
    pub api_says: String,
}

impl JoinObserved {
    /// Whether the Node of a running kubelet is there; `None` means: that cannot be said.
    pub fn registered(&self) -> Option<bool> {
        let runs = self.kubelet_config && self.kubelet_active;
        self.node.filter(|_| runs).map(|node| node.registered)
    }
}

/// The next thing to do on a worker.
pub fn decide_join(observed: &JoinObserved) -> Next {
    // A kubelet that runs can go on without the API server; joining cannot begin without it.
    let Some(node) = observed.node else {
        return Next::Wait { doing: AWAITING_API, last: observed.api_says.clone() };
    };
    if !observed.kubelet_config {
        if !observed.configs {
            return Next::Wait {
                doing: "waiting for the cluster's configuration",
                last: "kubeadm-config or the kubelet's is not in the API yet".into(),
            };
        }
        // A member whose configuration was lost. kubeadm refuses to join a node that is Ready in the API, and a
        // kubelet that lost only its flags would keep it so.
        if node.ready {
            if observed.kubelet_active {
                return Next::StopKubelet;
            }
            return Next::Wait {
                doing: "waiting for Kubernetes to see that the node is away",
                last: "its Node object is still Ready".into(),
            };
        }
        return Next::Join;
    }
    if !observed.kubelet_active {
        return Next::StartKubelet;
    }
    if !node.registered {
        return await_registration(observed.node_is_lost);
    }
    if !node.annotated { Next::Annotate } else { Next::Done }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: NodeObserved =
        NodeObserved { registered: true, annotated: true, marked: true, ready: true };
    const COMPLETE: ApiObserved =
        ApiObserved { configs: true, cluster_info: true, kube_proxy: true, coredns: true, node: MEMBER };

    fn running(api: Option<ApiObserved>) -> InitObserved {
        InitObserved {
            manifests: true,
            kubelet_config: true,
            kubelet_active: true,
            api,
            api_says: "refused".into(),
            ..InitObserved::default()
        }
    }

    fn skipped(next: Next) -> Vec<&'static str> {
        match next {
            Next::Init { skip, .. } => skip,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_there_means_everything_at_once() {
        let skip = skipped(decide_init(&InitObserved::default(), false));
        assert_eq!(skip, ["preflight", "upload-certs", "kubelet-finalize", "addon/coredns"]);
        assert_eq!(skipped(decide_init(&InitObserved::default(), true)), NEVER);
    }

    #[test]
    fn an_interrupted_start_is_repeated() {
        let observed = InitObserved { manifests: false, ..running(None) };
        assert!(!skipped(decide_init(&observed, false)).contains(&"control-plane"));
    }

    #[test]
    fn a_stopped_kubelet_is_started_not_configured_again() {
        let observed = InitObserved { kubelet_active: false, ..running(None) };
        assert_eq!(decide_init(&observed, false), Next::StartKubelet);
        assert!(decide_init(&running(None), false).awaits_api());
    }

    #[test]
    fn what_is_in_the_api_already_is_left_out() {
        let api = ApiObserved { coredns: true, ..ApiObserved::default() };
        let skip = skipped(decide_init(&running(Some(api)), false));
        assert!(!skip.contains(&"mark-control-plane") && !skip.contains(&"upload-config"), "{skip:?}");
        assert!(skip.contains(&"addon/coredns") && !skip.contains(&"addon"), "{skip:?}");
        assert!(OFFLINE.iter().all(|phase| skip.contains(phase)), "{skip:?}");

        let api = ApiObserved { node: NodeObserved { marked: false, ..MEMBER }, ..COMPLETE };
        let skip = skipped(decide_init(&running(Some(api)), true));
        assert!(skip.contains(&"addon") && !skip.contains(&"mark-control-plane"), "{skip:?}");
        assert_eq!(decide_init(&running(Some(COMPLETE)), true), Next::Done);
    }

    #[test]
    fn a_node_that_is_lost_has_its_kubelet_restarted() {
        let gone = ApiObserved { node: NodeObserved::default(), ..COMPLETE };
        let mut observed = running(Some(gone));
        assert_eq!(observed.registered(), Some(false));
        assert!(matches!(decide_init(&observed, true), Next::Wait { .. }));
        observed.node_is_lost = true;
        assert_eq!(decide_init(&observed, true), Next::RestartKubelet);
        // Before that, kubeadm has more to do, and waits for the node itself.
        let fresh = running(Some(ApiObserved::default()));
        assert_eq!(fresh.registered(), None);
        assert!(matches!(decide_init(&fresh, true), Next::Init { .. }));

        let mut observed = JoinObserved {
            kubelet_config: true,
            kubelet_active: true,
            node: Some(NodeObserved::default()),
            ..JoinObserved::default()
        };
        assert_eq!(observed.registered(), Some(false));
        assert!(matches!(decide_join(&observed), Next::Wait { .. }));
        observed.node_is_lost = true;
        assert_eq!(decide_join(&observed), Next::RestartKubelet);
        assert_eq!(JoinObserved { kubelet_active: false, ..observed }.registered(), None);
    }

    #[test]
    fn components_with_an_old_kubeconfig_start_again_in_a_complete_cluster() {
        let observed = InitObserved { stale: vec!["kube-scheduler"], ..running(Some(COMPLETE)) };
        assert_eq!(decide_init(&observed, true), Next::RestartComponents(vec!["kube-scheduler"]));
        assert!(matches!(decide_init(&InitObserved { api: None, ..observed }, true), Next::Wait { .. }));
    }

    #[test]
    fn a_member_that_lost_its_configuration_joins_again_once_it_is_not_ready() {
        let mut observed = JoinObserved {
            configs: true,
            kubelet_active: true,
            node: Some(MEMBER),
            ..JoinObserved::default()
        };
        assert_eq!(decide_join(&observed), Next::StopKubelet);
        observed.kubelet_active = false;
        assert!(matches!(decide_join(&observed), Next::Wait { .. }));
        observed.node = Some(NodeObserved { ready: false, ..MEMBER });
        assert_eq!(decide_join(&observed), Next::Join);
    }

    #[test]
    fn a_worker_joins_once_and_resumes() {
        let mut observed = JoinObserved::default();
        assert!(decide_join(&observed).awaits_api());
        observed.node = Some(NodeObserved::default());
        let next = decide_join(&observed);
        assert!(matches!(next, Next::Wait { .. }) && !next.awaits_api(), "{next:?}");
        observed.configs = true;
        assert_eq!(decide_join(&observed), Next::Join);
        observed.kubelet_config = true;
        assert_eq!(decide_join(&observed), Next::StartKubelet);
        observed.kubelet_active = true;
        assert!(matches!(decide_join(&observed), Next::Wait { .. }));
        observed.node = Some(NodeObserved { registered: true, ..NodeObserved::default() });
        assert_eq!(decide_join(&observed), Next::Annotate);
        observed.node = Some(NodeObserved { registered: true, annotated: true, ..NodeObserved::default() });
        assert_eq!(decide_join(&observed), Next::Done);
    }
}
