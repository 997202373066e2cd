//! A control group (version 2) for each plugin process, where this program has a part of that tree to itself: memory,
//! processes and processor time are then the kernel's to bound, and all that a process could leave ends with its group.
//! Without one there are the limits of [`super::sandbox`]. Called by [`super::Launcher`].
//!
//! ```text
//! OURS/                what systemd gave the program, Delegate=memory pids cpu
//!   agent/             this program, since a group with processes may have no groups with limits
//!   plugin-1/          one for each process
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Ceilings;

/// Threads of one plugin process.
const THREADS: u32 = 64;
/// Two processors: so many microseconds of every 100,000.
const PROCESSORS: &str = "200000 100000";
/// What limits take.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// How often, and with which pauses, a group whose processes have ended is taken away: they leave it a moment later.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// The part of the tree that is this program's. Clones share it.
#[derive(Clone, Debug)]
pub struct Cgroups {
    ours: PathBuf,
    made: Arc<AtomicU64>,
}

impl Cgroups {
    /// Takes over this program's own group, at its start: `root` is `/sys/fs/cgroup`, `own` the text of
    /// `/proc/self/cgroup`. `None`: not version 2, no memory or pids controller, not delegated, or shared with others.
    pub fn claim(root: &Path, own: &str) -> Option<Self> {
        let ours = own_group(root, own)?;
        let has = std::fs::read_to_string(ours.join("cgroup.controllers")).ok()?;
        let has: Vec<&str> =
            CONTROLLERS.into_iter().filter(|name| has.split_whitespace().any(|it| it == *name)).collect();
        if !has.contains(&"memory") || !has.contains(&"pids") {
            return None;
        }
        let members = std::fs::read_to_string(ours.join("cgroup.procs")).ok()?;
        let us = std::process::id().to_string();
        if members.split_whitespace().collect::<Vec<_>>() != [us.as_str()] {
            return None;
        }
        match take_over(&ours, &us, &has) {
            Ok(()) => Some(Self { ours, made: Arc::default() }),
            Err(error) => {
                tracing::info!(cgroup.path = %ours.display(), %error, "plugins get no control groups");
                None
            }
        }
    }

    /// A group with limits, empty.
    pub(super) fn make(&self, ceilings: Ceilings) -> io::Result<Group> {
        let group = Group { folder: self.new_folder()? };
        let memory = ceilings.memory_bytes.to_string();
        group.write("memory.max", &memory)?;
        group.write("pids.max", &THREADS.to_string())?;
        // None of these is everywhere, and each is one bound beside others.
        for (file, value) in [("memory.oom.group", "1"), ("memory.swap.max", "0"), ("cpu.max", PROCESSORS)] {
            if let Err(error) = group.write(file, value) {
                tracing::debug!(cgroup.file = file, %error, "a control group has no such limit");
            }
        }
        Ok(group)
    }

    fn new_folder(&self) -> io::Result<PathBuf> {
        loop {
            let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
            let folder = self.ours.join(format!("plugin-{number}"));
            match std::fs::create_dir(&folder) {
                // One that a run before left, and that would not go.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| folder),
            }
        }
    }
}

/// Where this program is, if that is a group of its own below the root.
fn own_group(root: &Path, own: &str) -> Option<PathBuf> {
    // With version 1 beside it there are other lines, and the controllers are theirs.
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path = Path::new(path.strip_prefix('/')?);
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && path.components().next().is_some()).then(|| root.join(path))
}

fn take_over(ours: &Path, us: &str, controllers: &[&str]) -> io::Result<()> {
    let agent = ours.join("agent");
    match std::fs::create_dir(&agent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Whatever an earlier run that was killed has left.
    for entry in std::fs::read_dir(ours)?.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("plugin-") {
            drop(Group { folder: entry.path() });
        }
    }
    std::fs::write(agent.join("cgroup.procs"), us)?;
    let wanted: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    std::fs::write(ours.join("cgroup.subtree_control"), wanted.join(" "))
}

/// The group of one process. Dropping it ends what is in it.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
}

impl Group {
    /// A process that writes `0` to this enters.
    pub(super) fn entrance(&self) -> io::Result<OwnedFd> {
        Ok(File::options().write(true).open(self.folder.join("cgroup.procs"))?.into())
    }

