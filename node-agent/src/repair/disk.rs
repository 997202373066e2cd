//! Makes room on a full disk: container images that nothing uses, then old journal.
//!
//! The kubelet removes unused images too, but only when it runs, and all of them alike.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_command::{CommandError, Program};
use k8sctl_proto::node::v1::DesiredState;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::images::{self, Known, plan_removal};
use super::{DISK, Repairs};
use crate::durable::Root;
use crate::health::resources::Disks;
use crate::health::unit::Seen;
use crate::retry::{self, Backoff};
use crate::steps::containerd;
use crate::steps::cri::{Container, Cri, CriError, Image};
use crate::steps::kubeadm;

/// Longest that images are removed within one try; what is left, the next one removes.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// How long the disk must stay full, and an image unused: one that was just pulled is about to be used.
const STAYS_FULL: Duration = Duration::from_secs(30);
/// Pause after a repair, or in a rest.
const AGAIN: Duration = Duration::from_secs(60);
/// Longest that one call of the CRI may take: removing a large image takes its time.
const CALL: Duration = Duration::from_secs(60);
/// What stays of the journal.
const JOURNAL: &str = "128M";

/// What takes room, and how much there is.
#[async_trait]
pub trait Stock: Send + Sync {
    /// All images and all containers, whatever their state.
    async fn list(&self) -> Result<(Vec<Image>, Vec<Container>), CriError>;
    /// Removes an image.
    async fn remove(&self, id: &str) -> Result<(), CriError>;
    /// Removes old journal.
    async fn vacuum(&self) -> Result<(), CommandError>;
    /// `Err` says how full it is.
    fn is_well(&self) -> Result<(), String>;
    /// Whether there is so much room that removing more is of no use.
    fn is_roomy(&self) -> bool;
}

/// This machine's.
#[derive(Debug)]
pub struct RealStock {
    root: Root,
}

impl RealStock {
    /// Below this root.
    pub fn new(root: Root) -> Self {
        Self { root }
    }

    async fn cri(&self) -> Result<Cri, CriError> {
        Cri::connect(&self.root.path(containerd::SOCKET), CALL).await
    }
}

#[async_trait]
impl Stock for RealStock {
    async fn list(&self) -> Result<(Vec<Image>, Vec<Container>), CriError> {
        let mut cri = self.cri().await?;
        Ok((cri.images().await?, cri.containers().await?))
    }

    async fn remove(&self, id: &str) -> Result<(), CriError> {
        self.cri().await?.remove_image(id).await
    }

    async fn vacuum(&self) -> Result<(), CommandError> {
        let size = format!("--vacuum-size={JOURNAL}");
        Program::new("journalctl", CALL).args(["--quiet", "--rotate", &size]).run().await.map(drop)
    }

    fn is_well(&self) -> Result<(), String> {
        Disks::look(&self.root).is_well()
    }

    fn is_roomy(&self) -> bool {
        Disks::look(&self.root).is_roomy()
    }
}

/// Keeps the disk from being full.
pub struct DiskRepair {
    /// The machine.
    pub root: Root,
    /// What the host wants.
    pub desired: watch::Receiver<Option<DesiredState>>,
    /// The list and its limits.
    pub repairs: Repairs,
    /// What the bundle brought.
    pub known: Known,
    /// What takes room.
    pub stock: Arc<dyn Stock>,
    /// What health sees: how full it is, or `None`.
    pub full: watch::Receiver<Option<String>>,
    /// What health sees of containerd.
    pub containerd: watch::Receiver<Seen>,
}

impl DiskRepair {
    /// Runs until health has ended.
    pub async fn keep(mut self) {
        self.write_down().await;
        loop {
            if self.full.wait_for(Option::is_some).await.is_err() {
                return;
            }
            let before = self.unused().await;
            sleep(STAYS_FULL).await;
            let Some(reason) = self.full.borrow_and_update().clone() else { continue };
            if self.repairs.leave(DISK, &reason).is_ok() {
                let (action, result) = self.repair(&before).await;
                self.repairs.ended(DISK, &reason, &action, result);
            }
            sleep(AGAIN).await;
        }
    }

