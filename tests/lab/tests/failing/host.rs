//! libvirt, disks, networks and VMs of others.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use lab_tests::simulated::Differences;
use lab_tests::{Lab, Running, wait_until};

use crate::{MINUTE, Stage, told};

/// A libvirtd of our own, which can go away without taking the lab's.
struct OwnLibvirtd {
    lab: Lab,
    dir: PathBuf,
    running: Option<Running>,
}

impl OwnLibvirtd {
    fn new(lab: &Lab, name: &str) -> Result<Self> {
        let dir = lab.file(name);
        fs::create_dir_all(&dir)?;
        let config = format!(
            "unix_sock_dir = {dir:?}\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nlog_outputs = \"3:file:{}/log\"\n",
            dir.display()
        );
        fs::write(dir.join("libvirtd.conf"), config)?;
        Ok(Self { lab: lab.clone(), dir, running: None })
    }

    fn uri(&self) -> String {
        format!("test+unix:///default?socket={}/libvirt-sock", self.dir.display())
    }

    /// In mounts of its own, so that it does not meet the lab's.
    fn start(&mut self) -> Result<()> {
        let script = "mount -t tmpfs tmpfs /run && mkdir /run/libvirt && mount -t tmpfs tmpfs /var/lib/libvirt && \
                      exec libvirtd --config \"$1\"";
        let config = self.dir.join("libvirtd.conf").to_string_lossy().into_owned();
        let args = ["--mount", "--propagation", "private", "sh", "-c", script, "sh", &config];
        self.running = Some(self.lab.spawn("unshare", &args, &[])?);
        let uri = self.uri();
        wait_until("our libvirtd answers", MINUTE, || {
            let running = self.running.as_mut().map(Running::has_ended).transpose()?;
            ensure!(running == Some(false), "it has ended: {:?}", self.running.as_ref().map(Running::read));
            Ok(self.lab.try_run("virsh", &["-c", &uri, "uri"], MINUTE)?.status.success())
        })
    }

    fn kill(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |mut running| running.kill())
    }
}

/// libvirtd is down before `up`; then it dies in the middle of one, and comes back.
#[test]
fn libvirtd_may_be_away() -> Result<()> {
    let lab = Lab::here()?;
    let mut libvirtd = OwnLibvirtd::new(&lab, "lv")?;
    let differences = Differences { libvirt_uri: Some(libvirtd.uri()), ..Differences::default() };
    let mut stage = Stage::with("libvirtd", differences)?;
    let _agent = stage.host.host_agent(None)?;
    let spec = stage.spec.clone();
    for args in [["up", "-f", &spec].as_slice(), &["plan", "-f", &spec]] {
        let down = stage.host.try_k8sctl(args)?;
        told(&lab, &down, 1, "LIBVIRT-UNREACHABLE", &["systemctl start", "k8sctl doctor"])?;
    }
    let doctor = stage.host.try_k8sctl(&["doctor"])?;
    ensure!(doctor.status.code() == Some(1) && doctor.out.contains("LIBVIRT-UNREACHABLE"), "{}", doctor.out);

    libvirtd.start()?;
    stage.host.silence("sim-worker-2", true);
    let running = stage.host.spawn_k8sctl(&["up", "-f", &spec, "--yes", "--no-kubeconfig"])?;
    stage.host.run_until("the control plane has joined", MINUTE, |host| {
        Ok(host.k8sctl(&["events"])?.contains("NodeConnected"))
    })?;
    // With it go all its VMs: the test driver forgets.
    libvirtd.kill()?;
    wait_until("who watches is told", MINUTE, || Ok(running.read()?.0.contains("LIBVIRT-UNREACHABLE")))?;
    libvirtd.start()?;
    stage.host.silence("sim-worker-2", false);
    let ended = stage.host.powered(running)?;
    ensure!(ended.status.success(), "{}\n{}\n{}", ended.status, ended.out, ended.err);
    stage.up_succeeds()?;
    stage.host.k8sctl(&["down", "--yes"])?;
    drop(stage);
    libvirtd.kill()
}

/// A small file system, unmounted at the end whatever comes.
struct SmallDisk(PathBuf, Lab);

impl SmallDisk {
    fn new(lab: &Lab, name: &str, options: &str) -> Result<Self> {
        let dir = lab.file(name);
        fs::create_dir_all(&dir)?;
        lab.run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &dir.to_string_lossy()], MINUTE)?;
        Ok(Self(dir, lab.clone()))
    }

    fn change(&self, options: &str) -> Result<()> {
        let options = format!("remount,{options}");
        self.1.run("mount", &["-o", &options, &self.0.to_string_lossy()], MINUTE).map(drop)
    }

    fn as_pool(&self) -> Differences<'static> {
        Differences { keys: vec![("pool_dir", format!("{:?}", self.0))], ..Differences::default() }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The lab's end unmounts it, too.
        let _ = self.1.run("umount", &["--lazy", &self.0.to_string_lossy()], MINUTE);
    }
}

