//! `up`, `down` and `plan` of the real binary against the fake host agent.

#![allow(clippy::unwrap_used)]

mod fake;
mod harness;

use fake::{Answers, story};
use harness::{Bench, bare, finish, terminal};
use k8sctl_proto::control::v1::{Action, ApplyResponse, Diagnostic, Plan};
use tokio::io::{AsyncBufReadExt as _, BufReader};

const HOME: &str = include_str!("../../examples/home.toml");

fn bench(change: impl FnOnce(&mut Answers)) -> (Bench, String) {
    let mut answers = story::answers();
    change(&mut answers);
    let bench = Bench::new(answers);
    let file = bench.file("cluster.toml", HOME);
    (bench, file)
}

#[tokio::test]
async fn up_shows_the_plan_and_plain_progress_and_merges_the_kubeconfig() {
    let (bench, file) = bench(|_| {});
    let out = bench.run(&["up", "-f", &file, "--deadline", "30m"]).await.expect(0);
    for text in [
        "+ create  domain  k8s-worker-2",
        "5 changes: 4 to create, 1 to adopt",
        "note: no KVM on this host",
        "k8s-worker-1: step kubeadm running",
        "k8s-worker-1: Ready",
        "cluster home is up after 4m1",
        "3 of 3 nodes Ready",
        "kubectl get nodes",
    ] {
        assert!(out.contains(text), "{text:?} is not in:\n{out}");
    }
    assert!(!out.contains('\x1b') && !out.contains('\r'), "{out:?}");
    assert_eq!(out.matches("k8s-worker-1: step cni done").count(), 1, "{out}");
    let calls = bench.calls();
    assert!(
        calls.contains("plan_digest: \"digest-of-the-plan\"") && calls.contains("seconds: 1800"),
        "{calls}"
    );
    let merged = std::fs::read_to_string(bench.path(".kube/config")).unwrap();
    assert!(merged.contains("current-context: k8s-myhome-home"), "{merged}");
}

#[tokio::test]
async fn up_as_json_is_one_document_with_the_story_elsewhere() {
    let (bench, file) = bench(|_| {});
    let document = bench.json(&["up", "-f", &file]).await;
    assert_eq!(document["operation"]["state"], "succeeded");
    assert_eq!(document["plan"]["changes"][0]["action"], "adopt");
    assert_eq!(document["kubeconfig"]["context"], "k8s-myhome-home");
}

#[tokio::test]
async fn up_without_changes_ends_at_once() {
    let (bench, file) = bench(|answers| {
        answers.plan = Plan { changes: Vec::new(), ..story::plan() };
        answers.apply = ApplyResponse { no_changes: true, ..Default::default() };
    });
    let out = bench.run(&["up", "-f", &file, "--no-kubeconfig"]).await.expect(0);
    assert!(out.contains("no changes") && out.contains("as it should be"), "{out}");
    assert!(!bench.path(".kube").exists());
    assert!(!bench.calls().contains("WatchOperationRequest"));
}

#[tokio::test]
async fn up_without_waiting_leaves_at_once() {
    let (bench, file) = bench(|_| {});
    let out = bench.run(&["up", "-f", &file, "--no-wait"]).await.expect(0);
    assert!(out.contains(story::OPERATION), "{out}");
    assert!(!bench.calls().contains("WatchOperationRequest"));
}

#[tokio::test]
async fn a_failed_operation_is_told_with_evidence_and_next_step() {
    let (bench, file) = bench(|answers| answers.operation = story::operation_failed());
    let run = bench.run(&["up", "-f", &file]).await;
    let run = run.fails(
        1,
        &[
            "error NODE-SILENT: node k8s-worker-1: its agent has not called home",
            "  | [    1.0] Kernel panic\\x1b[31m - not syncing\n  | end of console",
            "next: look at its console: k8sctl logs k8s-worker-1",
            "go on from there with: k8sctl up -f ",
        ],
    );
    assert!(!run.err.contains('\x1b'), "{run:?}");
    assert!(!bench.path(".kube").exists());
}

