//! Wakes converge when somebody changes a file that a step keeps, of which the kernel tells (inotify), or what the kernel
//! has of a step (sysctls, modules, swap), which is looked at every few seconds.
//!
//! It only wakes: what has changed, and whether that matters, is the steps' to see. All else (routes, rules of the packet
//! filter) they see at their own interval.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::durable::Root;

/// Directories, and the files in them that count; none named means: all.
const WATCHED: [(&str, &[&str]); 13] = [
    ("/etc", &["hostname", "hosts"]),
    ("/etc/modules-load.d", &[]),
    ("/etc/sysctl.d", &[]),
    ("/etc/containerd", &["config.toml"]),
    ("/etc/cni/net.d", &[]),
    ("/etc/kubernetes", &[]),
    ("/etc/kubernetes/manifests", &[]),
    ("/etc/kubernetes/pki", &[]),
    ("/etc/kubernetes/pki/controller-manager", &[]),
    ("/etc/kubernetes/pki/etcd", &[]),
    ("/etc/kubernetes/pki/scheduler", &[]),
    ("/var/lib/kubelet", &["config.yaml", "kubeadm-flags.env"]),
    ("/var/lib/kubelet/pki", &[]),
];
/// How often it is looked whether a directory has come.
const LOOK_FOR_DIRS: Duration = Duration::from_secs(60);
/// Whoever changes one file often changes others too.
const SETTLE: Duration = Duration::from_secs(1);
/// Shortest time between two wakes: a round of checks costs an emulated machine more than a look at files.
const BETWEEN: Duration = Duration::from_secs(10);
/// How often it is looked at what the kernel has.
const LOOK_AT_KERNEL: Duration = Duration::from_secs(5);

/// Runs until the runtime ends. `look` says what the kernel has otherwise than it should; it wakes once for each answer
/// that is another one than before, so that what cannot be repaired wakes nobody again.
pub async fn watch_kernel(look: impl Fn() -> Vec<String>, wake: Arc<Notify>) {
    let mut known = look();
    loop {
        sleep(LOOK_AT_KERNEL).await;
        let wrong = look();
        if !wrong.is_empty() && wrong != known {
            wake.notify_one();
        }
        known = wrong;
    }
}

/// Runs until the runtime ends. Wakes when the node's address is back: the kernel has dropped the routes with it.
pub async fn watch_address(lacks_address: impl Fn() -> bool, wake: Arc<Notify>) {
    let mut lacked = lacks_address();
    loop {
        sleep(LOOK_AT_KERNEL).await;
        let lacks = lacks_address();
        if lacked && !lacks {
            wake.notify_one();
        }
        lacked = lacks;
    }
}

/// Runs until the runtime ends. Where the kernel cannot tell, converge's interval is all there is.
pub async fn watch(root: Root, wake: Arc<Notify>) {
    let mut watcher = match Watcher::open() {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "changed files are only seen at each interval");
            return;
        }
    };
    loop {
        watcher.add(&root);
        // Cancel-safe: what has not been read is read at the next look.
        match timeout(LOOK_FOR_DIRS, watcher.drifted()).await {
            Err(_) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "changed files cannot be watched for a moment");
                sleep(LOOK_FOR_DIRS).await;
            }
            Ok(Ok(())) => {
                sleep(SETTLE).await;
                watcher.drain();
                wake.notify_one();
                sleep(BETWEEN).await;
            }
        }
    }
}

struct Watcher {
    inotify: AsyncFd<OwnedFd>,
    /// Files that count, by watch.
    files: HashMap<i32, &'static [&'static str]>,
}

