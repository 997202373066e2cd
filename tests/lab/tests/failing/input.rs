//! What people type.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{MINUTE, Stage, is_documented, told};

/// Command lines that cannot be meant: exit code 2, what is wrong, and where to read on.
#[test]
fn wrong_command_lines() -> Result<()> {
    let stage = Stage::new("usage")?;
    for (args, said) in [
        (["up", "--frobnicate"].as_slice(), "'--frobnicate'"),
        (&["frobnicate"], "'frobnicate'"),
        (&["up", "--deadline", "soon"], "'soon'"),
        (&["up", "--deadline", "0s"], "'0s'"),
        (&["status", "-o", "xml"], "json"),
        (&["bundle", "verify"], "FILE"),
        (&["logs", "n", "--tail", "-1"], "-1"),
        (&["logs", "--since", "soon"], "write it like"),
        (&["logs", "--container", "app"], "--pod"),
        (&["down", "one", "two"], "'two'"),
        (&["down", "", "--yes"], "NAME"),
        (&["bundle", "fetch", "--kubernetes", ""], "--kubernetes <VERSION>"),
    ] {
        let printed = stage.host.try_k8sctl(args)?;
        let text = &printed.err;
        ensure!(printed.status.code() == Some(2), "{args:?}: {}\n{text}", printed.status);
        ensure!(
            text.contains("error: ") && text.contains(said) && text.contains("--help"),
            "{args:?}:\n{text}"
        );
    }
    Ok(())
}

/// Cluster files that are none. Nothing of this needs a host agent.
#[test]
fn files_that_are_no_spec() -> Result<()> {
    let stage = Stage::new("spec")?;
    let file = |name: &str| stage.host.file(name).to_string_lossy().into_owned();
    fs::write(file("latin1.toml"), b"name = \"home\"\n# Gr\xfc\xdfe\n")?;
    fs::write(file("empty.toml"), "")?;
    fs::write(file("blank.toml"), "# nothing yet\n\n")?;
    fs::create_dir(file("directory"))?;
    for verb in ["up", "plan"] {
        for (name, said) in [
            ("missing.toml", ["there is no such file", "examples/home.toml"]),
            ("latin1.toml", ["line 2 is not UTF-8", "save it as UTF-8"]),
            ("directory", ["it is a directory", "directory/cluster.toml"]),
        ] {
            let printed = stage.host.try_k8sctl(&[verb, "-f", &file(name)])?;
            told(&stage.lab, &printed, 3, "SPEC-UNREADABLE", &said)?;
        }
        for name in ["empty.toml", "blank.toml"] {
            let printed = stage.host.try_k8sctl(&[verb, "-f", &file(name)])?;
            println!("{}", printed.err);
            ensure!(printed.status.code() == Some(3), "{}: {}", printed.status, printed.err);
            ensure!(printed.err.contains("error SPEC-") && printed.err.contains("hint: "), "{}", printed.err);
            ensure!(printed.err.contains("nothing was changed"), "{}", printed.err);
        }
    }
    let endless = stage.host.try_k8sctl(&["up", "-f", "/dev/zero"])?;
    ensure!(endless.status.code() == Some(3) && endless.err.contains("SPEC-FILE-SIZE"), "{}", endless.err);
    let down = stage.host.try_k8sctl(&["down", "-f", &file("missing.toml")])?;
    told(&stage.lab, &down, 3, "SPEC-UNREADABLE", &["there is no such file"])
}

