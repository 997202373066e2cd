//! Step `cni`: the pod network of this node. The built-in one is a bridge with this node's share of the pod CIDR, one
//! masquerade rule for what leaves the pod network, and the routes to other nodes' pods, last, because they alone wait for
//! the node's address. Where a plugin brings another one, that takes over: first beside ours, whose routes then lead only
//! where none of the other's do, then instead of it; its file is noted, so that it goes when ours comes back. One rule keeps
//! pods from the host agent, whosever the network is.

use async_trait::async_trait;
use k8sctl_proto::node::v1::{CniMode, DesiredState};

use super::network::PodNetwork;
use super::{OwnedFile, all, network, write_files, wrong_files};
use crate::converge::step::{Check, Step, StepError};
use crate::durable::Root;
use crate::status::Progress;

/// Where networks are configured: the first file in the order of names is the one that counts.
const DIR: &str = "/etc/cni/net.d";
const CONFLIST: &str = "/etc/cni/net.d/10-k8s-myhome.conflist";
/// Holds the name of another network's file, from the moment on at which that may be there.
const EXTERNAL: &str = "/var/lib/k8s-node-agent/external-cni";

/// The step.
pub struct Cni {
    root: Root,
}

/// What shall be there.
struct Plan {
    network: PodNetwork,
    /// Ours.
    files: Vec<OwnedFile>,
    /// Paths of those that shall not be there.
    gone: Vec<String>,
    /// Name of the other network's file; empty: there is no other network.
    external: String,
}

impl Cni {
    /// Works below this root.
    pub fn new(root: Root) -> Self {
        Self { root }
    }

    /// The name that was noted last.
    fn noted(&self) -> Result<String, StepError> {
        let noted = self.root.read_text(EXTERNAL).map_err(StepError::read(EXTERNAL))?;
        Ok(noted.trim().to_owned())
    }

    fn plan(&self, desired: &DesiredState, noted: &str) -> Result<Plan, StepError> {
        let ours = || OwnedFile::public(CONFLIST, render(&desired.node_pod_cidr, smallest_mtu()));
        plan(desired, noted, ours)
    }

    fn note(&self, external: &str) -> Result<(), StepError> {
        let written = match external {
            "" => self.root.remove(EXTERNAL),
            name => self.root.write(EXTERNAL, name.as_bytes(), 0o644),
        };
        written.map_err(StepError::write(EXTERNAL))
    }
}

/// Whose file is where. `noted` is the name of another network's file that may be there from before.
fn plan(desired: &DesiredState, noted: &str, ours: impl FnOnce() -> OwnedFile) -> Result<Plan, StepError> {
    let mode = desired.requirements.as_ref().map(|needs| needs.cni()).unwrap_or_default();
    let network = match mode {
        CniMode::Unspecified => PodNetwork::BuiltIn,
        CniMode::Handover => PodNetwork::HandedOver,
        CniMode::External => PodNetwork::External,
    };
    let external = match (&desired.requirements, network) {
        (None, _) | (_, PodNetwork::BuiltIn) => String::new(),
        (Some(needs), _) if is_config_name(&needs.cni_config_file) => needs.cni_config_file.clone(),
        (Some(needs), _) => {
            let name = &needs.cni_config_file;
            return Err(StepError::Desired(format!("the name {name:?} of a pod network's file")));
        }
    };
    let left_behind = is_config_name(noted) && noted != external;
    let mut gone: Vec<String> = Vec::new();
    gone.extend(left_behind.then(|| format!("{DIR}/{noted}")));
    let mut files = Vec::new();
    match network {
        PodNetwork::BuiltIn | PodNetwork::HandedOver => files.push(ours()),
        PodNetwork::External => gone.push(CONFLIST.to_owned()),
    }
    Ok(Plan { network, files, gone, external })
}

/// A name that CNI reads, and none of ours.
fn is_config_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_read = [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
    let is_ours = CONFLIST.ends_with(&format!("/{name}"));
    is_read && !is_ours && !name.starts_with('.') && name.len() <= 128 && name.chars().all(is_plain)
}

