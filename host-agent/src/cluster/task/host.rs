//! A cluster's VMs, network and disks: reads the host, plans, and has what was agreed to carried out.

use std::sync::Arc;
use std::time::Instant;

use host_artifacts::image::Image;
use host_hypervisor::accelerator::Accelerator;
use host_hypervisor::adoption::Adoption;
use host_hypervisor::change::{Action, HostChange, HostOp, HostPlan, Kind};
use host_hypervisor::desired::DesiredImage;
use host_hypervisor::observed::{DomainState, ObservedHost};
use host_hypervisor::plan::{StartPlan, plan_host, plan_starts};
use k8sctl_rpc::task::blocking;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::Role;

use super::mandate::Carried;
use super::trouble::Trouble;
use super::{ClusterTask, PoweredOn, RESYNC};
use crate::cluster::consent::refuse_unagreed;
use crate::cluster::crash;
use crate::cluster::desired::{desired_host, desired_image, domain_ref, host_pool, pool_image, vm_of};
use crate::cluster::execute::execute_change;
use crate::cluster::planning::stored_adoption;
use crate::cluster::progress::{self, Observed};
use crate::records::{ClusterRecord, NodeRecord, OperationRecord};

/// What is to be done to the host by now.
struct Planned {
    changes: Vec<HostChange>,
    /// What is to be kept of adopted networks before that, where it is another than is kept.
    adoption: Option<Adoption>,
    /// Why a node is left out, where others are started all the same.
    refused: Option<Failure>,
}

impl Planned {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.adoption.is_none()
    }
}

/// A change to the run of a node's VM, by which nothing is lost.
fn of_vm(node: &NodeRecord, reason: &str, op: HostOp) -> HostChange {
    let (name, reason) = (node.name.clone(), reason.to_owned());
    HostChange { action: Action::Update, kind: Kind::Domain, name, reason, destructive: false, op }
}

impl ClusterTask {
    pub(super) async fn observe_host(&mut self) -> Result<ObservedHost, Failure> {
        let version = *self.shared.hypervisor.changes().borrow();
        if let Some((when, seen, host)) = &self.host
            && *seen == version
            && when.elapsed() < RESYNC
        {
            return Ok(host.clone());
        }
        let host = self.shared.hypervisor.observe(&host_pool(&self.shared.config)).await?;
        self.host = Some((Instant::now(), version, host.clone()));
        Ok(host)
    }

    /// What the host is now that a change to it went wrong. Nothing is known of it only where libvirt is away.
    pub(super) async fn observe_anew(&mut self) {
        self.host = None;
        if let Err(failure) = self.observe_host().await {
            tracing::debug!(cluster.name = %self.name, error = %failure, "the host cannot be observed either");
        }
    }

    /// Makes the host as the cluster needs it, as far as that was agreed to; without an operation only VMs that shall
    /// run are started, with the network and the pool that they need. `false` means: another operation has begun
    /// meanwhile, and the rest is left to its look.
    pub(super) async fn converge_host(
        &mut self,
        cluster: &ClusterRecord,
        image: &Image,
        up: Option<&OperationRecord>,
    ) -> Result<bool, Trouble> {
        self.converge_host_with(cluster, &desired_image(image), up).await
    }

    /// The same without an operation, while the store has no sound image: what VMs boot from is in the pool.
    pub(super) async fn start_vms(&mut self, cluster: &ClusterRecord) -> Result<bool, Trouble> {
        self.converge_host_with(cluster, &pool_image(cluster), None).await
    }