/// To run it again would undo what somebody else has asked for since.
#[tokio::test]
async fn an_operation_that_gave_way_is_not_to_be_run_again() {
    let (bench, file) = bench(|answers| {
        answers.operation = story::operation_failed();
        let failure = answers.operation.last_mut().and_then(|last| last.failure.as_mut()).unwrap();
        failure.id = "OPERATION-SUPERSEDED".to_owned();
        failure.next_step = "follow the newer operation with `k8sctl status -w home`".to_owned();
    });
    let run = bench.run(&["up", "-f", &file]).await;
    let run = run.fails(1, &["error OPERATION-SUPERSEDED", "k8sctl status -w home"]);
    assert!(!run.err.contains("go on from there"), "{run:?}");
}

#[tokio::test]
async fn destructive_changes_need_consent() {
    let (bench, file) = bench(|answers| answers.plan = story::destructive_plan());
    let run = bench.run(&["up", "-f", &file]).await;
    let told = "error PLAN-CONSENT: cluster home: 1 change destroys data or stops workloads, and there is no terminal";
    run.fails(6, &[told, "--yes"]);
    assert!(!bench.calls().contains("ApplyRequest"), "{}", bench.calls());
    bench.run(&["up", "-f", &file, "--yes"]).await.expect(0);
    assert!(bench.calls().contains("allow_destructive: true"), "{}", bench.calls());
}

/// A person who comes back to what is under way has agreed to it before.
#[tokio::test]
async fn what_is_under_way_needs_no_consent_again() {
    let (bench, file) = bench(|answers| {
        answers.plan = Plan { operation_id: "op-7".to_owned(), ..story::destructive_plan() };
    });
    bench.run(&["up", "-f", &file]).await.expect(0);
    assert!(bench.calls().contains("allow_destructive: false"), "{}", bench.calls());
    // It may end before this comes in: who has said so already is not told to say it.
    bench.run(&["up", "-f", &file, "--yes"]).await.expect(0);
    assert!(bench.calls().contains("allow_destructive: true"), "{}", bench.calls());
    bench.run(&["down"]).await.expect(0);
    assert!(bench.calls().contains("DestroyRequest"), "{}", bench.calls());
}

#[tokio::test]
async fn every_mistake_is_shown_with_its_place() {
    let (bench, _) = bench(|_| {});
    let file = bench.file("bad.toml", &HOME.replace("name = \"home\"", "name = \"Home!\"\ncolour = 1"));
    let run = bench
        .run(&["up", "-f", &file])
        .await
        .fails(3, &["SPEC-NAME", "SPEC-UNKNOWN-KEY", "hint: ", "2 mistakes in"]);
    assert!(run.err.contains("bad.toml:") && run.err.contains(" | colour = 1"), "{}", run.err);
    assert!(bench.calls().is_empty(), "{}", bench.calls());
}

#[tokio::test]
async fn of_many_mistakes_the_first_are_told() {
    let (bench, _) = bench(|_| {});
    let many: String = (0..150).map(|number| format!("k{number} = 1\n")).collect();
    let file = bench.file("many.toml", &format!("{many}{HOME}"));
    let run = bench.run(&["up", "-f", &file]).await;
    run.fails(3, &["error SPEC-MORE: and 50 more", "more than 100 mistakes in", "many.toml:100:1: "]);
}