/// A release without a bundle names the command that gets it.
#[test]
fn a_pinned_version_without_bundle() -> Result<()> {
    let mut stage = Stage::new("pinned")?;
    let _agent = stage.host.host_agent(None)?;
    let pinned = stage.host.file("pinned.toml");
    let text = fs::read_to_string(&stage.spec)?.replacen(
        "name = \"sim\"\n",
        "name = \"sim\"\nkubernetes = \"v1.31.4\"\n",
        1,
    );
    fs::write(&pinned, text)?;
    let spec = std::mem::replace(&mut stage.spec, pinned.to_string_lossy().into_owned());
    let printed = stage.up()?;
    let line = fs::read_to_string(&pinned)?.lines().position(|line| line.starts_with("kubernetes"));
    let place = format!("pinned.toml:{}: ", line.context("it is pinned")? + 1);
    let said = [place.as_str(), "k8sctl bundle fetch --kubernetes v1.31.4"];
    told(&stage.lab, &printed, 1, "BUNDLE-MISSING", &said)?;
    let built = stage.host.try_k8sctl(&["image", "build", "--bundle", "kubernetes-v1.31.4"])?;
    told(&stage.lab, &built, 1, "BUNDLE-MISSING", &["k8sctl bundle"])?;
    stage.spec = spec;
    stage.up_succeeds()
}

/// Names that nothing has.
#[test]
fn names_that_nothing_has() -> Result<()> {
    let mut stage = Stage::new("names")?;
    let _agent = stage.host.host_agent(None)?;
    for (args, id) in [
        (["status"].as_slice(), "CLUSTER-NONE"),
        (&["down", "--yes"], "CLUSTER-NONE"),
        (&["kubeconfig"], "CLUSTER-NONE"),
        (&["status", "nosuch"], "CLUSTER-UNKNOWN"),
    ] {
        let printed = stage.host.try_k8sctl(args)?;
        // Of the same host: the flags of this command are in it, where k8sctl itself says so.
        let up = if id == "CLUSTER-NONE" { "/run/api.sock up" } else { "k8sctl up" };
        told(&stage.lab, &printed, 1, id, &[up])?;
    }
    stage.up_succeeds()?;
    for args in [
        ["status", "nosuch"].as_slice(),
        &["down", "nosuch", "--yes"],
        &["kubeconfig", "nosuch", "--print"],
        &["events", "nosuch"],
        &["logs", "sim-control", "--cluster", "nosuch"],
        &["plugin", "list", "--cluster", "nosuch"],
        &["plugin", "add", "hello", "--cluster", "nosuch", "--yes"],
    ] {
        let printed = stage.host.try_k8sctl(args)?;
        told(&stage.lab, &printed, 1, "CLUSTER-UNKNOWN", &["cluster nosuch", "the clusters are: sim"])?;
    }
    // It may be about to come.
    let mut following = stage.host.spawn_k8sctl(&["events", "nosuch", "-f"])?;
    lab_tests::wait_until("who follows its events is told", MINUTE, || {
        let (_, err) = following.read()?;
        Ok(err.contains("there is no cluster nosuch yet") && err.contains("the clusters are: sim"))
    })?;
    ensure!(!following.has_ended()?, "{:?}", following.read()?);
    following.kill()?;
    let printed = stage.host.try_k8sctl(&["logs", "nosuch"])?;
    told(
        &stage.lab,
        &printed,
        1,
        "NODE-UNKNOWN",
        &["node nosuch", "sim-control, sim-worker-1, sim-worker-2"],
    )?;
    let printed = stage.host.try_k8sctl(&["plugin", "add", "./nosuch", "--yes"])?;
    told(&stage.lab, &printed, 1, "PLUGIN-NOT-FOUND", &["plugin ./nosuch"])?;
    let printed = stage.host.try_k8sctl(&["plugin", "add", "nosuch", "--yes"])?;
    told(&stage.lab, &printed, 1, "PLUGIN-UNKNOWN", &["plugin nosuch"])?;
    let printed = stage.host.try_k8sctl(&["plugin", "remove", "nosuch"])?;
    told(&stage.lab, &printed, 1, "PLUGIN-NOT-INSTALLED", &["plugin nosuch", "k8sctl plugin list"])?;
    let printed = stage.host.try_k8sctl(&["image", "remove", "ffff"])?;
    told(&stage.lab, &printed, 1, "IMAGE-UNKNOWN", &["image ffff", "k8sctl image list"])?;
    let printed = stage.host.try_k8sctl(&["image", "remove", &crate::parts::IMAGE[..8]])?;
    told(&stage.lab, &printed, 1, "IMAGE-IN-USE", &["a cluster"])
}

