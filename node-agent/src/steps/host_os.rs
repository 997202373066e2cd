//! Step `host-os`: name, `/etc/hosts`, kernel modules, sysctls, swap, size of the root file system; modules and sysctls also
//! as plugins need them.
//!
//! Nothing here waits for the network: containerd comes right after it, also while a boot has no address yet.

use async_trait::async_trait;
use k8sctl_proto::node::v1::DesiredState;

use super::requirements::Needs;
use super::{OwnedFile, SHORT, all, rootfs, run, write_files, wrong_files};
use crate::converge::step::{Check, Step, StepError};
use crate::durable::Root;
use crate::status::Progress;

const MODULES: [&str; 2] = ["br_netfilter", "overlay"];
const SYSCTLS: [(&str, &str); 3] = [
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ("net.ipv4.ip_forward", "1"),
];
const HOSTS: &str = "/etc/hosts";
const BEGIN: &str = "# BEGIN k8s-myhome";
const END: &str = "# END k8s-myhome";

/// The step.
pub struct HostOs {
    root: Root,
}

impl HostOs {
    /// Works below this root.
    pub fn new(root: Root) -> Self {
        Self { root }
    }

    fn files(&self, desired: &DesiredState) -> Result<Vec<OwnedFile>, StepError> {
        let hosts = self.root.read_text(HOSTS).map_err(StepError::read(HOSTS))?;
        let modules: String = MODULES.iter().map(|module| format!("{module}\n")).collect();
        let sysctls: String = SYSCTLS.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        Ok(vec![
            OwnedFile::public("/etc/hostname", format!("{}\n", desired.node_name)),
            OwnedFile::public(HOSTS, plan_hosts(&hosts, desired)),
            OwnedFile::public("/etc/modules-load.d/k8s-myhome.conf", modules),
            OwnedFile::public("/etc/sysctl.d/90-k8s-myhome.conf", sysctls),
        ])
    }

    async fn live_wrongs(&self, desired: &DesiredState) -> Result<Vec<String>, StepError> {
        let mut wrong = Vec::new();
        if read_proc("sys/kernel/hostname") != desired.node_name {
            wrong.push("hostname".to_owned());
        }
        wrong.extend(own_kernel_wrongs());
        let needs = Needs::of(desired)?;
        wrong.extend(missing(needs.modules()).map(|module| format!("module {module}")));
        wrong.extend(needs.plan_sysctls(&self.root, read_sysctl)?.wrongs());
        if let Some(growth) = growth_that_is_ours().await {
            wrong.push(format!("root file system has {} of {} bytes", growth.used, growth.available));
        }
        Ok(wrong)
    }