#[tokio::test]
async fn mistakes_that_only_the_host_agent_sees_end_it_too() {
    let mistake = Diagnostic {
        id: "SPEC-HOST-MEMORY".to_owned(),
        field: "node".to_owned(),
        line: 1,
        column: 1,
        message: "the nodes want 16 GiB, this host has 4 GiB".to_owned(),
        hint: "give the nodes less memory".to_owned(),
        warning: false,
    };
    let (bench, file) = bench(|answers| answers.diagnostics = vec![mistake]);
    bench
        .run(&["plan", "-f", &file])
        .await
        .fails(3, &["cluster.toml:1:1: error SPEC-HOST-MEMORY", "hint: give"]);
    let run = bench.run(&["plan", "-f", &file, "-o", "json"]).await;
    let document: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &document["diagnostics"][0]["line"]), (3, &1.into()));
    // A warning is in the document of the plan.
    bench.fake.answers.lock().unwrap().diagnostics[0].warning = true;
    let plan = bench.json(&["plan", "-f", &file]).await;
    assert_eq!(plan["warnings"][0]["id"], "SPEC-HOST-MEMORY");
    assert_eq!(plan["notices"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_missing_file_says_where_to_begin() {
    let (bench, _) = bench(|_| {});
    bench.run(&["up", "-f", "/no/such.toml"]).await.fails(3, &["SPEC-UNREADABLE", "examples/home.toml"]);
}

#[tokio::test]
async fn a_plan_that_changed_is_made_again() {
    let (bench, file) = bench(|answers| answers.changed_plans = 1);
    let out = bench.run(&["up", "-f", &file]).await.expect(0);
    assert!(out.contains("making it again"), "{out}");
    assert_eq!(bench.calls().matches("ApplyRequest").count(), 2);
}

#[tokio::test]
async fn watching_goes_on_when_the_host_agent_comes_back() {
    let (bench, file) = bench(|answers| answers.broken_after = Some(2));
    let out = bench.run(&["up", "-f", &file]).await.expect(0);
    assert!(out.contains("went away") && out.contains("is back") && out.contains("is up after"), "{out}");
}

#[tokio::test]
async fn an_interrupted_up_says_how_to_come_back() {
    let (bench, file) = bench(|answers| {
        answers.operation.truncate(2);
        answers.endless = true;
    });
    while !bench.path("api.sock").exists() {
        tokio::task::yield_now().await;
    }
    let mut command = bench.command(&["up", "-f", &file]);
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("k8s-worker-2: Booting") {
            break;
        }
    }
    interrupt(&child);
    let output = child.wait_with_output().await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("goes on without you") && err.contains("k8sctl up -f"), "{err}");
}

/// Ends `child` by Ctrl-C.
fn interrupt(child: &tokio::process::Child) {
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// What comes behind the operation waits for a lock that another program holds.
#[tokio::test]
async fn ctrl_c_ends_it_behind_the_operation_too() {
    let (bench, file) = bench(|_| {});
    bench.run(&["up", "-f", &file]).await.expect(0);
    std::fs::write(bench.path(".kube/config.lock"), "").unwrap();
    let piped = |args: &[&str]| {
        let mut command = bench.command(args);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let before = std::fs::read_to_string(bench.path(".kube/config")).unwrap();
    // So that there is something to write.
    std::fs::write(bench.path(".kube/config"), before.replace("k8s-myhome-home", "other")).unwrap();
    bench.fake.calls.lock().unwrap().clear();
    let child = piped(&["up", "-f", &file]);
    while !bench.calls().contains("GetKubeconfigRequest") {
        tokio::task::yield_now().await;
    }
    interrupt(&child);
    let output = child.wait_with_output().await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("the cluster is up; get its kubeconfig with: k8sctl kubeconfig home"), "{err}");

    std::fs::write(bench.path(".kube/config"), before).unwrap();
    let mut child = piped(&["down", "--yes"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("it says so").contains("is gone") {}
    interrupt(&child);
    let output = child.wait_with_output().await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("its kubeconfig entries stay until: "), "{err}");
}

/// Emacs' shell and the like: nothing can be drawn there, and a person sits before it all the same.
#[tokio::test]
async fn a_dumb_terminal_is_one_to_ask_on() {
    use std::io::{Read as _, Write as _};

    let (bench, _) = bench(|answers| answers.plan = story::destructive_plan());
    while !bench.path("api.sock").exists() {
        tokio::task::yield_now().await;
    }
    let (mut ours, theirs) = terminal();
    let mut command = bench.command(&["down"]);
    command.env("TERM", "dumb").stdin(theirs.try_clone().unwrap());
    command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let mut child = command.spawn().unwrap();
    // It keeps the terminal's other side open.
    drop(command);
    let said = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        let mut answered = false;
        // EIO is how the end of a terminal's other side is told.
        while let Ok(count @ 1..) = ours.read(&mut buffer) {
            said.extend_from_slice(&buffer[..count]);
            if !answered && String::from_utf8_lossy(&said).contains("[y/N]") {
                ours.write_all(b"n\n").unwrap();
                answered = true;
            }
        }
        String::from_utf8_lossy(&said).into_owned()
    });
    let status = child.wait().await.unwrap();
    let said = said.await.unwrap();
    assert_eq!(status.code(), Some(6), "{said}");
    assert!(said.contains("Go on? [y/N]") && said.contains("the answer was no"), "{said}");
    assert!(!said.contains('\x1b'), "{said:?}");
}