/// No room in the pool, seen when the plan is made.
#[test]
fn a_pool_without_room_is_a_plan_time_error() -> Result<()> {
    let lab = Lab::here()?;
    let disk = SmallDisk::new(&lab, "small", "size=64m")?;
    let mut stage = Stage::with("full", disk.as_pool())?;
    let _agent = stage.host.host_agent(None)?;
    let full = stage.up()?;
    let pool = disk.0.to_string_lossy().into_owned();
    told(&lab, &full, 1, "HOST-DISK-FULL", &[&pool, "64 MiB are free", "pool_dir"])?;
    ensure!(stage.host.domains()?.is_empty(), "{:?}", stage.host.domains()?);
    disk.change("size=16g")?;
    stage.up_succeeds()?;
    stage.host.k8sctl(&["down", "--yes"]).map(drop)
}

/// No room in the pool, met while the plan is carried out.
#[test]
fn a_pool_that_fills_up_is_named() -> Result<()> {
    let lab = Lab::here()?;
    // Room for bytes, and for no more than the first of the image's three files.
    let disk = SmallDisk::new(&lab, "inodes", "size=16g,nr_inodes=2")?;
    let mut stage = Stage::with("filling", disk.as_pool())?;
    let _agent = stage.host.host_agent(None)?;
    let full = stage.up()?;
    let pool = disk.0.to_string_lossy().into_owned();
    told(&lab, &full, 1, "HOST-DISK-FULL", &[&pool, "No space left on device", "pool_dir"])?;
    stage.is_kept("HOST-DISK-FULL", "No space left on device")?;
    disk.change("nr_inodes=1000")?;
    stage.up_succeeds()?;
    stage.host.k8sctl(&["down", "--yes"]).map(drop)
}

/// A VM of somebody else has the name of a node: it is not touched.
#[test]
fn a_foreign_vm_of_our_name_is_not_touched() -> Result<()> {
    let mut stage = Stage::new("foreign")?;
    let _agent = stage.host.host_agent(None)?;
    let file = stage.host.file("foreign.xml");
    let xml = "<domain type='test'><name>sim-worker-1</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>";
    fs::write(&file, xml)?;
    stage.host.virsh(&["define", &file.to_string_lossy()])?;
    let before = stage.host.virsh(&["dumpxml", "sim-worker-1"])?;
    let foreign = stage.up()?;
    let said = ["domain sim-worker-1", "is not ours", "virsh domrename sim-worker-1"];
    told(&stage.lab, &foreign, 1, "LIBVIRT-FOREIGN-DOMAIN", &said)?;
    ensure!(stage.host.virsh(&["dumpxml", "sim-worker-1"])? == before, "it was changed");
    ensure!(stage.host.domains()? == ["sim-worker-1"], "{:?}", stage.host.domains()?);
    stage.host.virsh(&["undefine", "sim-worker-1"])?;
    stage.up_succeeds()?;

    // One that comes while ours is away, and the cluster is there.
    // In this order: a VM of ours that is only off would be started.
    stage.host.virsh(&["undefine", "sim-worker-2"])?;
    stage.host.virsh(&["destroy", "sim-worker-2"])?;
    fs::write(&file, xml.replace("sim-worker-1", "sim-worker-2"))?;
    stage.host.virsh(&["define", &file.to_string_lossy()])?;
    let foreign = stage.up()?;
    told(&stage.lab, &foreign, 1, "LIBVIRT-FOREIGN-DOMAIN", &["domain sim-worker-2", "is not ours"])?;
    stage.host.virsh(&["undefine", "sim-worker-2"])?;
    stage.up_succeeds()
}

/// A machine on the network of the nodes, in a network namespace of its own.
struct Stranger(Lab);

impl Stranger {
    const NAMESPACE: &str = "stranger";

    fn on(lab: &Lab, bridge: &str, address: &str) -> Result<Self> {
        let ip = |args: &[&str]| lab.run("ip", args, MINUTE).map(drop);
        ip(&["netns", "add", Self::NAMESPACE])?;
        let stranger = Self(lab.clone());
        ip(&["link", "add", "stranger0", "type", "veth", "peer", "name", "eth0", "netns", Self::NAMESPACE])?;
        ip(&["link", "set", "stranger0", "master", bridge, "up"])?;
        ip(&["-n", Self::NAMESPACE, "address", "add", address, "dev", "eth0"])?;
        ip(&["-n", Self::NAMESPACE, "link", "set", "eth0", "up"])?;
        Ok(stranger)
    }

