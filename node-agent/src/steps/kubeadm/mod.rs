//! Step `kubeadm`: membership, by kubeadm's own phases.
//!
//! Level-triggered within itself too: look ([`observe`]), decide ([`plan`]), do one thing, look again. So it does
//! not matter where an earlier try was interrupted, by a kill or by the power: a file without its content counts as
//! missing, and what kubeadm wrote is synced before the step is done, and kept ([`kept`]), so that it comes back when
//! somebody changes it. Certificates and kubeconfigs are there already (step `files`),
//! which is why a worker's join finds credentials and waits for no TLS bootstrap.
//!
//! Who joins waits for the API server in the apply. Of a member the check says that nobody can say how it is, and converge
//! sees to the other steps and looks again.

mod absence;
pub mod config;
pub mod kept;
pub mod observe;
mod patience;
pub mod plan;
mod renewed;

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use k8sctl_command::Program;
use k8sctl_proto::node::v1::{DesiredState, NodeRole};
use k8sctl_types::version::KubernetesVersion;
use tokio::sync::mpsc;

use super::containerd::SOCKET;
use super::files::{KUBELET_CONF, KUBELET_PKI};
use super::{LOOK_AGAIN, kubelet, systemctl};
use crate::converge::STEP_DEADLINE;
use crate::converge::step::{Check, Step, StepError};
use crate::durable::Root;
use crate::service::{Claims, Service};
use crate::status::Progress;
use absence::Absence;
use observe::Observer;
use patience::Patience;
use plan::{Next, decide_init, decide_join};

/// kubeadm's configuration, on tmpfs.
const CONFIG: &str = "/run/k8s-myhome/kubeadm.yaml";
/// The kubeconfig that a worker joins with, on tmpfs.
const DISCOVERY: &str = "/run/k8s-myhome/discovery.conf";
/// There while a running kubelet may have read other files than kubeadm wrote. On tmpfs: no kubelet outlives a boot.
const READ_OTHERS: &str = "/run/k8s-myhome/kubelet-read-other-files";
/// Left behind by a kubeadm that was killed in the middle of a join.
const BOOTSTRAP_CONF: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// Where kubeadm, and the kubelet that it starts, write.
const WRITTEN: [&str; 5] =
    ["/etc/kubernetes", "/etc/kubernetes/pki", "/etc/kubernetes/manifests", "/var/lib/kubelet", KUBELET_PKI];
/// Longest that one kubeadm may run.
const KUBEADM: Duration = Duration::from_secs(10 * 60);
// Who knows most about what hangs ends first: kubeadm's own waits, then kubeadm, then the step.
const _: () =
    assert!(config::PATIENCE.as_secs() < KUBEADM.as_secs() && KUBEADM.as_secs() < STEP_DEADLINE.as_secs());
/// Between two looks at the API: each is a TLS handshake, which costs an emulated API server milliseconds.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Whether the machine is set up as a member of a cluster: its kubelet has all that it needs to run.
pub fn is_member(root: &Root) -> bool {
    observe::kubelet_config_is_whole(root)
}

/// Paths of the manifests of a control plane's static pods.
pub fn manifests() -> impl Iterator<Item = String> {
    observe::MANIFESTS.into_iter().map(observe::manifest_path)
}

/// The step.
pub struct Kubeadm {
    root: Root,
    claims: Claims,
    /// What kubeadm wrote is on the disk, as far as this agent saw: one before it may have been killed in between.
    synced: AtomicBool,
    absence: Mutex<Absence>,
}

/// Files that are gone when this is dropped, however kubeadm ended.
struct Temporary(Vec<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = crate::durable::remove(path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a temporary file");
            }
        }
    }
}

impl Kubeadm {
    /// Works below this root.
    pub fn new(root: Root, claims: Claims) -> Self {
        Self { root, claims, synced: AtomicBool::new(false), absence: Mutex::default() }
    }

    fn absence(&self) -> MutexGuard<'_, Absence> {
        // Every critical section only sets times, so what a panic leaves behind is sound.
        self.absence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what an agent that was killed while kubeadm ran has left: it opens the cluster.
    fn remove_secrets(&self) -> Result<(), StepError> {
        for path in [CONFIG, DISCOVERY, BOOTSTRAP_CONF] {
            let path = self.root.path(path);
            for path in [crate::durable::beside(&path), path] {
                crate::durable::remove(&path).map_err(StepError::write(&path))?;
            }
        }
        Ok(())
    }

