//! The scripts that only `make up` runs, each with stubs of what it calls: `ensure-bundle`, which decides where a
//! Kubernetes comes from, and `install-system`, which puts the programs where a user finds them.

#![expect(clippy::disallowed_methods, reason = "tests start the scripts themselves")]

#[path = "integration/root.rs"]
mod root;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// Answers from files, and notes each call.
const K8SCTL: &str = r#"#!/bin/bash
echo "k8sctl $*" >>"$STUBS/calls"
case $* in
  "bundle list -o json") cat "$STUBS/list" ;;
  "bundle fetch -o json") cat "$STUBS/fetch"; echo "told to people" >&2; exit "$(<"$STUBS/fetch-status")" ;;
esac
"#;
/// In the place of every script that `ensure-bundle` calls.
const OTHER: &str = "#!/bin/bash\necho \"${0##*/} $*\" >>\"$STUBS/calls\"\n";

const BUNDLE: &str = r#"[{"problem": null, "name": "a", "path": "/b/a.k8sbundle"}]"#;
const BROKEN: &str = r#"[{"path": "/b/a.k8sbundle", "name": "", "problem": {"id": "BUNDLE-CORRUPT"}}]"#;
const UNREACHABLE: &str = r#"{"error":{"object":"bundle v1","id":"BUNDLE-UNREACHABLE"}}"#;
const UPSTREAM: &str =
    r#"{"error":{"id":"BUNDLE-UPSTREAM","reason":"error BUNDLE-UNREACHABLE: not really"}}"#;
const FETCH: &str = "k8sctl bundle fetch -o json";
const LIST: &str = "k8sctl bundle list -o json";

fn repo() -> Result<PathBuf> {
    // Not the directory at build time: clones share cargo's target directory.
    let ours = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").context("cargo sets it for tests")?);
    Ok(ours.parent().and_then(Path::parent).context("the workspace")?.to_owned())
}

fn program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
}

/// What `ensure-bundle` did.
struct Ensured {
    success: bool,
    said: String,
    calls: Vec<String>,
}

/// `ensure-bundle` with this list of bundles, this answer to a fetch, and this cluster file.
fn ensure_bundle(list: &str, fetch: (&str, i32), spec: &str) -> Result<Ensured> {
    let dir = TempDir::new()?;
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("lab"))?;
    for name in ["ensure-bundle", "common.sh"] {
        fs::copy(repo()?.join("tests/lab").join(name), at("lab").join(name))?;
    }
    for name in ["deps", "build-kubernetes", "build-bundle"] {
        program(&at("lab").join(name), OTHER)?;
    }
    fs::create_dir(at("bin"))?;
    program(&at("bin/k8sctl"), K8SCTL)?;
    // The host has one of its own, so none is installed.
    program(&at("bin/kubectl"), OTHER)?;
    let status = fetch.1.to_string();
    for (name, text) in [("list", list), ("fetch", fetch.0), ("fetch-status", status.as_str())] {
        fs::write(at(name), text)?;
    }
    fs::write(at("cluster.toml"), spec)?;
    let path = std::env::var("PATH")?;
    let mut command = Command::new(at("lab/ensure-bundle"));
    for proxy in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    let output = command
        .arg(at("cluster.toml"))
        .env("STUBS", dir.path())
        .env("K8S_MYHOME_CACHE", "/cache")
        .env("PATH", format!("{}:{path}", at("bin").display()))
        .output()?;
    let calls = fs::read_to_string(at("calls")).unwrap_or_default().lines().map(str::to_owned).collect();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Ensured { success: output.status.success(), said, calls })
}

#[test]
fn an_installed_bundle_is_enough() -> Result<()> {
    let done = ensure_bundle(BUNDLE, ("", 1), "name = \"home\"\n")?;
    ensure!(done.success && done.calls == [LIST], "{:?} {}", done.calls, done.said);
    Ok(())
}

#[test]
fn without_one_that_can_be_used_the_default_release_is_fetched() -> Result<()> {
    for list in ["[]", BROKEN] {
        let done = ensure_bundle(list, ("{\"name\": \"kubernetes-v1\"}", 0), "name = \"home\"\n")?;
        ensure!(done.success && done.calls == [LIST, FETCH, LIST], "{:?} {}", done.calls, done.said);
        ensure!(done.said.contains("fetched kubernetes-v1") && done.said.contains("told to people"));
        ensure!(!done.said.contains("TRIAL"), "{}", done.said);
    }
    Ok(())
}

#[test]
fn without_any_network_the_trial_bundle_is_built_and_said_to_be_one() -> Result<()> {
    let done = ensure_bundle("[]", (UNREACHABLE, 1), "name = \"home\"\n")?;
    let import = "k8sctl bundle import /cache/bundles/kubernetes-v1.20.2-lab.k8sbundle";
    let calls = [LIST, FETCH, "deps lab", "build-kubernetes ", "build-bundle ", import, LIST];
    ensure!(done.success && done.calls == calls, "{:?} {}", done.calls, done.said);
    ensure!(done.said.contains("NO NETWORK: using the TRIAL bundle"), "{}", done.said);
    Ok(())
}