    /// What the bundle brought, before anything else is there.
    async fn write_down(&mut self) {
        let mut backoff = Backoff::new(retry::WATCH);
        while self.known.load().is_none() {
            if self.containerd.wait_for(|seen| matches!(seen, Seen::Well)).await.is_err() {
                return;
            }
            let why = match self.stock.list().await {
                Ok((images, _)) => match self.known.keep(&images) {
                    Ok(()) => return,
                    Err(error) => error.to_string(),
                },
                Err(error) => k8sctl_rpc::chain(&error).to_string(),
            };
            tracing::warn!(error = why, "cannot write down the bundle's images");
            sleep(backoff.next_pause()).await;
        }
    }

    /// Images that may go as of now. None, where that cannot be said.
    async fn unused(&self) -> Vec<Image> {
        let Some(mut kept) = self.known.load() else { return Vec::new() };
        kept.extend(self.desired.borrow().iter().map(|desired| desired.pause_image.clone()));
        kept.extend(self.static_pods());
        match self.stock.list().await {
            Ok((images, containers)) => plan_removal(images, &containers, &kept),
            Err(error) => {
                tracing::warn!(error = %k8sctl_rpc::chain(&error), "cannot list container images");
                Vec::new()
            }
        }
    }

    fn static_pods(&self) -> Vec<String> {
        let manifests = kubeadm::manifests().filter_map(|path| self.root.read(path).ok().flatten());
        manifests.flat_map(|manifest| images::of_manifest(&manifest)).collect()
    }