    /// What must be so, besides membership, before the step counts as done.
    async fn settle(&self, desired: &DesiredState) -> Result<(), StepError> {
        self.remove_secrets()?;
        if !self.synced.load(Ordering::Relaxed) {
            self.sync().await?;
        }
        kept::keep_first(&self.root, desired.role(), &desired.kubernetes_version)
    }

    fn keep(&self, desired: &DesiredState) -> Result<(), StepError> {
        kept::keep(&self.root, desired.role(), &desired.kubernetes_version)
    }

    /// Puts on the disk what kubeadm wrote, which it does not sync: the step is not done before that.
    async fn sync(&self) -> Result<(), StepError> {
        let root = self.root.clone();
        let synced = tokio::task::spawn_blocking(move || root.sync_dirs(&WRITTEN)).await;
        synced.map_err(io::Error::other).flatten().map_err(StepError::write(WRITTEN[0]))?;
        self.synced.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Runs kubeadm and syncs what it wrote, however it ended.
    async fn kubeadm(&self, argv: &[&str], progress: &Progress) -> Result<(), StepError> {
        self.synced.store(false, Ordering::Relaxed);
        let ended = run_kubeadm(argv, KUBEADM, progress).await;
        self.sync().await?;
        ended
    }

    async fn next(&self, desired: &DesiredState) -> Result<Next, StepError> {
        let version = version(desired)?;
        // Before the API server is asked: it may be away because of that.
        if let Some(drifted) = self.what_to_restore(desired)? {
            return Ok(Next::Restore(drifted));
        }
        Ok(match desired.role() {
            NodeRole::ControlPlane => {
                let observer = Observer::of_control_plane(&self.root, desired, &version)?;
                let mut observed = observer.init(desired.coredns).await?;
                observed.node_is_lost = self.absence().look(observed.registered(), Instant::now());
                decide_init(&observed, desired.coredns)
            }
            NodeRole::Worker => {
                let mut observed = Observer::of_worker(&self.root, desired, &version)?.join().await;
                observed.node_is_lost = self.absence().look(observed.registered(), Instant::now());
                decide_join(&observed)
            }
            NodeRole::Unspecified => return Err(StepError::Desired("no role".to_owned())),
        })
    }

    /// Files that are not as kubeadm wrote them. Without any in it: they are as they were, and the kubelet is still to read
    /// them.
    fn what_to_restore(&self, desired: &DesiredState) -> Result<Option<kept::Drifted>, StepError> {
        let drifted = kept::drifted(&self.root, desired.role(), &desired.kubernetes_version)?;
        Ok((!drifted.is_empty() || self.root.exists(READ_OTHERS)).then_some(drifted))
    }

    async fn init(
        &self,
        desired: &DesiredState,
        skip: &[&str],
        progress: &Progress,
    ) -> Result<(), StepError> {
        let version = version(desired)?;
        let _gone_after = self.put(&[(CONFIG, config::render_init(desired, &version).into_bytes())])?;
        let observer = Observer::of_control_plane(&self.root, desired, &version)?;
        let waits = !skip.contains(&"wait-control-plane");
        let writes = !skip.contains(&"control-plane");
        let skip = format!("--skip-phases={}", skip.join(","));
        let argv = ["kubeadm", "init", "--skip-token-print", "--config", CONFIG, &skip];
        let init = self.kubeadm(&argv, progress);
        if waits { with(init, upload_early(&observer)).await } else { init.await }?;
        if writes { self.keep(desired) } else { Ok(()) }
    }

    async fn join(&self, desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        let credentials = observe::delivered(desired, KUBELET_CONF)?.content.clone();
        let config = config::render_join(desired, &version(desired)?, DISCOVERY).into_bytes();
        let _gone_after = self.put(&[(CONFIG, config), (DISCOVERY, credentials)])?;
        self.kubeadm(&["kubeadm", "join", "--config", CONFIG, "--skip-phases=preflight"], progress).await?;
        self.keep(desired)
    }

    /// Whether a member has nothing to do but to wait for the API server. Before kubeadm has run to its end once, a machine
    /// is none, and the wait is a part of becoming one.
    fn only_awaits_api(&self, next: &Next) -> bool {
        next.awaits_api() && is_member(&self.root) && kept::has_any(&self.root)
    }

    /// Writes files as kubeadm did. The kubelet sees to those of its static pods; for its own it is to be restarted, which
    /// is noted before anything is changed, so that it is though this agent is ended in between.
    fn restore(&self, drifted: &kept::Drifted, progress: &Progress) -> Result<(), StepError> {
        if drifted.is_kubelets() {
            self.root.write(READ_OTHERS, b"", 0o600).map_err(StepError::write(READ_OTHERS))?;
        }
        if !drifted.is_empty() {
            progress.say(format!("restoring {}", drifted.names()));
        }
        kept::restore(&self.root, drifted)
    }

    /// A kubelet reads its files at its start; one that does not run reads them then.
    async fn restart_with_files(&self, progress: &Progress) -> Result<(), StepError> {
        if self.root.is_live() {
            progress.say("restarting the kubelet with the files that kubeadm wrote");
            systemctl(&["try-restart", kubelet::UNIT]).await?;
        }
        self.root.remove(READ_OTHERS).map_err(StepError::write(READ_OTHERS))
    }

    fn put(&self, files: &[(&str, Vec<u8>)]) -> Result<Temporary, StepError> {
        let mut paths: Vec<PathBuf> = files.iter().map(|(path, _)| self.root.path(path)).collect();
        paths.push(self.root.path(BOOTSTRAP_CONF));
        let temporary = Temporary(paths);
        for (path, content) in files {
            self.root.write(path, content, 0o600).map_err(StepError::write(path))?;
        }
        Ok(temporary)
    }

    /// Gives why it could not be done now.
    async fn annotate(&self, desired: &DesiredState) -> Result<Option<String>, StepError> {
        let version = version(desired)?;
        let scheme = if version.minor() >= 24 { "unix://" } else { "" };
        let observer = Observer::of_worker(&self.root, desired, &version)?;
        Ok(observer.annotate(&format!("{scheme}{SOCKET}")).await.err())
    }
}

fn version(desired: &DesiredState) -> Result<KubernetesVersion, StepError> {
    desired.kubernetes_version.parse().map_err(|error| StepError::Desired(format!("{error}")))
}

/// Uploads what workers read to join as soon as the API server takes it, while `kubeadm init` waits until all of its
/// `/healthz` is well. Last of all that is RBAC's own roles, a tenth of an `up` on an emulated machine, and no worker
/// needs them. kubeadm uploads the same again afterwards, and tells all that is wrong.
async fn upload_early(observer: &Observer<'_>) {
    while !observer.takes_objects().await {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    let upload = ["init", "phase", "upload-config", "all", "--config", CONFIG];
    if let Err(error) = Program::new("kubeadm", KUBEADM).args(upload).run().await {
        tracing::info!(error = %k8sctl_rpc::chain(&error), "nothing uploaded before its time");
    }
}

/// The work, and beside it something that ends with it at the latest. What is dropped then is a kubeadm that only
/// reads on this node; its process is ended.
async fn with<T>(work: impl Future<Output = T>, beside: impl Future<Output = ()>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        result = &mut work => return result,
        () = beside => {}
    }
    work.await
}

/// Runs kubeadm and shows what it says, `[kubelet-start] Starting the kubelet`, as progress.
async fn run_kubeadm(argv: &[&str], deadline: Duration, progress: &Progress) -> Result<(), StepError> {
    let (sender, mut lines) = mpsc::channel::<String>(256);
    progress.command_begins(argv);
    let show = async {
        while let Some(line) = lines.recv().await {
            progress.command_says(&line);
            if line.starts_with('[') {
                progress.say(line);
            }
        }
    };
    let program = Program::new(argv[0], deadline).args(argv[1..].iter().copied()).lines_to(sender);
    let (ended, ()) = tokio::join!(program.run(), show);
    ended.map_err(StepError::from)?;
    progress.command_ended();
    Ok(())
}

#[async_trait]
impl Step for Kubeadm {
    fn name(&self) -> &'static str {
        "kubeadm"
    }