#[test]
fn every_other_failure_ends_it() -> Result<()> {
    for fetch in [(UPSTREAM, 1), ("", 101), ("no JSON: BUNDLE-UNREACHABLE", 1)] {
        let done = ensure_bundle("[]", fetch, "name = \"home\"\n")?;
        ensure!(!done.success && done.calls == [LIST, FETCH], "{fetch:?}: {:?} {}", done.calls, done.said);
        ensure!(done.said.contains("for the reason above") && !done.said.contains("TRIAL"), "{}", done.said);
    }
    // A host agent that does not answer is no host without bundles.
    let done = ensure_bundle("no JSON", ("", 0), "name = \"home\"\n")?;
    ensure!(!done.success && done.calls == [LIST], "{:?} {}", done.calls, done.said);
    Ok(())
}

#[test]
fn a_file_that_names_its_release_gets_no_other_one() -> Result<()> {
    let done = ensure_bundle("[]", ("", 1), "name = \"home\"\n kubernetes = \"v1.29.0\"\n")?;
    ensure!(done.success && done.calls == [LIST], "{:?} {}", done.calls, done.said);
    let done = ensure_bundle("[]", ("{}", 0), "# kubernetes = \"v1.29.0\"\n")?;
    ensure!(done.success && done.calls.contains(&FETCH.to_owned()), "{:?} {}", done.calls, done.said);
    Ok(())
}

/// Root of a mount namespace whose changes of /usr and /etc are in memory; systemd does not run in it, at first.
const INSTALL: &str = r#"
set -euo pipefail
repo=$1 work=$2
mount -t tmpfs tmpfs "$work"
for folder in usr etc; do
  mkdir "$work/$folder" "$work/$folder.work"
  mount -t overlay -o "lowerdir=/$folder,upperdir=$work/$folder,workdir=$work/$folder.work" overlay "/$folder"
done
mount -t tmpfs tmpfs /run
rm -rf /usr/local/bin/k8sctl /usr/local/bin/k8s-host-agent /usr/lib/k8s-myhome
rm -f /etc/systemd/system/k8s-host-agent.service
for file in /etc/group /etc/gshadow; do
  [ ! -e "$file" ] || sed -i '/^k8sctl/d' "$file"
done

mkdir -p "$work/dist/bin" "$work/dist/plugins/hello" "$work/stubs"
for name in k8sctl k8s-host-agent k8s-node-agent; do echo "$name" >"$work/dist/bin/$name"; done
chmod 755 "$work"/dist/bin/*
echo plugin >"$work/dist/plugins/hello/plugin.toml"
printf '#!/bin/bash\necho "$*" >>%q\n' "$work/systemctl" >"$work/stubs/systemctl"
chmod 755 "$work/stubs/systemctl"
export PATH=$work/stubs:$PATH

so() { "$@" || { echo "not so: $*" >&2; exit 1; }; }
install() { "$repo/tests/lab/install-system" "$work/dist"; }
installed() { find /usr/local/bin /usr/lib/k8s-myhome -type f -newer "$work/before" | sort; }
before() {
  touch -d '1 second ago' "$work/before"
  find /usr/local/bin /usr/lib/k8s-myhome -type f -exec touch -d '1 hour ago' {} +
}

mkdir -p /usr/local/bin /usr/lib/k8s-myhome
before
install
wanted='/usr/lib/k8s-myhome/k8s-node-agent
/usr/lib/k8s-myhome/plugins/hello/plugin.toml
/usr/local/bin/k8s-host-agent
/usr/local/bin/k8sctl'
so [ "$(installed)" = "$wanted" ]
so cmp "$work/dist/bin/k8sctl" /usr/local/bin/k8sctl
so test -x /usr/local/bin/k8s-host-agent
so getent group k8sctl k8sctl-admin

before
install
so [ -z "$(installed)" ]

# A host agent that runs ends where its program changed, and there alone.
cp "$(command -v sleep)" "$work/k8s-host-agent"
"$work/k8s-host-agent" 1000 &
mkdir -p /run/k8s-myhome
echo $! >/run/k8s-myhome/k8s-host-agent.pid
echo new >"$work/dist/bin/k8sctl"
before
install
so [ "$(installed)" = /usr/local/bin/k8sctl ]
so kill -0 $!
echo new >"$work/dist/bin/k8s-host-agent"
install
wait $! || ended=$?
so [ "$ended" = 143 ]
# The number is somebody else's after a crash.
sleep 1000 >/dev/null 2>&1 &
echo $! >/run/k8s-myhome/k8s-host-agent.pid
echo newer >"$work/dist/bin/k8s-host-agent"
install
so kill -0 $!
kill $!
so [ ! -e "$work/systemctl" ]

# Where systemd runs, it has the unit.
mkdir -p /run/systemd/system
install
so cmp "$repo/host-agent/systemd/k8s-host-agent.service" /etc/systemd/system/k8s-host-agent.service
so [ "$(<"$work/systemctl")" = $'daemon-reload\n--quiet enable k8s-host-agent.service\ntry-restart k8s-host-agent.service' ]
rm "$work/systemctl"
install
so [ ! -e "$work/systemctl" ]
echo newest >"$work/dist/bin/k8s-host-agent"
install
so [ "$(<"$work/systemctl")" = "try-restart k8s-host-agent.service" ]
echo all is so
"#;

#[test]
fn programs_are_installed_once_and_replaced_where_they_changed() -> Result<()> {
    if !root::is_root("programs_are_installed_once_and_replaced_where_they_changed")? {
        return Ok(());
    }
    let work = TempDir::new()?;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "bash", "-c", INSTALL, "bash"])
        .arg(repo()?)
        .arg(work.path())
        .output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.ends_with("all is so\n"), "{}\n{out}\n{err}", output.status);
    Ok(())
}
