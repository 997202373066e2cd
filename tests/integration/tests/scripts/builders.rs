//! The builders of `tests/lab`: what they take for whole, and what of them outlives them.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::root::is_root;
use super::stage::{NOTE, Stage, in_namespace, said, wait_for};

/// Begins what a host agent is to the script, a process in a session of its own, and tells its id and its own; then it
/// is at work for ever.
const AT_WORK: &str = r#"#!/bin/bash
setsid sleep 1000 </dev/null >/dev/null 2>&1 &
echo "$! $$" >"$STUBS/begun.new"
mv "$STUBS/begun.new" "$STUBS/begun"
wait
"#;
/// Ends while the host agent begins.
const AT_ONCE: &str = r#"#!/bin/bash
folder=${K8SCTL_CONFIG%/*}
: >"$folder/state/host-agent.log"
setsid bash -c 'sleep 0.3; echo $$ >"$1/begun"; echo $$ >"$2"; exec sleep 1000' bash \
  "$STUBS" "$folder/run/k8s-host-agent.pid" </dev/null >/dev/null 2>&1 &
exit 1
"#;

/// An apt-get that has what the lists name once they were read again, where that helps.
const ARCHIVE: &str = r#"#!/bin/bash
for last; do :; done
echo "apt-get $last" >>"$STUBS/calls"
if [[ $last == update ]]; then : >"$STUBS/new-lists"; exit; fi
[[ -e $STUBS/new-lists ]] && "$(<"$STUBS/helps")"
"#;

/// Processes that a stub began, which end with the test.
struct Begun(Vec<Pid>);

impl Begun {
    fn read(stage: &Stage) -> Result<Self> {
        wait_for("the stub begins", || stage.at("begun").exists())?;
        let text = fs::read_to_string(stage.at("begun"))?;
        let pid = |word: &str| Ok(Pid::from_raw(word.parse()?));
        Ok(Self(text.split_whitespace().map(pid).collect::<Result<_>>()?))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        for pid in &self.0 {
            // It may have ended.
            let _ = kill(*pid, Signal::SIGKILL);
        }
    }
}

/// `build-image` of an empty bundle, with this `k8sctl`.
fn build_image(stage: &Stage, k8sctl: &str) -> Result<Command> {
    stage.program("cache/dist/bin/k8sctl", k8sctl)?;
    stage.file("bundle", "")?;
    let mut command = stage.command("build-image")?;
    command.env("LAB_BUNDLE", stage.at("bundle")).stdin(Stdio::null());
    Ok(command)
}

#[test]
fn a_killed_image_build_leaves_no_lock_to_its_host_agent() -> Result<()> {
    if !is_root("builders::a_killed_image_build_leaves_no_lock_to_its_host_agent")? {
        return Ok(());
    }
    let stage = Stage::new(&["build-image"])?;
    let mut child = build_image(&stage, AT_WORK)?.spawn()?;
    let begun = Begun::read(&stage);
    child.kill()?;
    child.wait()?;
    let begun = begun?;
    ensure!(kill(*begun.0.first().context("the host agent's id")?, None).is_ok(), "it lives");
    fs::File::open(stage.at("cache/locks/image"))?.try_lock().context("the lock is free")?;
    Ok(())
}

#[test]
fn a_host_agent_that_only_begins_ends_with_the_image_build() -> Result<()> {
    if !is_root("builders::a_host_agent_that_only_begins_ends_with_the_image_build")? {
        return Ok(());
    }
    let stage = Stage::new(&["build-image"])?;
    let output = build_image(&stage, AT_ONCE)?.output()?;
    let begun = Begun::read(&stage)?;
    ensure!(!output.status.success(), "{output:?}");
    let agent = begun.0.first().context("the host agent's id")?;
    // Whoever adopted it may not have heard of its end yet.
    wait_for("the host agent ends", || kill(*agent, None).is_err())?;
    Ok(())
}

#[test]
fn an_image_is_built_of_a_bundle_of_any_name() -> Result<()> {
    if !is_root("builders::an_image_is_built_of_a_bundle_of_any_name")? {
        return Ok(());
    }
    let stage = Stage::new(&["build-image"])?;
    let output = build_image(&stage, "#!/bin/bash\nls \"${K8SCTL_CONFIG%/*}/bundles\" >\"$STUBS/calls\"\n")?
        .output()?;
    ensure!(stage.calls() == ["lab.k8sbundle"], "{output:?}");
    Ok(())
}

#[test]
fn a_bundle_without_all_of_the_labs_programs_is_made_again() -> Result<()> {
    let stage = Stage::new(&["build-bundle", "bundle.py", "pause.c"])?;
    for name in ["apt-cache", "apt-get", "sudo"] {
        // Without packages it ends there.
        stage.stubs(&[(name, &format!("{NOTE}exit 1\n"))])?;
    }
    let kubernetes = "cache/kubernetes/v1.20.2";
    let bundle = "cache/bundles/kubernetes-v1.20.2-lab.k8sbundle";
    for name in [&format!("{kubernetes}/done"), &format!("{kubernetes}/source-version"), bundle] {
        stage.file(name, "")?;
    }
    let digest = Command::new("bash")
        .args(["-c", "cd \"$0\" && cat bundle.py build-bundle pause.c | sha256sum"])
        .arg(stage.at("tests/lab"))
        .output()?;
    stage.file(&format!("{bundle}.inputs"), &String::from_utf8(digest.stdout)?)?;
    for name in ["etcd", "docker-registry"] {
        stage.program(&format!("cache/lab-bin/{name}"), NOTE)?;
    }
    let output = stage.command("build-bundle")?.output()?;
    ensure!(output.status.success() && stage.calls().is_empty(), "{}", said(&output));
    for name in ["etcd", "docker-registry"] {
        let file = stage.at("cache/lab-bin").join(name);
        let text = fs::read_to_string(&file)?;
        fs::remove_file(&file)?;
        let output = stage.command("build-bundle")?.output()?;
        ensure!(!output.status.success() && !stage.calls().is_empty(), "{name}: {}", said(&output));
        stage.program(&format!("cache/lab-bin/{name}"), &text)?;
    }
    Ok(())
}

#[test]
fn packages_that_the_lists_do_not_have_any_more_are_looked_for_in_new_ones() -> Result<()> {
    let (download, update) = ("apt-get docker-registry", "apt-get update");
    for (helps, expected) in
        [("true", &[download, update, download, "dpkg-deb -x"][..]), ("false", &[download, update, download])]
    {
        let stage = Stage::new(&["build-bundle", "bundle.py", "pause.c"])?;
        for name in ["done", "source-version"] {
            stage.file(&format!("cache/kubernetes/v1.20.2/{name}"), "")?;
        }
        stage.file("helps", helps)?;
        stage.stubs(&[
            ("apt-cache", "#!/bin/bash\necho '  Candidate: 1'\n"),
            ("apt-get", ARCHIVE),
            // There is none, and that is its end.
            ("dpkg-deb", "#!/bin/bash\necho \"dpkg-deb $1\" >>\"$STUBS/calls\"\nexit 1\n"),
            ("sudo", "#!/bin/bash\nexec \"$@\"\n"),
        ])?;
        let output = stage.command("build-bundle")?.output()?;
        let calls = stage.calls();
        ensure!(!output.status.success() && calls == expected, "{calls:?} {}", said(&output));
    }
    Ok(())
}

#[test]
fn kubernetes_is_built_where_one_of_its_programs_is_missing() -> Result<()> {
    in_namespace(
        "builders::kubernetes_is_built_where_one_of_its_programs_is_missing",
        include_str!("build_kubernetes.sh"),
    )
}