    fn unit(&self) -> Option<&'static str> {
        Some(kubelet::UNIT)
    }

    fn members_only(&self) -> bool {
        true
    }

    async fn check(&self, desired: &DesiredState) -> Result<Check, StepError> {
        if !self.root.is_live() {
            return Ok(Check::True);
        }
        let next = self.next(desired).await?;
        let only_awaits_api = self.only_awaits_api(&next);
        Ok(match next {
            Next::Done => {
                self.settle(desired).await?;
                Check::True
            }
            Next::Restore(drifted) if drifted.is_empty() => {
                Check::False("the kubelet has read other files than kubeadm wrote".to_owned())
            }
            Next::Restore(drifted) => Check::False(format!("not as kubeadm wrote it: {}", drifted.names())),
            Next::Init { doing, .. } => Check::False(doing.to_owned()),
            Next::Join => Check::False("joining".to_owned()),
            // Of a member, that is step kubelet's.
            Next::StartKubelet => Check::Waits("the kubelet does not run".to_owned()),
            Next::StopKubelet => Check::False("the kubelet's configuration is lost".to_owned()),
            Next::RestartKubelet => Check::False("its Node object is missing".to_owned()),
            Next::RestartComponents(names) => {
                Check::False(format!("{} run with an old kubeconfig", names.join(", ")))
            }
            Next::Annotate => Check::False("the node lacks its CRI socket".to_owned()),
            Next::Wait { doing, last } if only_awaits_api => Check::Unknown(format!("{doing}: {last}")),
            Next::Wait { doing, last } => Check::Waits(format!("{doing}: {last}")),
        })
    }

    async fn apply(&self, desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        self.remove_secrets()?;
        let mut patience = Patience::default();
        // Of the kubelet: while it is worked on, and from when it is stopped until kubeadm has run.
        let mut claim = None;
        let (mut is_first, mut has_restored) = (true, false);
        let (mut is_joining, mut has_started) = (false, false);
        loop {
            let next = self.next(desired).await?;
            patience.bear(&next, Instant::now())?;
            let restores = matches!(next, Next::Restore(_));
            // Behind a start it is looked once more: a kubelet that ends at once is started again before anything else.
            let leaves_wait = !is_joining && !has_started && self.only_awaits_api(&next);
            has_started = matches!(next, Next::StartKubelet | Next::RestartKubelet);
            is_joining |= matches!(next, Next::Init { .. } | Next::Join);
            if next.works_on_kubelet() && claim.is_none() {
                claim = Some(self.claims.claim(Service::Kubelet).await);
            }
            let keeps_claim = matches!(next, Next::StopKubelet | Next::Wait { .. });
            match next {
                Next::Done => return Ok(()),
                // All that was wrong. The API may be away for long, be it because of that: the check says so.
                Next::Wait { .. } if has_restored || leaves_wait => return Ok(()),
                Next::Restore(drifted) => {
                    self.restore(&drifted, progress)?;
                    if self.root.exists(READ_OTHERS) {
                        if claim.is_none() {
                            claim = Some(self.claims.claim(Service::Kubelet).await);
                        }
                        self.restart_with_files(progress).await?;
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Next::Init { doing, skip } => {
                    progress.say(doing);
                    self.init(desired, &skip, progress).await?;
                }
                Next::Join => {
                    progress.say("joining");
                    self.join(desired, progress).await?;
                }
                Next::StopKubelet => {
                    progress.say("stopping the kubelet, whose configuration is lost");
                    systemctl(&["stop", kubelet::UNIT]).await?;
                }
                Next::StartKubelet => {
                    progress.say("starting the kubelet");
                    systemctl(&["start", kubelet::UNIT]).await?;
                    if patience.starts_again() {
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                }
                Next::RestartKubelet => {
                    tracing::warn!("the Node object is missing, the kubelet is restarted to register it");
                    progress.say("restarting the kubelet, since its Node object is missing");
                    systemctl(&["restart", kubelet::UNIT]).await?;
                    self.absence().restarted(Instant::now());
                }
                Next::RestartComponents(names) => {
                    progress.say(format!("starting {} with the renewed kubeconfig", names.join(", ")));
                    renewed::execute(&self.root, &renewed::plan(&self.root)?)?;
                    self.keep(desired)?;
                }
                Next::Annotate => {
                    if let Some(last) = self.annotate(desired).await? {
                        progress.say(format!("annotating the Node: {last}"));
                        patience.not_annotated(last, Instant::now())?;
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                }
                Next::Wait { doing, .. } => {
                    progress.say(doing);
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
            if !keeps_claim {
                claim = None;
            }
            has_restored = restores && (is_first || has_restored);
            is_first = false;
        }
    }
}

#[cfg(test)]
mod tests;