    async fn converge_host_with(
        &mut self,
        cluster: &ClusterRecord,
        image: &DesiredImage,
        up: Option<&OperationRecord>,
    ) -> Result<bool, Trouble> {
        let shared = Arc::clone(&self.shared);
        let (mut turn, mut is_verified) = (None, false);
        let refused = loop {
            // Others had their turn, for minutes.
            if !self.is_at_work(cluster, up).await? {
                return Ok(false);
            }
            if up.is_some() && turn.is_none() {
                turn = shared.turns.try_take(&cluster.name);
            }
            let observed = self.observe_host().await?;
            self.note_power(cluster, &observed);
            self.tell_untold(cluster, &observed).await?;
            if self.end_stale_runs(cluster, up, &observed).await {
                continue;
            }
            let planned = self.plan(cluster, image, up, &observed).await;
            if planned.as_ref().is_ok_and(Planned::is_empty) {
                break planned?.refused;
            }
            if up.is_some() && turn.is_none() {
                // A plan that fails, too: what others are in the middle of may be in its way.
                turn = self.turn(&shared, cluster, up).await?;
                if turn.is_none() {
                    return Ok(false);
                }
                self.host = None;
                continue;
            }
            let Planned { changes, adoption, refused } = planned?;
            self.host = None;
            if !is_verified && changes.iter().any(|change| matches!(change.op, HostOp::InstallFile { .. })) {
                // All of it is read: nobody need wait for that.
                turn = None;
                let (images, id) = (shared.images.clone(), image.id.clone());
                blocking(move || images.verify(&id)).await?;
                is_verified = true;
                continue;
            }
            if let Some(adoption) = adoption {
                crash::point("before-store-adoption");
                let record = serde_json::to_value(&adoption).expect("an adoption has string keys only");
                shared.records.set_adoption(&record).await?;
                crash::point("after-store-adoption");
            }
            match self.carry_out(turn.as_ref(), cluster, up, &changes).await? {
                Carried::All => break refused,
                Carried::GivenWay => return Ok(false),
                Carried::TurnOver => turn = None,
            }
        };
        drop(turn);
        self.doings.settle(up);
        let observed = self.observe_host().await?;
        self.note_power(cluster, &observed);
        self.end_stale_runs(cluster, up, &observed).await;
        self.prefer_control_plane(cluster, up).await;
        // Told behind all that could be done.
        refused.map_or(Ok(true), |failure| Err(failure.into()))
    }

    async fn plan(
        &self,
        cluster: &ClusterRecord,
        image: &DesiredImage,
        up: Option<&OperationRecord>,
        observed: &ObservedHost,
    ) -> Result<Planned, Trouble> {
        let agents = self.observed(cluster);
        // Whatever has ended since the last `up` is started at once, also where nothing is heard of the control plane.
        let powered = |node: &NodeRecord| up.is_none() || has_its_turn(cluster, node, observed, &agents);
        let names = self.shared.records.cluster_names().await?;
        let (config, image) = (&self.shared.config, image.clone());
        let desired = desired_host(config, cluster, image, observed.accelerator, names, powered);
        let adopted = stored_adoption(&self.shared.records).await?;
        let (mut changes, adoption, refused) = match up {
            Some(up) => {
                let HostPlan { changes, adoption } = plan_host(&desired, observed, &adopted)?;
                refuse_unagreed(cluster, up, &self.doings.unsettled(up), &changes)?;
                (changes, Some(adoption).filter(|adoption| *adoption != adopted), None)
            }
            None => {
                let StartPlan { changes, refused } = plan_starts(&desired, observed, &adopted)?;
                (changes, None, refused)
            }
        };
        let now = Instant::now();
        let may = |name: &str| self.starts.may(name, stands(observed, name), now);
        changes.retain(|change| started(&change.op).is_none_or(may));
        Ok(Planned { changes, adoption, refused })
    }

    /// Gives each run of the control plane's VM the greater share of the processors: all others wait for its API while
    /// they join, and later for whatever they ask it. What is refused now is tried again by the next look.
    async fn prefer_control_plane(&mut self, cluster: &ClusterRecord, up: Option<&OperationRecord>) {
        for node in cluster.nodes.iter().filter(|node| node.spec.role == Role::ControlPlane) {
            let run = self.powered_on.get(&node.id).map(|power| power.run);
            if run.is_none() || self.preferred == run {
                continue;
            }
            let op = HostOp::PreferDomain { domain: domain_ref(cluster, node) };
            let change = of_vm(node, "all others wait for its API", op);
            match execute_change(&self.shared, up, &cluster.name, &change, false).await {
                Ok(()) => self.preferred = run,
                Err(error) => {
                    tracing::debug!(node.name = %node.name, %error, "its VM has no greater share of the processors");
                }
            }
        }
    }