#[tokio::test]
async fn a_trial_bundle_cannot_be_missed() {
    let notice = "trial bundle, Kubernetes v1.20.2: for trying things out, not for use".to_owned();
    let (bench, file) = bench(|answers| {
        answers.plan =
            Plan { notices: vec![notice], kubernetes_version: "v1.20.2".to_owned(), ..story::plan() };
    });
    let out = bench.run(&["up", "-f", &file]).await.expect(0);
    assert!(out.contains("║  trial bundle, Kubernetes 1.20 "), "{out}");
    assert_eq!(out.matches("trial bundle").count(), 1, "{out}");
}

#[tokio::test]
async fn what_was_said_before_is_short_when_nothing_changes() {
    let warning = Diagnostic {
        id: "SPEC-HOST-VCPUS".to_owned(),
        message: "they share".to_owned(),
        warning: true,
        ..Diagnostic::default()
    };
    let (bench, file) = bench(|answers| {
        let notices = vec!["trial bundle, Kubernetes v1.20.2: for trying things out, not for use".to_owned()];
        answers.plan = Plan { notices, ..story::plan() };
        answers.diagnostics = vec![warning];
    });
    let run = bench.run(&["up", "-f", &file]).await;
    assert!(run.err.contains("warning SPEC-HOST-VCPUS") && run.out.contains('║'), "{}{}", run.err, run.out);
    let mut plan = story::plan();
    plan.notices = vec!["trial bundle, Kubernetes v1.20.2: for trying things out, not for use".to_owned()];
    plan.changes.clear();
    {
        let mut answers = bench.fake.answers.lock().unwrap();
        answers.plan = plan;
        answers.apply = ApplyResponse { no_changes: true, ..ApplyResponse::default() };
    }
    let run = bench.run(&["up", "-f", &file]).await;
    assert!(!run.err.contains("SPEC-HOST-VCPUS") && !run.out.contains('║'), "{}{}", run.err, run.out);
    assert_eq!(run.out.matches("trial bundle").count(), 1, "{}", run.out);
    // Who asks for the plan is told everything.
    let run = bench.run(&["plan", "-f", &file]).await;
    assert!(run.err.contains("warning SPEC-HOST-VCPUS"), "{}", run.err);
}

/// Typed as it stands, the next command is for the same host agent and wants the same.
#[tokio::test]
async fn what_to_type_next_says_what_was_said() {
    let (bench, file) = bench(|answers| answers.plan = story::destructive_plan());
    let config = bench.file("host agent.toml", "");
    let run = bench
        .run(&["--config", &config, "up", "-f", &file, "--no-kubeconfig", "--deadline", "90m", "--no-wait"])
        .await;
    let next = format!(
        "k8sctl --config '{config}' up -f {file} --deadline '1h 30m' --no-wait --no-kubeconfig --yes\n"
    );
    run.fails(6, &[&next]);
    let socket = bench.path("api.sock").display().to_string();
    let by_socket = |args: &[&str]| {
        let mut command = bare(bench.dir.path());
        command.arg("--socket").arg(&socket).args(args);
        finish(command)
    };
    let next = format!("k8sctl --socket {socket} down home --deadline '1h 30m' --no-kubeconfig --yes\n");
    by_socket(&["down", "--no-kubeconfig", "--deadline", "90m"]).await.fails(6, &[&next]);
    let out = by_socket(&["down", "--yes", "--no-wait"]).await.expect(0);
    assert!(out.contains(&format!("watch it with: k8sctl --socket {socket} events -f\n")), "{out}");
    bench.fake.answers.lock().unwrap().operation = story::operation_failed();
    let run = by_socket(&["up", "-f", &file, "--yes", "--no-kubeconfig"]).await;
    let next = format!("go on from there with: k8sctl --socket {socket} up -f {file} --no-kubeconfig\n");
    run.fails(1, &[&next]);
}

#[tokio::test]
async fn plan_changes_nothing_and_tells_scripts() {
    let (bench, file) = bench(|_| {});
    bench.run(&["plan", "-f", &file]).await.expect(0);
    bench.run(&["plan", "-f", &file, "--exit-code"]).await.expect(7);
    assert_eq!(bench.json(&["plan", "-f", &file]).await["changes"].as_array().unwrap().len(), 5);
    assert!(!bench.calls().contains("ApplyRequest"));
    bench.fake.answers.lock().unwrap().plan.changes.clear();
    bench.run(&["plan", "-f", &file, "--exit-code"]).await.expect(0);
}

