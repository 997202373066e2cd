//! `baseline`, which the bench measures `up` against, on VMs that only say what real ones do.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::stage::{NOTE, Stage, repo, said, wait_for};

/// Makes what it is told to.
const QEMU_IMG: &str = "#!/bin/bash\nfor last; do :; done\n[[ $1 != convert ]] || : >\"$last\"\n";
/// Begins VMs, whose consoles come a moment later, and say their words in halves, beside a kernel.
const VIRSH: &str = r#"#!/bin/bash
echo "virsh $2" >>"$STUBS/calls"
[[ $2 == create ]] || exit 0
console=${3%.xml}.console
say() { printf '[    1.0] kernel\r\nBASELINE 1.0 %s' "${1:0:4}"; /bin/sleep 0.3; printf '%s\r\n' "${1:4}"; }
boot() {
  /bin/sleep 0.3
  exec >"$console"
  say booted
  if [[ $console == *control-plane* ]]; then
    say 'initialized 0'
    printf 'BASELINE-KUBECONFIG a3ViZWN'
    /bin/sleep 0.3
    printf 'vbmZpZw==\r\n'
    say told
  else
    say 'join failed, again'
    say 'joined 0'
  fi
}
boot </dev/null >/dev/null 2>&1 &
"#;
/// Its API server goes away once, and then all nodes are Ready.
const KUBECTL: &str = r#"#!/bin/bash
echo "kubectl $*" >>"$STUBS/calls"
node() { printf '%s   %s   <none>   1s   v1.20.2\n' "$1" "$2"; }
node a Ready
node b NotReady
[[ -e $STUBS/went ]] || { : >"$STUBS/went"; exit 1; }
node c Ready,SchedulingDisabled
echo $$ >"$STUBS/watches"
node b Ready
exec /bin/sleep 60
"#;

#[test]
fn the_baseline_hears_every_word_and_starts_nothing_again_and_again() -> Result<()> {
    let stage = Stage::new(&["baseline", "baseline-boot"])?;
    stage.stubs(&[
        ("qemu-img", QEMU_IMG),
        ("debugfs", "#!/bin/bash\necho 'Inode: 1'\n"),
        ("virsh", VIRSH),
        ("kubectl", KUBECTL),
        ("sleep", NOTE),
    ])?;
    for name in ["lab/images/one/disk.qcow2", "lab/images/one/image.toml", "lab/pool/none", "bundle.toml"] {
        stage.file(name, "")?;
    }
    let bundle = stage.at("bundle.tar");
    let tar = Command::new("tar")
        .arg("-C")
        .arg(stage.at(""))
        .arg("-cf")
        .arg(&bundle)
        .arg("bundle.toml")
        .status()?;
    ensure!(tar.success(), "{tar}");
    let output = stage
        .command("baseline")?
        .arg(repo()?.join("examples/home.toml"))
        .env("LAB_DIR", stage.at("lab"))
        .env("LAB_BUNDLE", &bundle)
        .env("KUBECONFIG", stage.at("kubeconfig"))
        .env("BASELINE_DEADLINE", "60")
        .output()?;
    let out = String::from_utf8_lossy(&output.stdout);
    let reached: Vec<_> = out.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    ensure!(output.status.success(), "{reached:?} {}", said(&output));
    ensure!(reached == ["started", "booted", "initialized", "joined", "ready"], "{out}");
    let kubeconfig = fs::read_to_string(stage.at("kubeconfig"))?;
    ensure!(kubeconfig == "kubeconfig", "{kubeconfig}");

    let calls = stage.calls();
    let watch = "kubectl get nodes --watch --no-headers";
    let expected = ["net-create", "create", "create", "create"].map(|verb| format!("virsh {verb}"));
    ensure!(calls[..4] == expected && calls[4..] == [watch, watch], "{calls:?}");
    let watching = fs::read_to_string(stage.at("watches"))?.trim().parse::<i32>()?;
    wait_for("kubectl ends with it", || kill(Pid::from_raw(watching), None).is_err())?;

    // As those of `up`, with which they are compared.
    let domain = fs::read_to_string(stage.at("lab/k8s-worker-1.xml"))?;
    for device in ["<controller type='usb' model='none'/>", "<memballoon model='none'/>"] {
        ensure!(domain.contains(device), "{domain}");
    }
    Ok(())
}