    /// Ends the runs in which an emulated VM was rebooted; who has no power and shall have it is started by what comes
    /// behind. QEMU's translator keeps all that it has translated in a run, and looks through it at each write to where
    /// code once was: a guest that boots on top of that takes many minutes. Nothing is lost, since the guest has just
    /// begun anew. Whether any was ended, so that the host is to be looked at again.
    async fn end_stale_runs(
        &mut self,
        cluster: &ClusterRecord,
        up: Option<&OperationRecord>,
        observed: &ObservedHost,
    ) -> bool {
        let mut ended = false;
        for node in &cluster.nodes {
            let vm = vm_of(observed, cluster, node);
            let is_emulated = vm.is_some_and(|vm| vm.accelerator == Some(Accelerator::Tcg));
            let Some(power) = self.powered_on.get_mut(&node.id) else { continue };
            if !std::mem::take(&mut power.is_stale) || !is_emulated {
                continue;
            }
            let op = HostOp::PowerOffDomain { domain: domain_ref(cluster, node) };
            let change = of_vm(node, "it was rebooted, which is quicker in a run of its own", op);
            match execute_change(&self.shared, up, &cluster.name, &change, false).await {
                Ok(()) => {
                    // What its guest asked for is no start that failed.
                    self.starts.forget(&node.name);
                    (self.host, ended) = (None, true);
                }
                // It boots all the same, in its time.
                Err(error) => {
                    tracing::warn!(node.name = %node.name, %error, "cannot end the run in which its VM was rebooted");
                }
            }
        }
        ended
    }

    /// Takes in which VMs run, and in which run of theirs, and which were rebooted in it. With a run its join channel ends,
    /// and what its agent reported is void.
    fn note_power(&mut self, cluster: &ClusterRecord, observed: &ObservedHost) {
        for node in &cluster.nodes {
            let vm = vm_of(observed, cluster, node);
            let run = vm.and_then(|domain| domain.run);
            let rebooted = vm.and_then(|domain| domain.rebooted);
            let known = self.powered_on.get(&node.id).map(|power| power.run);
            if run == known {
                self.note_reboot(node, rebooted);
                continue;
            }
            if known.is_some() {
                self.powered_on.remove(&node.id);
                self.ports.remove(&node.id);
                self.shared.registry.reset(&node.id);
                if node.spec.role == Role::ControlPlane {
                    // Its connections lead to an API server that is gone; what was seen over them is void.
                    (self.kubernetes, self.kubernetes_view) = (None, None);
                }
            }
            if let Some(run) = run {
                let since = jiff::Timestamp::now();
                // Of before this run, or of before anything could be connected to it.
                let started = vm.and_then(|vm| jiff::Timestamp::try_from(vm.started?).ok());
                // A clock may have been set back since.
                let started = started.map_or(since, |started| started.min(since));
                let power = PoweredOn { run, since, started, rebooted, is_stale: false };
                self.powered_on.insert(node.id.clone(), power);
            }
        }
    }

    /// Takes in that a VM was rebooted. Its run goes on, and its join channel with it; what was connected to it over the
    /// network is gone, and does not say so. Since when it has been on stays: one that boots again and again is as silent
    /// as one that does not boot.
    fn note_reboot(&mut self, node: &NodeRecord, rebooted: Option<Instant>) {
        let Some(power) = self.powered_on.get_mut(&node.id) else { return };
        if power.rebooted == rebooted {
            return;
        }
        power.rebooted = rebooted;
        let Some(at) = rebooted else { return };
        power.is_stale = true;
        self.shared.registry.rebooted(&node.id, at);
        if node.spec.role == Role::ControlPlane {
            (self.kubernetes, self.kubernetes_view) = (None, None);
        }
    }
}

/// Whether an I/O error has stopped a VM.
pub(super) fn stands(host: &ObservedHost, name: &str) -> bool {
    host.domain(name).is_some_and(|it| it.state == DomainState::IoError)
}

/// The VM that an effect starts.
pub(super) fn started(op: &HostOp) -> Option<&str> {
    match op {
        HostOp::StartDomain { domain } => Some(&domain.name),
        _ => None,
    }
}

/// Whether a VM shall run by now, in an `up`. The control plane comes first; the others wait while it needs the host's
/// processors for itself, unless the host has enough for all. One that is not off is not turned off for that.
fn has_its_turn(cluster: &ClusterRecord, node: &NodeRecord, host: &ObservedHost, agents: &Observed) -> bool {
    let is_on = host.domain(&node.name).is_some_and(|domain| domain.state != DomainState::Off);
    let wanted: u32 = cluster.nodes.iter().map(|node| node.spec.vcpus).sum();
    is_on
        || node.spec.role == Role::ControlPlane
        || wanted <= host.host_cpus
        || progress::control_plane_is_starting(cluster, agents)
}