#[tokio::test]
async fn down_lists_and_asks() {
    let (bench, file) = bench(|answers| answers.plan = story::destructive_plan());
    let run = bench.run(&["down"]).await;
    assert!(run.out.contains("- delete  domain k8s-worker-2  it left the file (destructive)"), "{}", run.out);
    run.fails(6, &["PLAN-CONSENT", "k8sctl down home --yes"]);
    assert!(!bench.calls().contains("\nDestroyRequest {"), "{}", bench.calls());
    let out = bench.run(&["down", "-f", &file, "--yes", "--deadline", "30m"]).await.expect(0);
    assert!(out.contains("cluster home is gone"), "{out}");
    let (calls, request) =
        (bench.calls(), "DestroyRequest { cluster_name: \"home\", plan_digest: \"digest-of-the-plan\"");
    assert!(calls.contains(request) && calls.contains("seconds: 1800"), "{calls}");
}

/// A file that would not do for an `up`, here or at all, still says which cluster is meant.
#[tokio::test]
async fn down_wants_no_more_of_the_file_than_the_name() {
    let (bench, _) = bench(|_| {});
    let text = HOME.replace("memory = \"8GiB\"", "memory = \"4TiB\"").replace("vcpus = 4", "cpus = \"many\"");
    let file = bench.file("too-large.toml", &text);
    bench.run(&["down", "-f", &file, "--yes"]).await.expect(0);
    assert!(bench.calls().contains("DestroyRequest { cluster_name: \"home\""), "{}", bench.calls());
    let broken = bench.file("broken.toml", &text.replace("cpus = ", "cpus "));
    bench.run(&["down", "-f", &broken, "--yes"]).await.fails(3, &["SPEC-TOML", "broken.toml:"]);
    let nameless = bench.file("nameless.toml", &text.replace("name = \"home\"", ""));
    bench.run(&["down", "-f", &nameless, "--yes"]).await.fails(3, &["SPEC-MISSING name"]);
}

#[tokio::test]
async fn down_takes_its_entries_out_of_the_kubeconfig() {
    let (bench, file) = bench(|_| {});
    let config = || std::fs::read_to_string(bench.path(".kube/config")).unwrap();
    bench.run(&["up", "-f", &file]).await.expect(0);
    let before = config();
    assert!(before.contains("current-context: k8s-myhome-home"), "{before}");
    // Not waiting, nothing is known yet; and who says so keeps his file.
    let out = bench.run(&["down", "--yes", "--no-wait"]).await.expect(0);
    for kind in ["context", "cluster", "user"] {
        assert!(out.contains(&format!("kubectl config delete-{kind} k8s-myhome-home")), "{out}");
    }
    let out = bench.run(&["down", "--yes", "--no-kubeconfig"]).await.expect(0);
    assert!(!out.contains("k8s-myhome-home"), "{out}");
    assert_eq!(config(), before);
    let out = bench.run(&["down", "--yes"]).await.expect(0);
    assert_eq!(out.matches("removed context k8s-myhome-home from ").count(), 1, "{out}");
    assert!(!config().contains("k8s-myhome-home"), "{}", config());
    // Once more there is nothing, and no word about it.
    let out = bench.run(&["down", "--yes"]).await.expect(0);
    assert!(out.contains("is gone") && !out.contains("k8s-myhome-home"), "{out}");
}

#[tokio::test]
async fn a_failed_down_leaves_the_kubeconfig() {
    let (bench, file) = bench(|_| {});
    bench.run(&["up", "-f", &file]).await.expect(0);
    bench.fake.answers.lock().unwrap().operation = story::operation_failed();
    bench.run(&["down", "--yes"]).await.fails(1, &["NODE-SILENT"]);
    assert!(std::fs::read_to_string(bench.path(".kube/config")).unwrap().contains("k8s-myhome-home"));
}

const LOCK: &str = "# Written by k8sctl\nformat = 1\n\n[[plugin]]\nname = \"hello\"\nversion = \"0.1.0\"\n\
                    source = \"path\"\nsha256 = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n\
                    trust = \"built-in\"\n[plugin.binaries]\n";