    fn mac(&self) -> Result<String> {
        let links = self.0.json("ip", &["-n", Self::NAMESPACE, "-json", "link", "show", "eth0"])?;
        Ok(links[0]["address"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // With it go its end of the cable and ours. The lab's end removes it, too.
        let _ = self.0.run("ip", &["netns", "delete", Self::NAMESPACE], MINUTE);
    }
}

/// The network of this test, started by hand: ours has no ports before it has VMs, and so nobody who could answer.
const NETWORK: &str = "<network><name>taken</name><bridge name='virbr-taken' stp='off'/>\
                       <ip address='192.168.149.1' netmask='255.255.255.0'/></network>";
const SPEC: &str = "name = \"taken\"\n[network]\nname = \"taken\"\ncidr = \"192.168.149.0/24\"\n[[node]]\n\
                    name = \"taken-control\"\nrole = \"control-plane\"\nvcpus = 2\nmemory = \"1860MiB\"\ndisk = \"10GiB\"\n\
                    ip = \"192.168.149.10\"\n[[node]]\nname = \"taken-worker\"\nrole = \"worker\"\nvcpus = 1\n\
                    memory = \"512MiB\"\ndisk = \"10GiB\"\nip = \"192.168.149.11\"\n";

/// Somebody on the network answers for the address of a node. Afterwards a worker gets another name and keeps its
/// address, and `down` gives the network back as it was: defined, and stopped.
#[test]
fn an_address_that_is_taken_is_named_with_its_mac() -> Result<()> {
    let lab = Lab::here()?;
    let config = fs::read_to_string(std::env::var("K8SCTL_CONFIG")?)?;
    // Real ones: a real VM boots from it in the end.
    let images =
        config.lines().find_map(|line| line.strip_prefix("image_dir = ")).unwrap_or_default().to_owned();
    let differences =
        Differences { libvirt_uri: Some("qemu:///system".to_owned()), keys: vec![("image_dir", images)] };
    let mut stage = Stage::with("address", differences)?;
    let (file, spec) = (stage.host.file("network.xml"), stage.host.file("cluster.toml"));
    fs::write(&file, NETWORK)?;
    fs::write(&spec, SPEC)?;
    stage.spec = spec.to_string_lossy().into_owned();
    stage.host.virsh(&["net-define", &file.to_string_lossy()])?;
    let network = stage.host.virsh(&["net-dumpxml", "--inactive", "taken"])?;
    stage.host.virsh(&["net-start", "taken"])?;
    let stranger = Stranger::on(&lab, "virbr-taken", "192.168.149.10/24")?;
    let _agent = stage.host.host_agent(None)?;

    let taken = stage.up()?;
    let mac = stranger.mac()?;
    told(&lab, &taken, 1, "NODE-IP-IN-USE", &["192.168.149.10", &mac])?;
    stage.is_kept("NODE-IP-IN-USE", &mac)?;
    ensure!(stage.host.domains()?.is_empty(), "{:?}", stage.host.domains()?);

    drop(stranger);
    // It ran when it was adopted. From here on it does not.
    stage.host.k8sctl(&["down", "--yes"])?;
    stage.host.virsh(&["net-destroy", "taken"])?;
    // The agents beside the VMs are simulated ones, so nobody waits for a VM to boot.
    stage.up_succeeds()?;

    fs::write(&spec, SPEC.replace("taken-worker", "taken-other"))?;
    stage.up_succeeds()?;
    ensure!(stage.host.domains()? == ["taken-control", "taken-other"], "{:?}", stage.host.domains()?);

    // As a restart of libvirtd leaves it: the pool has seen all that lies in its directory, the consoles too.
    stage.host.virsh(&["pool-refresh", "k8s-myhome"])?;
    stage.host.k8sctl(&["down", "--yes"])?;
    let pools = stage.host.virsh(&["pool-list", "--all", "--name"])?;
    ensure!(!pools.contains("k8s-myhome"), "{pools}");
    let after = stage.host.virsh(&["net-dumpxml", "--inactive", "taken"])?;
    ensure!(after == network, "the network was\n{network}\nand is\n{after}");
    let running = stage.host.virsh(&["net-list", "--name"])?;
    ensure!(!running.contains("taken"), "the network did not run before: {running}");
    stage.host.virsh(&["net-undefine", "taken"]).map(drop)
}