    /// What was done, and whether it helped.
    async fn repair(&self, before: &[Image]) -> (String, Result<(), String>) {
        let before: HashSet<&str> = before.iter().map(|image| image.id.as_str()).collect();
        let (mut removed, mut bytes) = (0, 0);
        let mut errors = Vec::new();
        let end = Instant::now() + LONGEST;
        for image in self.unused().await.into_iter().filter(|image| before.contains(image.id.as_str())) {
            if self.stock.is_roomy() || Instant::now() >= end {
                break;
            }
            match self.stock.remove(&image.id).await {
                Ok(()) => (removed, bytes) = (removed + 1, bytes + image.size),
                Err(error) => errors.push(k8sctl_rpc::chain(&error).to_string()),
            }
        }
        let mut action = format!("removed {removed} unused images of {} MiB", bytes >> 20);
        if self.stock.is_well().is_err() {
            match self.stock.vacuum().await {
                Ok(()) => action.push_str(&format!(", cut the journal to {JOURNAL}")),
                Err(error) => errors.push(k8sctl_rpc::chain(&error).to_string()),
            }
        }
        let result = self.stock.is_well().map_err(|still| {
            errors.insert(0, still);
            errors.join("; ")
        });
        (action, result)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8sctl_proto::node::v1::{Repair, RepairOutcome};

    use super::super::images::tests::image;
    use super::*;
    use crate::status::Board;

    /// A disk on which the images and the journal lie; it is full above a limit.
    struct FakeStock {
        images: Mutex<Vec<Image>>,
        used: Vec<Container>,
        journal: Mutex<u64>,
        limit: u64,
        full: watch::Sender<Option<String>>,
    }

    impl FakeStock {
        fn size(&self) -> u64 {
            let images: u64 = self.images.lock().expect("lock").iter().map(|image| image.size).sum();
            images + *self.journal.lock().expect("lock")
        }

        fn names(&self) -> Vec<String> {
            self.images.lock().expect("lock").iter().map(|image| image.repo_tags[0].clone()).collect()
        }

        /// As health would.
        fn look(&self) {
            self.full.send_replace(self.is_well().err());
        }
    }

    #[async_trait]
    impl Stock for FakeStock {
        async fn list(&self) -> Result<(Vec<Image>, Vec<Container>), CriError> {
            Ok((self.images.lock().expect("lock").clone(), self.used.clone()))
        }

        async fn remove(&self, id: &str) -> Result<(), CriError> {
            self.images.lock().expect("lock").retain(|image| image.id != id);
            self.look();
            Ok(())
        }

        async fn vacuum(&self) -> Result<(), CommandError> {
            *self.journal.lock().expect("lock") = 0;
            self.look();
            Ok(())
        }

        fn is_well(&self) -> Result<(), String> {
            if self.size() > self.limit { Err(format!("{} used", self.size())) } else { Ok(()) }
        }

        fn is_roomy(&self) -> bool {
            self.is_well().is_ok()
        }
    }

    struct Fixture {
        stock: Arc<FakeStock>,
        board: Board,
        _containerd: watch::Sender<Seen>,
        _desired: watch::Sender<Option<DesiredState>>,
        _dir: tempfile::TempDir,
    }

    /// A node whose bundle brought `bundled`, of size 1.
    async fn fixture(limit: u64, journal: u64) -> Fixture {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (full, receiver) = watch::channel(None);
        let (desired, wanted) = watch::channel(None);
        let (containerd, seen) = watch::channel(Seen::Well);
        let stock = Arc::new(FakeStock {
            images: Mutex::new(vec![image("sha256:b", "bundled", 1)]),
            used: vec![Container::example("used", "sha256:u")],
            journal: Mutex::new(journal),
            limit,
            full,
        });
        let board = Board::default();
        let repair = DiskRepair {
            root: Root::new(dir.path()),
            desired: wanted,
            repairs: Repairs::in_memory(board.clone()),
            known: Known::new(dir.path()),
            stock: stock.clone(),
            full: receiver,
            containerd: seen,
        };
        k8sctl_rpc::task::spawn("repair-disk", repair.keep());
        while Known::new(dir.path()).load().is_none() {
            tokio::task::yield_now().await;
        }
        Fixture { stock, board, _containerd: containerd, _desired: desired, _dir: dir }
    }

    impl Fixture {
        fn pull(&self, id: &str, name: &str, size: u64) {
            self.stock.images.lock().expect("lock").push(image(id, name, size));
            self.stock.look();
        }

        async fn repair(&self) -> Repair {
            let mut report = self.board.subscribe();
            let listed = report.wait_for(|report| !report.repairs.is_empty());
            let listed = tokio::time::timeout(Duration::from_secs(600), listed).await.expect("in time");
            listed.expect("the board lives").repairs[0].clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unused_images_go_the_largest_first_and_no_more_than_needed() {
        let fixture = fixture(20 << 20, 0).await;
        fixture.pull("sha256:u", "used", 8 << 20);
        fixture.pull("sha256:s", "small", 4 << 20);
        fixture.pull("sha256:l", "large", 16 << 20);
        let repair = fixture.repair().await;
        assert_eq!((repair.object.as_str(), repair.outcome()), ("disk", RepairOutcome::Repaired));
        assert_eq!(repair.action, "removed 1 unused images of 16 MiB");
        assert_eq!(fixture.stock.names(), ["bundled", "used", "small"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_journal_is_cut_where_images_are_not_enough_and_the_bundles_stay() {
        let fixture = fixture(0, 100).await;
        fixture.pull("sha256:u", "used", 8 << 20);
        let repair = fixture.repair().await;
        assert_eq!(repair.outcome(), RepairOutcome::Failed);
        assert_eq!(repair.action, "removed 0 unused images of 0 MiB, cut the journal to 128M");
        assert_eq!(repair.message, format!("{} used", (8 << 20) + 1));
        assert_eq!(fixture.stock.names(), ["bundled", "used"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_that_was_just_pulled_stays() {
        let fixture = fixture(20, 30).await;
        fixture.stock.look();
        sleep(STAYS_FULL / 2).await;
        fixture.pull("sha256:n", "new", 1);
        assert_eq!(fixture.repair().await.outcome(), RepairOutcome::Repaired);
        assert_eq!(fixture.stock.names(), ["bundled", "new"]);
    }
}