/// A plan that adds a plugin which asks for something.
fn plugin_plan() -> Plan {
    let mut plan = story::plan();
    plan.lock_text = LOCK.to_owned();
    let mut change = story::change(Action::Create, "plugin", "hello", "0.1.0 (built-in), 3 objects", false);
    change.permissions = vec!["get,create Deployment.apps in namespace hello: the web servers".to_owned()];
    change.permissions_digest = "digest-of-the-permissions".to_owned();
    plan.changes.push(change);
    plan
}

#[tokio::test]
async fn what_plugins_ask_for_needs_consent() {
    let (bench, file) = bench(|answers| answers.plan = plugin_plan());
    let out = bench.run(&["plan", "-f", &file]).await.expect(0);
    let lines = "+ create  plugin  hello";
    assert!(out.contains(lines) && out.contains("asks for get,create Deployment.apps in namespace"), "{out}");
    let run = bench.run(&["up", "-f", &file]).await;
    run.fails(6, &["plugin hello asks for the permissions above", "--yes"]);
    assert!(!bench.path("k8sctl.lock").exists(), "nothing was applied");
    bench.run(&["up", "-f", &file, "--yes"]).await.expect(0);
    assert!(bench.calls().contains("allow_destructive: true"), "{}", bench.calls());
    let document = bench.json(&["plan", "-f", &file]).await;
    assert_eq!(document["changes"][5]["permissions_digest"], "digest-of-the-permissions");
}

#[tokio::test]
async fn the_lock_file_goes_with_the_spec_and_is_written_when_it_was_applied() {
    let (bench, file) = bench(|answers| answers.plan = plugin_plan());
    bench.run(&["plan", "-f", &file]).await.expect(0);
    assert!(!bench.path("k8sctl.lock").exists(), "a plan writes nothing");
    let out = bench.run(&["up", "-f", &file, "--yes"]).await.expect(0);
    assert!(out.contains("k8sctl.lock: written"), "{out}");
    assert_eq!(std::fs::read_to_string(bench.path("k8sctl.lock")).unwrap(), LOCK);
    assert!(bench.calls().contains("lock_text: \"\", locked: false"), "{}", bench.calls());
    let out = bench.run(&["up", "-f", &file, "--yes", "--locked"]).await.expect(0);
    assert!(!out.contains("k8sctl.lock: written"), "it says the same: {out}");
    assert!(bench.calls().contains("lock_text: \"# Written by k8sctl\\nformat = 1"), "{}", bench.calls());
    assert!(bench.calls().contains("locked: true"), "{}", bench.calls());
    bench.run(&["plan", "-f", "-", "--locked"]).await.fails(3, &["PLUGIN-LOCK", "-f FILE"]);

    // What a plugin of the file is upgraded to is what the lock file leaves open.
    bench.fake.calls.lock().unwrap().clear();
    bench
        .run(&["plugin", "upgrade", "-f", &file, "nosuch"])
        .await
        .fails(3, &["PLUGIN-LOCK", "it has: hello"]);
    let run = bench.run(&["plugin", "upgrade", "-f", &file, "hello"]).await;
    run.fails(6, &[&format!("k8sctl plugin upgrade -f {file} hello --yes")]);
    bench.run(&["plugin", "upgrade", "-f", &file, "hello", "--yes"]).await.expect(0);
    let calls = bench.calls();
    assert!(calls.contains("ApplyRequest") && !calls.contains("0123456789abcdef"), "{calls}");
    assert!(!calls.contains("GetKubeconfigRequest"), "it is no up for a new cluster: {calls}");
    assert_eq!(std::fs::read_to_string(bench.path("k8sctl.lock")).unwrap(), LOCK);
}

/// What was applied is applied; that it cannot be taken down is told.
#[tokio::test]
async fn a_lock_file_that_cannot_be_read_or_written_is_told() {
    let (bench, file) = bench(|answers| answers.plan = plugin_plan());
    std::fs::create_dir(bench.path("k8sctl.lock")).unwrap();
    bench.run(&["up", "-f", &file, "--yes"]).await.fails(3, &["PLUGIN-LOCK", "k8sctl.lock"]);
    assert!(bench.calls().is_empty(), "{}", bench.calls());
}