    /// Whether the kernel ended it for its memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let events = std::fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        let killed = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok();
        events.lines().find_map(killed).is_some_and(|times| times > 0)
    }

    /// Ends what is in it, waits until that is gone, and takes it away.
    pub(super) async fn end(self) {
        self.kill();
        for _ in 0..TRIES {
            if self.is_gone() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::warn!(cgroup.path = %self.folder.display(), "a plugin's control group stays");
    }

    fn kill(&self) {
        // Since Linux 5.14; before, the process itself is killed, and it could not make others.
        if let Ok(mut file) = File::options().write(true).open(self.folder.join("cgroup.kill")) {
            let _ = io::Write::write_all(&mut file, b"1");
        }
    }

    fn is_gone(&self) -> bool {
        match std::fs::remove_dir(&self.folder) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        std::fs::write(self.folder.join(file), value)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        self.is_gone();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder that looks like the tree, in which this program has `system.slice/agent.service`.
    struct Tree {
        root: tempfile::TempDir,
    }

    const OWN: &str = "0::/system.slice/agent.service\n";

    impl Tree {
        fn new(controllers: &str, members: &[u32]) -> Self {
            let tree = Self { root: tempfile::tempdir().expect("a folder") };
            let ours = tree.ours();
            fs::create_dir_all(&ours).expect("made");
            fs::write(ours.join("cgroup.controllers"), controllers).expect("written");
            let members: String = members.iter().map(|pid| format!("{pid}\n")).collect();
            fs::write(ours.join("cgroup.procs"), members).expect("written");
            tree
        }

        fn ours(&self) -> PathBuf {
            self.root.path().join("system.slice/agent.service")
        }

        fn claim(&self) -> Option<Cgroups> {
            Cgroups::claim(self.root.path(), OWN)
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.ours().join(file)).unwrap_or_default()
        }
    }

    fn us() -> u32 {
        std::process::id()
    }

    #[test]
    fn this_program_moves_aside_and_each_process_gets_a_group_with_limits() {
        let tree = Tree::new("cpuset cpu io memory pids\n", &[us()]);
        let groups = tree.claim().expect("it is ours");
        assert_eq!(tree.read("agent/cgroup.procs"), us().to_string());
        assert_eq!(tree.read("cgroup.subtree_control"), "+memory +pids +cpu");
        let ceilings = Ceilings { memory_bytes: 1 << 20, stderr_bytes: 0 };
        let group = groups.clone().make(ceilings).expect("made");
        for (file, value) in [
            ("memory.max", "1048576"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "1"),
            ("pids.max", "64"),
            ("cpu.max", "200000 100000"),
        ] {
            assert_eq!(tree.read(&format!("plugin-1/{file}")), value, "{file}");
        }
        let other = groups.make(ceilings).expect("made");
        assert_ne!(group.folder, other.folder);
    }

    #[test]
    fn no_cpu_controller_is_no_hindrance() {
        let tree = Tree::new("memory pids", &[us()]);
        tree.claim().expect("it is ours");
        assert_eq!(tree.read("cgroup.subtree_control"), "+memory +pids");
    }

    #[test]
    fn what_is_not_whole_or_not_ours_alone_is_left_as_it_is() {
        for (controllers, members) in [
            ("cpu io pids", vec![us()]),
            ("cpu io memory", vec![us()]),
            ("memory pids", vec![us(), 1]),
            ("memory pids", vec![1]),
            ("memory pids", vec![]),
        ] {
            let tree = Tree::new(controllers, &members);
            assert!(tree.claim().is_none(), "{controllers} {members:?}");
            assert!(!tree.ours().join("agent").exists(), "{controllers} {members:?}");
        }
        let tree = Tree::new("memory pids", &[us()]);
        for own in [
            "0::/\n",
            "",
            "4:memory:/system.slice/agent.service\n",
            "0::/../agent.service\n",
            "0::/elsewhere\n",
        ] {
            assert!(Cgroups::claim(tree.root.path(), own).is_none(), "{own:?}");
        }
    }

    #[test]
    fn what_a_run_before_has_left_is_taken_away() {
        let tree = Tree::new("memory pids", &[us()]);
        fs::create_dir(tree.ours().join("plugin-9")).expect("made");
        tree.claim().expect("it is ours");
        assert!(!tree.ours().join("plugin-9").exists());
    }

    #[tokio::test]
    async fn a_group_tells_of_memory_and_goes() {
        let tree = Tree::new("memory pids", &[us()]);
        let groups = tree.claim().expect("it is ours");
        fs::create_dir(tree.ours().join("plugin-2")).expect("made");
        let group = Group { folder: tree.ours().join("plugin-2") };
        assert!(!group.ran_out_of_memory());
        let events = group.folder.join("memory.events");
        fs::write(&events, "low 0\nmax 12\noom 1\noom_kill 0\n").expect("written");
        assert!(!group.ran_out_of_memory());
        fs::write(&events, "low 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 1\n").expect("written");
        assert!(group.ran_out_of_memory());
        let entrance = group.folder.join("cgroup.procs");
        fs::write(&entrance, "").expect("written");
        group.entrance().expect("opened");
        // The kernel's files go with their folder, and these must be taken away.
        fs::remove_file(events).and_then(|()| fs::remove_file(entrance)).expect("removed");
        group.end().await;
        assert!(!tree.ours().join("plugin-2").exists());
        drop(groups);
    }
}