/// No host agent, one that cannot start, and one that may not be used.
#[test]
fn a_host_agent_out_of_reach() -> Result<()> {
    let stage = Stage::new("reach")?;
    let lab = &stage.lab;
    let none = lab.try_run("k8sctl", &["--socket", "/run/no-such.sock", "status"], MINUTE)?;
    told(lab, &none, 4, "HOST-AGENT-UNREACHABLE", &["/run/no-such.sock", "no host agent answers"])?;

    let config = stage.host.file("wrong.toml");
    let wrong = format!(
        "run_dir = {:?}\nstate_dir = {:?}\nnode_prot = 1\n",
        stage.host.file("r"),
        stage.host.file("s")
    );
    fs::write(&config, wrong)?;
    let named = config.to_string_lossy().into_owned();
    let wrong = lab.try_run("k8sctl", &["--config", &named, "status"], MINUTE)?;
    told(lab, &wrong, 4, "HOST-AGENT-START", &["node_prot", "host-agent.log"])?;
    let missing = lab.try_run("k8sctl", &["--config", "/no/such.toml", "status"], MINUTE)?;
    told(lab, &missing, 1, "HOST-CONFIG", &["/no/such.toml"])?;

    // As somebody who is in no group of ours. The program lies where only root may go, so it is mounted elsewhere.
    let _agent = stage.host.host_agent(None)?;
    let path = lab.run("sh", &["-c", "command -v k8sctl"], MINUTE)?;
    let program = "/run/k8sctl-for-nobody";
    fs::write(program, "")?;
    lab.run("mount", &["--bind", path.trim(), program], MINUTE)?;
    let socket = stage.host.file("run/api.sock").to_string_lossy().into_owned();
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "--unset=K8SCTL_CONFIG"];
    let denied = [&nobody[..], &[program, "--socket", &socket, "status"]].concat();
    let denied = lab.try_run("setpriv", &denied, MINUTE);
    lab.run("umount", &["--lazy", program], MINUTE)?;
    let denied = denied?;
    let id = denied.err.split([' ', ':']).nth(1).context("an id")?.to_owned();
    ensure!(id.starts_with("AUTH-"), "{}", denied.err);
    told(lab, &denied, 5, &id, &["k8sctl"])?;
    is_documented(lab, &id)
}

/// What no `up` can bring about is refused, instead of an `up` that ends well without it.
#[test]
fn what_cannot_change_is_refused() -> Result<()> {
    let mut stage = Stage::new("fixed")?;
    let _agent = stage.host.host_agent(None)?;
    stage.up_succeeds()?;
    let text = fs::read_to_string(&stage.spec)?;
    let changed = text
        .replace("cidr = \"192.168.140.0/24\"", "cidr = \"192.168.140.0/24\"\npods = \"10.245.0.0/16\"")
        .replace("name = \"sim-worker-2\"", "name = \"sim-worker-2\"\nlabels = { disk = \"ssd\" }");
    let file = stage.host.file("changed.toml").to_string_lossy().into_owned();
    fs::write(&file, changed)?;
    let said = ["network.pods is ", " and would become 10.245.0.0/16", "labels of node sim-worker-2 is none"];
    for verb in [["plan", "-f", &file].as_slice(), &["up", "-f", &file, "--yes"]] {
        let refused = stage.host.try_k8sctl(verb)?;
        told(&stage.lab, &refused, 3, "SPEC-FIXED", &said)?;
    }
    let again = stage.host.k8sctl(&["plan", "-f", &stage.spec])?;
    ensure!(again.to_lowercase().contains("no changes"), "{again}");
    Ok(())
}