#[cfg(test)]
mod tests {
    use host_hypervisor::Hypervisor as _;
    use host_hypervisor::fake::Fault;
    use k8sctl_proto::node::v1::{Hello, StatusReport, StepState, StepStatus};

    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC};
    use crate::records::OperationState;

    /// `virsh domrename` of the worker, which was off; then the control plane's VM ends.
    #[tokio::test]
    async fn a_vm_that_was_renamed_keeps_no_other_from_being_started() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
        assert!(matches!(task.converge_host(&cluster, &image, Some(&operation)).await, Ok(true)));
        for domain in &mut agent.hypervisor.host().observed.domains {
            (domain.state, domain.run) = (DomainState::Off, None);
            if domain.name == "worker" {
                domain.name = "old-worker".to_owned();
            }
        }
        agent.hypervisor.notify();
        let acted = task.converge_host(&cluster, &image, Some(&operation)).await;
        let Err(Trouble::Final(failure)) = acted else { panic!("it is not refused") };
        assert_eq!(failure.id, "LIBVIRT-DOMAIN-RENAMED", "{failure}");

        agent.shared.records.finish_operation(&operation.id, Some(&failure)).await.expect("writes");
        let acted = task.converge_host(&cluster, &image, None).await;
        let Err(Trouble::Final(failure)) = acted else { panic!("it is not told") };
        assert_eq!(failure.id, "LIBVIRT-DOMAIN-RENAMED", "{failure}");
        let host = agent.hypervisor.host();
        let state = |name| host.observed.domain(name).map(|it| it.state);
        assert_eq!(state("control"), Some(DomainState::Running));
        assert_eq!((state("old-worker"), state("worker")), (Some(DomainState::Off), None));
        assert!(host.effects.keys().all(|effect| !effect.starts_with("delete")), "{:?}", host.effects);
    }

    /// The worker's was undefined, and somebody has defined one with its name; then the control plane's VM ends.
    #[tokio::test]
    async fn a_strangers_vm_in_a_nodes_place_keeps_no_other_from_being_started() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
        assert!(matches!(task.converge_host(&cluster, &image, Some(&operation)).await, Ok(true)));
        agent.shared.records.finish_operation(&operation.id, None).await.expect("writes");
        for domain in &mut agent.hypervisor.host().observed.domains {
            (domain.state, domain.run) = (DomainState::Off, None);
            if domain.name == "worker" {
                domain.ours = None;
            }
        }
        agent.hypervisor.notify();
        // The second look has nothing left to start, and tells it too.
        for look in 1..=2 {
            let acted = task.converge_host(&cluster, &image, None).await;
            let Err(Trouble::Final(failure)) = acted else { panic!("it is not told at look {look}") };
            assert_eq!(
                (failure.id.as_str(), failure.object.as_str()),
                ("LIBVIRT-FOREIGN-DOMAIN", "domain worker")
            );
            let host = agent.hypervisor.host();
            let state = |name| host.observed.domain(name).map(|it| it.state);
            assert_eq!(state("control"), Some(DomainState::Running));
            assert_eq!(state("worker"), Some(DomainState::Off));
            assert!(host.effects.keys().all(|effect| !effect.starts_with("delete")), "{:?}", host.effects);
        }
    }

    /// Then the host agent is started anew, and hears nothing of the control plane's agent.
    #[tokio::test]
    async fn workers_wait_for_the_control_planes_boot_in_an_up_alone() {
        let agent = FakeHostAgent::new().await;
        // Fewer processors than the VMs want.
        agent.hypervisor.host().observed.host_cpus = 1;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
        let states = || {
            let host = agent.hypervisor.host();
            ["control", "worker"].map(|name| host.observed.domain(name).map(|it| it.state))
        };
        let (on, off) = (Some(DomainState::Running), Some(DomainState::Off));
        assert!(matches!(task.converge_host(&cluster, &image, Some(&operation)).await, Ok(true)));
        assert_eq!(states(), [on, off]);
        let registry = &agent.shared.registry;
        let session = registry.open_session(&cluster.nodes[0].id, Hello::default());
        let step = StepStatus {
            name: "kubeadm".to_owned(),
            state: StepState::Running.into(),
            ..StepStatus::default()
        };
        assert!(session.report(StatusReport { steps: vec![step], ..StatusReport::default() }));
        assert!(matches!(task.converge_host(&cluster, &image, Some(&operation)).await, Ok(true)));
        assert_eq!(states(), [on, on]);
        agent.shared.records.finish_operation(&operation.id, None).await.expect("writes");

        drop(session);
        registry.remove(&cluster.nodes[0].id);
        let mut task = agent.task("home");
        for domain in &mut agent.hypervisor.host().observed.domains {
            if domain.name == "worker" {
                (domain.state, domain.run) = (DomainState::Off, None);
            }
        }
        agent.hypervisor.notify();
        assert!(matches!(task.converge_host(&cluster, &image, None).await, Ok(true)));
        assert_eq!(states(), [on, on]);
    }

    /// One that somebody else began, and one of which it was refused at first, too.
    #[tokio::test]
    async fn each_run_of_the_control_plane_gets_the_greater_share() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
        assert!(matches!(task.converge_host(&cluster, &image, Some(&operation)).await, Ok(true)));
        agent.shared.records.finish_operation(&operation.id, None).await.expect("writes");
        let preferred = |started_anew: bool| {
            let mut host = agent.hypervisor.host();
            assert!(host.observed.domains.iter().all(|it| it.state == DomainState::Running));
            let run = host.observed.domain("control").and_then(|it| it.run).expect("it runs");
            let now = (host.preferred.split_off(0), vec![("control".to_owned(), run)]);
            if started_anew {
                for domain in &mut host.observed.domains {
                    domain.run = domain.run.map(|run| run + 100);
                }
                host.fault = Some((0, Fault::Before));
            }
            now
        };
        let (found, wanted) = preferred(true);
        assert_eq!(found, wanted);
        agent.hypervisor.notify();
        assert!(matches!(task.converge_host(&cluster, &image, None).await, Ok(true)));
        assert_eq!(preferred(false).0, [], "it was refused");
        for _ in 0..2 {
            agent.hypervisor.notify();
            assert!(matches!(task.converge_host(&cluster, &image, None).await, Ok(true)));
        }
        let (found, wanted) = preferred(false);
        assert_eq!(found, wanted);
    }

    /// While it boots for the first time too. What libvirt still tells of it then is of the run before.
    #[tokio::test]
    async fn an_emulated_vm_that_is_rebooted_boots_in_a_run_of_its_own() {
        let agent = FakeHostAgent::new().await;
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let mut task = agent.task("home");
        assert!(matches!(task.look().await, Ok(true)));
        for ended in [false, true] {
            if ended {
                agent.shared.records.finish_operation(&operation.id, None).await.expect("writes");
            }
            agent.hypervisor.reboot("control");
            for _ in 0..2 {
                assert!(matches!(task.look().await, Ok(true)));
                agent.hypervisor.notify();
            }
            let host = agent.hypervisor.host();
            assert!(host.observed.domains.iter().all(|it| it.state == DomainState::Running));
            let reboots = 1 + u32::from(ended);
            let done = [host.effects["power-off-domain"], host.effects["start-domain"]];
            assert_eq!(done, [reboots, 2 + reboots], "once for each, and the worker never");
        }
    }

    /// `virsh reset` while it boots for the first time, and when it has a session.
    #[tokio::test]
    async fn a_reboot_ends_the_session_of_its_node_and_nothing_else() {
        let agent = FakeHostAgent::new().await;
        agent.hypervisor.host().observed.accelerator = Accelerator::Kvm;
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
        assert!(matches!(task.look().await, Ok(true)));
        let [control, worker] = [0, 1].map(|at: usize| cluster.nodes[at].id.clone());
        let effects = agent.hypervisor.host().effects.clone();
        let runs_since = task.powered_on[&worker].since;
        let said = |task: &ClusterTask| {
            let status = task.status.borrow();
            let node = status.nodes.iter().find(|node| node.id == worker).expect("it is shown");
            let condition = node.conditions.iter().find(|it| it.r#type == "AgentReady").expect("it is shown");
            (condition.reason.clone(), node.phase.clone())
        };
        let both = |reason: &str, phase: &str| (reason.to_owned(), phase.to_owned());
        assert_eq!(said(&task), both("NeverSeen", "Booting"));
        agent.hypervisor.reboot("worker");
        assert!(matches!(task.look().await, Ok(true)));
        assert_eq!(said(&task), both("NeverSeen", "Booting"));

        let registry = &agent.shared.registry;
        let hello = |boot: &str| Hello { boot_id: boot.to_owned(), ..Hello::default() };
        let others = registry.open_session(&control, hello("c"));
        let old = registry.open_session(&worker, hello("1"));
        assert!(matches!(task.look().await, Ok(true)));
        assert_eq!(said(&task).0, "InSession", "the reboot was before it");
        agent.hypervisor.reboot("worker");
        assert!(matches!(task.look().await, Ok(true)));
        assert_eq!(said(&task), both("VMRebooted", "Booting"));
        assert!(!old.report(StatusReport::default()), "it is over");
        assert!(others.report(StatusReport::default()), "the other one's goes on");

        let new = registry.open_session(&worker, hello("2"));
        for _ in 0..2 {
            agent.hypervisor.notify();
            assert!(matches!(task.look().await, Ok(true)));
            assert_eq!(said(&task).0, "InSession", "a reboot is taken in once");
        }
        assert!(new.report(StatusReport::default()));
        assert_eq!(agent.hypervisor.host().effects, effects, "nothing is done to any VM");
        assert_eq!(task.powered_on[&worker].since, runs_since);
        let state =
            agent.shared.records.operation(&operation.id).await.expect("reads").expect("is there").state;
        assert_eq!(state, OperationState::Running, "the `up` goes on");
    }

    /// Its root disk is away, then all of it: VMs have the copy in the pool, agents what its description says.
    #[tokio::test]
    async fn vms_are_started_without_their_image() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
        assert!(matches!(task.converge_host(&cluster, &image, Some(&operation)).await, Ok(true)));
        agent.shared.records.finish_operation(&operation.id, None).await.expect("writes");

        std::fs::remove_file(&image.disk).expect("it is there");
        for (vm, missing) in [("control", "IMAGE-DAMAGED"), ("worker", "IMAGE-MISSING")] {
            for domain in &mut agent.hypervisor.host().observed.domains {
                if domain.name == vm {
                    (domain.state, domain.run) = (DomainState::Off, None);
                }
            }
            agent.hypervisor.notify();
            let Err(Trouble::Final(failure)) = task.look().await else { panic!("it is not told") };
            assert_eq!(failure.id, missing, "{failure}");
            assert_eq!(task.last_trouble.as_ref().map(|it| it.id.as_str()), Some(missing));
            {
                let host = agent.hypervisor.host();
                let state = |name| host.observed.domain(name).map(|it| it.state);
                assert_eq!(["control", "worker"].map(state), [Some(DomainState::Running); 2], "{missing}");
            }
            for node in &cluster.nodes {
                assert!(task.powered_on.contains_key(&node.id), "{missing}");
                assert!(agent.shared.registry.desired_generation(&node.id).is_some(), "{missing}");
            }
            let _ = std::fs::remove_dir_all(&image.dir);
        }
        let host = agent.hypervisor.host();
        assert!(host.effects.keys().all(|effect| !effect.starts_with("delete")), "{:?}", host.effects);
    }

    /// One that has our mark, too: `virsh undefine` and a copy that was given the name.
    #[tokio::test]
    async fn a_strangers_vm_of_a_nodes_name_is_not_the_nodes() {
        let agent = FakeHostAgent::new().await;
        let image = agent.shared.images.list().expect("reads").remove(0);
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let (cluster, mut task) = (agent.cluster("home").await, agent.task("home"));
        assert!(matches!(task.converge_host(&cluster, &image, Some(&operation)).await, Ok(true)));
        let worker = cluster.nodes.iter().find(|node| node.name == "worker").expect("a worker");
        assert!(task.powered_on.contains_key(&worker.id));
        agent.shared.records.finish_operation(&operation.id, None).await.expect("writes");
        for domain in &mut agent.hypervisor.host().observed.domains {
            if domain.name == "worker" {
                (domain.uuid, domain.run) = ("00000000-0000-4000-8000-00000000beef".to_owned(), Some(77));
            }
        }
        agent.hypervisor.notify();
        assert!(matches!(task.converge_host(&cluster, &image, None).await, Ok(true)));
        assert!(!task.powered_on.contains_key(&worker.id));
        assert_eq!(task.observed(&cluster).vms[&worker.id].state, "missing");
        let asked = agent.hypervisor.console_tail(&domain_ref(&cluster, worker), 10).await;
        assert_eq!(asked.expect_err("it is another's").id, "LIBVIRT-NOT-OURS");
    }
}