    async fn apply_live(&self, desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        rustix::system::sethostname(desired.node_name.as_bytes())
            .map_err(|error| StepError::write("/proc/sys/kernel/hostname")(error.into()))?;
        let needs = Needs::of(desired)?;
        let missing: Vec<&str> = missing(&MODULES).chain(missing(needs.modules())).collect();
        let modules = match missing.is_empty() {
            true => Ok(()),
            false => run("modprobe", &[vec!["-a"], missing].concat()).await.map(drop).map_err(StepError::from),
        };
        // Some are there with their module only.
        let sysctls = all(SYSCTLS.iter().map(|(key, value)| set_sysctl(key, value)));
        let of_plugins = needs.plan_sysctls(&self.root, read_sysctl);
        let of_plugins = of_plugins.and_then(|plan| plan.execute(&self.root, set_sysctl));
        let swap = match swap_is_on() {
            true => run("swapoff", &["-a"]).await.map(drop).map_err(StepError::from),
            false => Ok(()),
        };
        all([modules, sysctls, of_plugins, swap])?;
        if let Some(growth) = growth_that_is_ours().await {
            progress.say("growing the root file system");
            k8sctl_command::Program::new("resize2fs", SHORT * 5).arg(growth.device).run().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Step for HostOs {
    fn name(&self) -> &'static str {
        "host-os"
    }

    fn unit(&self) -> Option<&'static str> {
        None
    }

    fn members_only(&self) -> bool {
        false
    }

    async fn check(&self, desired: &DesiredState) -> Result<Check, StepError> {
        let files = self.files(desired)?;
        let mut wrong: Vec<String> =
            wrong_files(&self.root, &files)?.iter().map(|file| file.path.clone()).collect();
        wrong.extend(Needs::of(desired)?.wrong_host_files(&self.root)?);
        if self.root.is_live() {
            wrong.extend(self.live_wrongs(desired).await?);
        }
        Ok(Check::from_missing(wrong))
    }

    async fn apply(&self, desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        let files = write_files(&self.root, &self.files(desired)?).map(|_| ());
        let of_plugins = Needs::of(desired)?.write_host_files(&self.root);
        if !self.root.is_live() {
            return all([files, of_plugins]);
        }
        all([files, of_plugins, self.apply_live(desired, progress).await])
    }
}

/// `/etc/hosts` with our block in its place, or appended, and everything else kept.
fn plan_hosts(current: &str, desired: &DesiredState) -> String {
    let mut block: Vec<String> =
        desired.hosts.iter().map(|entry| format!("{} {}", entry.ip, entry.name)).collect();
    if !desired.hosts.iter().any(|entry| entry.name == desired.node_name) {
        block.push(format!("{} {}", desired.node_ip, desired.node_name));
    }
    let (mut kept, mut place) = (Vec::new(), None);
    let lines: Vec<&str> = current.lines().collect();
    let mut rest = lines.as_slice();
    while let [line, behind @ ..] = rest {
        rest = behind;
        match line.trim() {
            BEGIN => {
                place.get_or_insert(kept.len());
                let mark = behind.iter().position(|line| [BEGIN, END].contains(&line.trim()));
                let inside = match mark {
                    Some(end) if behind[end].trim() == END => end + 1,
                    // Its end is gone: what is not ours is somebody else's.
                    _ => {
                        behind.iter().take_while(|line| block.iter().any(|ours| ours == line.trim())).count()
                    }
                };
                rest = &behind[inside..];
            }
            END => {}
            _ => kept.push(*line),
        }
    }
    let place = place.unwrap_or(kept.len());
    let has_localhost = kept.iter().any(|line| line.split_whitespace().any(|word| word == "localhost"));
    let localhost = (!has_localhost).then_some("127.0.0.1 localhost");
    let block = std::iter::once(BEGIN).chain(block.iter().map(String::as_str)).chain([END]);
    let lines = localhost
        .into_iter()
        .chain(kept[..place].iter().copied())
        .chain(block)
        .chain(kept[place..].iter().copied());
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// A root file system that can grow, unless the image's own unit is about to see to it: that one waits until the
/// machine has time, and two growers at once disturb each other.
async fn growth_that_is_ours() -> Option<rootfs::Growth> {
    let growth = rootfs::observe()?;
    let shown = run("systemctl", &["show", "--property=Job,ActiveState", "k8s-grow-root.service"]).await;
    let busy = shown
        .is_ok_and(|text| text.lines().any(|line| line.starts_with("Job=") || line.ends_with("=activating")));
    (!busy).then_some(growth)
}

/// What the kernel has otherwise than it should. It reads a few small files of `/proc` and `/sys` for that, and nothing
/// else, so that this may be asked often.
pub fn kernel_wrongs(desired: Option<&DesiredState>) -> Vec<String> {
    let mut wrong = own_kernel_wrongs();
    // What may not be needed is told by the step.
    let needs = desired.and_then(|desired| Needs::of(desired).ok()).unwrap_or_default();
    wrong.extend(missing(needs.modules()).map(|module| format!("module {module}")));
    wrong.extend(needs.wrong_sysctls(read_sysctl).into_iter().map(|key| format!("sysctl {key}")));
    wrong
}

/// The same of what every node has.
fn own_kernel_wrongs() -> Vec<String> {
    let mut wrong: Vec<String> = missing(&MODULES).map(|module| format!("module {module}")).collect();
    for (key, value) in SYSCTLS {
        if read_sysctl(key).as_deref() != Some(value) {
            wrong.push(format!("sysctl {key}"));
        }
    }
    if swap_is_on() {
        wrong.push("swap is on".to_owned());
    }
    wrong
}

/// Those that the kernel has not, neither loaded nor built in.
fn missing<T: AsRef<str>>(modules: &[T]) -> impl Iterator<Item = &str> {
    let filesystems = read_proc("filesystems");
    let is_there = move |module: &&str| {
        std::path::Path::new("/sys/module").join(module).exists()
            || filesystems.split_whitespace().any(|word| word == *module)
            || is_built_in(&built_in(), module)
    };
    modules.iter().map(AsRef::as_ref).filter(move |module| !is_there(module))
}

/// Of those that are no modules here, only such as have parameters are in `/sys/module`.
fn built_in() -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    std::fs::read_to_string(format!("/lib/modules/{release}/modules.builtin")).unwrap_or_default()
}

/// Lines like `kernel/drivers/net/tun.ko`, in which a `-` is as good as a `_`.
fn is_built_in(list: &str, module: &str) -> bool {
    let mut names = list.lines().filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"));
    names.any(|name| name.replace('-', "_") == module)
}

fn read_sysctl(key: &str) -> Option<String> {
    let text = std::fs::read_to_string(sysctl_path(key)).ok()?;
    Some(text.trim().to_owned())
}

fn set_sysctl(key: &str, value: &str) -> Result<(), StepError> {
    let path = sysctl_path(key);
    // A value may be nothing at all, and nothing written is no write.
    std::fs::write(&path, format!("{value}\n")).map_err(StepError::write(path))
}

fn sysctl_path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

fn swap_is_on() -> bool {
    read_proc("swaps").lines().count() > 1
}

fn read_proc(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/{path}")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use k8sctl_proto::node::v1::{HostEntry, NodeRequirements};

    use super::*;

    fn desired() -> DesiredState {
        let entry = |ip: &str, name: &str| HostEntry { ip: ip.into(), name: name.into() };
        DesiredState {
            node_name: "k8s-worker-1".into(),
            node_ip: "192.168.122.11".into(),
            hosts: vec![entry("192.168.122.10", "k8s-control-plane-1")],
            ..DesiredState::default()
        }
    }

    #[test]
    fn hosts_keep_what_is_not_ours_and_settle() {
        let before =
            "127.0.0.1 localhost\n# BEGIN k8s-myhome\n1.2.3.4 old\n# END k8s-myhome\n10.0.0.1 mine\n";
        let after = plan_hosts(before, &desired());
        assert_eq!(
            after,
            "127.0.0.1 localhost\n# BEGIN k8s-myhome\n192.168.122.10 k8s-control-plane-1\n\
             192.168.122.11 k8s-worker-1\n# END k8s-myhome\n10.0.0.1 mine\n"
        );
        assert_eq!(plan_hosts(&after, &desired()), after);
        // What others append is theirs, and so is all behind a block whose end is gone.
        let appended = format!("{after}10.0.0.2 other\n");
        assert_eq!(plan_hosts(&appended, &desired()), appended);
        let torn = appended.replace("# END k8s-myhome\n", "");
        assert_eq!(plan_hosts(&torn, &desired()), appended);
        assert_eq!(plan_hosts(&format!("{after}{after}"), &desired()).matches("BEGIN").count(), 1);
        assert!(plan_hosts("", &desired()).starts_with("127.0.0.1 localhost\n"));
    }

    #[tokio::test]
    async fn files_below_a_root_are_made_and_repaired() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        let step = HostOs::new(root.clone());
        let progress = Progress::new(crate::status::Board::default(), "host-os");
        assert!(matches!(step.check(&desired()).await.expect("checked"), Check::False(_)));
        step.apply(&desired(), &progress).await.expect("applied");
        assert_eq!(step.check(&desired()).await.expect("checked"), Check::True);
        root.write("/etc/hostname", b"other\n", 0o644).expect("written");
        assert_eq!(step.check(&desired()).await.expect("checked"), Check::False("/etc/hostname".into()));
    }