impl Watcher {
    #[expect(
        deprecated,
        reason = "the same without a promise to the compiler; an OwnedFd's descriptor is its own"
    )]
    fn open() -> std::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify: AsyncFd::new(inotify)?, files: HashMap::new() })
    }

    /// Watches the directories that there are; again is the same.
    fn add(&mut self, root: &Root) {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for (dir, files) in WATCHED {
            match inotify::add_watch(self.inotify.get_ref(), root.path(dir), flags) {
                Ok(watch) => {
                    self.files.insert(watch, files);
                }
                Err(Errno::NOENT) => {}
                Err(error) => tracing::debug!(dir, %error, "not watched"),
            }
        }
    }

    /// Waits until something that counts has changed.
    async fn drifted(&mut self) -> std::io::Result<()> {
        loop {
            self.inotify.readable().await?.clear_ready();
            if self.drain() {
                return Ok(());
            }
        }
    }

    /// Reads all that there is to read; says whether any of it counts.
    fn drain(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut counts = false;
        // Ends with `WOULDBLOCK`; another error shows at the next wait.
        while let Ok(event) = events.next() {
            let kind = event.events();
            if kind.contains(ReadFlags::IGNORED) {
                self.files.remove(&event.wd());
                counts = true;
                continue;
            }
            let files = self.files.get(&event.wd()).copied().unwrap_or_default();
            let name = event.file_name().map(|name| name.to_string_lossy());
            counts |= match name {
                // The directory itself, or more changes than the kernel keeps.
                None => {
                    kind.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::QUEUE_OVERFLOW)
                }
                // Half-written ones begin with a dot; their new name comes when they are whole.
                Some(name) => !name.starts_with('.') && (files.is_empty() || files.contains(&&*name)),
            };
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        root: Root,
        watcher: Watcher,
        _dir: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        for path in ["/etc/hosts", "/etc/cni/net.d/10-a.conflist"] {
            root.write(path, b"one", 0o644).expect("written");
        }
        let mut watcher = Watcher::open().expect("inotify");
        watcher.add(&root);
        Fixture { root, watcher, _dir: dir }
    }

    #[tokio::test]
    async fn a_changed_and_a_removed_file_are_told() {
        let mut fixture = fixture();
        fixture.root.write("/etc/hosts", b"two", 0o644).expect("written");
        fixture.watcher.drifted().await.expect("told");
        fixture.root.remove("/etc/cni/net.d/10-a.conflist").expect("removed");
        fixture.watcher.drifted().await.expect("told");
        assert!(!fixture.watcher.drain());
    }

    #[tokio::test]
    async fn other_files_and_mere_reading_wake_nobody() {
        let mut fixture = fixture();
        fixture.root.write("/etc/motd", b"x", 0o644).expect("written");
        std::fs::write(fixture.root.path("/etc/cni/net.d/.half"), "x").expect("written");
        fixture.root.read("/etc/hosts").expect("read");
        fixture.root.is("/etc/hosts", b"one", 0o644).expect("read");
        assert!(!fixture.watcher.drain());
    }

    #[tokio::test]
    async fn a_directory_that_comes_or_goes_is_seen() {
        let mut fixture = fixture();
        std::fs::remove_dir_all(fixture.root.path("/etc/cni/net.d")).expect("removed");
        fixture.watcher.drifted().await.expect("told");
        fixture.root.write("/etc/cni/net.d/10-a.conflist", b"one", 0o644).expect("written");
        fixture.root.write("/etc/kubernetes/admin.conf", b"one", 0o600).expect("written");
        fixture.watcher.drain();
        fixture.watcher.add(&fixture.root);
        for path in ["/etc/cni/net.d/10-a.conflist", "/etc/kubernetes/admin.conf"] {
            std::fs::remove_file(fixture.root.path(path)).expect("removed");
            fixture.watcher.drifted().await.expect("told");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_kernel_has_otherwise_is_told_once_within_seconds() {
        let (wake, wrong) = (Arc::new(Notify::new()), Arc::new(std::sync::Mutex::new(Vec::<String>::new())));
        let seen = Arc::clone(&wrong);
        let look = move || seen.lock().expect("not poisoned").clone();
        let task = k8sctl_rpc::task::spawn("watch", watch_kernel(look, Arc::clone(&wake)));
        let steps: [(&[&str], bool); 6] = [
            (&[], false),
            (&["sysctl a"], true),
            (&["sysctl a"], false),
            (&["sysctl a", "module b"], true),
            (&[], false),
            (&["sysctl a"], true),
        ];
        for (now, is_told) in steps {
            *wrong.lock().expect("not poisoned") = now.iter().map(|what| (*what).to_owned()).collect();
            let told = timeout(LOOK_AT_KERNEL * 2, wake.notified()).await;
            assert_eq!(told.is_ok(), is_told, "{now:?}");
        }
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_back_is_told_once() {
        let (wake, lacks) = (Arc::new(Notify::new()), Arc::new(std::sync::Mutex::new(false)));
        let seen = Arc::clone(&lacks);
        let look = move || *seen.lock().expect("not poisoned");
        let task = k8sctl_rpc::task::spawn("watch", watch_address(look, Arc::clone(&wake)));
        for (now, is_told) in [(false, false), (true, false), (true, false), (false, true), (false, false)] {
            *lacks.lock().expect("not poisoned") = now;
            let told = timeout(LOOK_AT_KERNEL * 2, wake.notified()).await;
            assert_eq!(told.is_ok(), is_told, "{now}");
        }
        task.abort();
    }

    #[tokio::test]
    async fn converge_is_woken() {
        let fixture = fixture();
        let wake = Arc::new(Notify::new());
        let task = k8sctl_rpc::task::spawn("watch", watch(fixture.root.clone(), Arc::clone(&wake)));
        // Whatever comes first, the watch or the change: it is changed until it is told.
        let told = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            let mut round = 0;
            loop {
                tokio::select! {
                    () = wake.notified() => return,
                    _ = ticks.tick() => {
                        round += 1;
                        let text = format!("{round}");
                        fixture.root.write("/etc/hosts", text.as_bytes(), 0o644).expect("written");
                    }
                }
            }
        };
        timeout(Duration::from_secs(30), told).await.expect("woken in time");
        task.abort();
    }
}