fn render(node_pod_cidr: &str, mtu: Option<u32>) -> String {
    let mut bridge = serde_json::json!({
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "isDefaultGateway": true,
        "ipMasq": false,
        "hairpinMode": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": node_pod_cidr}]]},
    });
    if let Some(mtu) = mtu {
        bridge["mtu"] = mtu.into();
    }
    let list = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "k8s-myhome",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": true}}],
    });
    serde_json::to_string_pretty(&list).expect("JSON values print") + "\n"
}

/// The smallest MTU of the machine's network cards, for packets that leave without fragmentation.
fn smallest_mtu() -> Option<u32> {
    let cards = std::fs::read_dir("/sys/class/net").ok()?;
    let mtu = |card: std::fs::DirEntry| {
        let name = card.file_name();
        let name = name.to_str().filter(|name| name.starts_with('e'))?;
        std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok()?.trim().parse().ok()
    };
    cards.filter_map(Result::ok).filter_map(mtu).min()
}

#[async_trait]
impl Step for Cni {
    fn name(&self) -> &'static str {
        "cni"
    }

    fn unit(&self) -> Option<&'static str> {
        None
    }

    fn members_only(&self) -> bool {
        false
    }

    async fn check(&self, desired: &DesiredState) -> Result<Check, StepError> {
        let noted = self.noted()?;
        let plan = self.plan(desired, &noted)?;
        let mut wrong: Vec<String> =
            wrong_files(&self.root, &plan.files)?.iter().map(|file| file.path.clone()).collect();
        wrong.extend(plan.gone.iter().filter(|path| self.root.exists(path)).cloned());
        if files.is_ok() && noted != plan.external {
            wrong.push(EXTERNAL.to_owned());
        }
        if self.root.is_live() {
            if !network::observe_rules(desired, plan.network).await?.is_empty() {
                wrong.push("rules of the packet filter".to_owned());
            }
            let routes = network::observe_routes(desired, plan.network).await?;
            // They go and come with the address, which is the network's to give: waiting for it is no repair.
            if wrong.is_empty() && !routes.replace.is_empty() && network::lacks_address(&desired.node_ip) {
                return Ok(Check::Waits(format!("the node does not have its address {}", desired.node_ip)));
            }
            if !routes.is_empty() {
                wrong.push(format!("{} pod routes", routes.changes()));
            }
        }
        Ok(Check::from_missing(wrong))
    }

    async fn apply(&self, desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        let noted = self.noted()?;
        let plan = self.plan(desired, &noted)?;
        // The other's file first, and its name last: whatever ends this agent in between, nothing of it is left behind.
        for path in &plan.gone {
            self.root.remove(path).map_err(StepError::write(path))?;
        }
        let files = write_files(&self.root, &plan.files).map(|_| ());
        if files.is_ok() && noted != plan.external {
            self.note(&plan.external)?;
        }
        if !self.root.is_live() {
            return files;
        }
        let rules =
            async { network::execute_rules(&network::observe_rules(desired, plan.network).await?).await };
        let rules = rules.await;
        let routes = network::observe_routes(desired, plan.network).await?;
        if routes.sets_any() {
            progress.say("waiting for the node's address");
            network::await_address(&desired.node_ip).await?;
        }
        all([files, rules, network::execute_routes(&routes).await])
    }
}

#[cfg(test)]
mod tests {
    use k8sctl_proto::node::v1::NodeRequirements;

    use super::*;
    use crate::status::Board;

    #[test]
    fn the_network_is_golden() {
        insta::assert_snapshot!("conflist", render("10.244.1.0/24", Some(1500)));
    }

    fn wanting(mode: CniMode, file: &str) -> DesiredState {
        let requirements = NodeRequirements {
            cni: mode.into(),
            cni_config_file: file.to_owned(),
            ..NodeRequirements::default()
        };
        let node_pod_cidr = "10.244.1.0/24".to_owned();
        DesiredState { node_pod_cidr, requirements: Some(requirements), ..DesiredState::default() }
    }

    const FLANNEL: &str = "10-flannel.conflist";