    #[tokio::test]
    async fn what_plugins_need_is_part_of_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let step = HostOs::new(Root::new(dir.path()));
        let progress = Progress::new(crate::status::Board::default(), "host-os");
        let needing = |modules: &[&str]| {
            let kernel_modules = modules.iter().map(|module| (*module).to_owned()).collect();
            let requirements = NodeRequirements { kernel_modules, ..NodeRequirements::default() };
            DesiredState { requirements: Some(requirements), ..desired() }
        };
        let file = "/etc/modules-load.d/k8s-myhome-plugins.conf";
        step.apply(&desired(), &progress).await.expect("applied");
        let check = async |desired: &DesiredState| step.check(desired).await.expect("checked");
        assert_eq!(check(&needing(&["vxlan"])).await, Check::False(file.into()));
        step.apply(&needing(&["vxlan"]), &progress).await.expect("applied");
        assert_eq!(check(&needing(&["vxlan"])).await, Check::True);
        assert_eq!(check(&desired()).await, Check::False(file.into()), "nobody needs it any more");
        step.apply(&desired(), &progress).await.expect("applied");
        assert_eq!(check(&desired()).await, Check::True);
        let refused = step.check(&needing(&["loop"])).await.expect_err("it is not on the list");
        assert!(matches!(refused, StepError::Desired(_)), "{refused}");
    }

    #[test]
    fn what_is_built_in_is_there() {
        let list = "kernel/drivers/net/tun.ko\nkernel/drivers/md/dm-crypt.ko\n";
        assert!(is_built_in(list, "tun") && is_built_in(list, "dm_crypt"));
        assert!(!is_built_in(list, "net") && !is_built_in("", "tun"));
    }
}