    struct Fixture {
        step: Cni,
        _dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            Self { step: Cni::new(Root::new(dir.path())), _dir: dir }
        }

        /// Makes it so, if it is not, and says which of the two networks has a file then, and what is noted.
        async fn settle(&self, desired: &DesiredState) -> (bool, bool, String) {
            let progress = Progress::new(Board::default(), "cni");
            if self.step.check(desired).await.expect("checked") != Check::True {
                self.step.apply(desired, &progress).await.expect("applied");
            }
            assert_eq!(self.step.check(desired).await.expect("checked"), Check::True);
            let root = &self.step.root;
            let theirs = root.exists(format!("{DIR}/{FLANNEL}"));
            (root.exists(CONFLIST), theirs, self.step.noted().expect("read"))
        }

        /// As the other network's pod does.
        fn flannel_comes(&self) {
            self.step.root.write(format!("{DIR}/{FLANNEL}"), b"{}", 0o644).expect("written");
        }
    }

    #[tokio::test]
    async fn another_network_takes_over_and_gives_back() {
        let fixture = Fixture::new();
        let [built_in, handover, external] =
            [CniMode::Unspecified, CniMode::Handover, CniMode::External].map(|mode| wanting(mode, FLANNEL));
        let seen = |ours, theirs, noted: &str| (ours, theirs, noted.to_owned());
        assert_eq!(fixture.settle(&built_in).await, seen(true, false, ""));
        assert_eq!(fixture.settle(&handover).await, seen(true, false, FLANNEL));
        fixture.flannel_comes();
        assert_eq!(fixture.settle(&handover).await, seen(true, true, FLANNEL), "both, until it is ready");
        assert_eq!(fixture.settle(&external).await, seen(false, true, FLANNEL));
        // A host of before knows nothing of it.
        let before = DesiredState { requirements: None, ..built_in.clone() };
        assert_eq!(fixture.settle(&before).await, seen(true, false, ""));
        // It was given up before it was ready.
        assert_eq!(fixture.settle(&handover).await, seen(true, false, FLANNEL));
        fixture.flannel_comes();
        assert_eq!(fixture.settle(&built_in).await, seen(true, false, ""));
    }

    #[tokio::test]
    async fn a_node_of_another_network_has_none_of_ours() {
        let fixture = Fixture::new();
        let (ours, theirs, _) = fixture.settle(&wanting(CniMode::External, FLANNEL)).await;
        assert_eq!((ours, theirs), (false, false), "its pods bring the file");
        // A third one takes its place.
        fixture.flannel_comes();
        let third = fixture.settle(&wanting(CniMode::External, "05-cilium.conflist")).await;
        assert_eq!(third, (false, false, "05-cilium.conflist".to_owned()));
    }

    #[tokio::test]
    async fn what_an_agent_left_in_the_middle_is_found_again() {
        let fixture = Fixture::new();
        fixture.settle(&wanting(CniMode::External, FLANNEL)).await;
        fixture.flannel_comes();
        // Ours is written, the other's file is still there: the name of it is noted to the last.
        let root = &fixture.step.root;
        root.write(CONFLIST, b"half", 0o644).expect("written");
        let back = wanting(CniMode::Unspecified, "");
        assert_eq!(fixture.settle(&back).await, (true, false, String::new()));
    }

    #[test]
    fn the_name_of_a_file_leads_nowhere_else() {
        for name in ["", "flannel", "../x.conf", "a/b.conf", ".x.conf", "10-k8s-myhome.conflist", "a b.conf"]
        {
            assert!(!is_config_name(name), "{name:?}");
            let ours = || OwnedFile::public(CONFLIST, "");
            let refused = plan(&wanting(CniMode::External, name), "", ours).err();
            assert!(matches!(refused, Some(StepError::Desired(_))), "{name:?}");
            let kept = plan(&wanting(CniMode::Unspecified, ""), name, ours).expect("it is passed over");
            assert_eq!(kept.gone, Vec::<String>::new(), "{name:?}");
        }
        assert!(is_config_name("10-flannel.conflist") && is_config_name("99.conf"));
    }
}
