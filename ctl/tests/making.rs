//! The plugin verbs that make a plugin, of the real binary, with real programs in their sandbox, and no host agent but a
//! fake one that a test asks.

#![allow(clippy::unwrap_used)]

mod fake;
mod harness;

use std::fs::File;
use std::io::{Read as _, Write as _};

use fake::story;
use harness::programs::Workbench;
use harness::{Bench, DEADLINE, terminal};
use k8sctl_proto::control::v1::Diagnostic;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::Value;
use tokio::time::timeout;

/// From nothing to a signed file, and what was changed on the way is noticed.
#[tokio::test]
async fn a_plugin_that_is_data_is_made_tested_packed_and_signed() {
    let bench = Workbench::new().await;
    let out = bench.k8sctl(&["plugin", "new", "greeter"]).await.expect(0);
    assert!(
        out.contains("k8sctl plugin test greeter") && out.contains("plugin add ./greeter --dev"),
        "{out}"
    );
    bench.k8sctl(&["plugin", "new", "greeter"]).await.fails(1, &["error PLUGIN-NEW: plugin greeter: "]);
    bench
        .k8sctl(&["plugin", "new", "Greeter"])
        .await
        .fails(1, &["error PLUGIN-NEW: plugin Greeter: that is no name"]);

    let run = bench
        .k8sctl(&[
            "plugin",
            "test",
            "greeter",
            "--plans",
            "3",
            "--configs",
            "100",
            "--junit",
            "report.xml",
            "-o",
            "json",
        ])
        .await;
    let document: Value = serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    let failed: Vec<_> =
        document["checks"].as_array().unwrap().iter().filter(|check| check["passed"] != true).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(document["checks"].as_array().unwrap().len() >= 16, "{document}");
    run.expect(0);
    let report = std::fs::read_to_string(bench.path("report.xml")).unwrap();
    assert!(report.contains("<testsuite") && report.contains("greeter"), "{report}");

    let out = bench.k8sctl(&["plugin", "build", "greeter"]).await.expect(0);
    assert!(out.contains("built greeter 0.1.0 in greeter/target/plugin"), "{out}");
    let before = std::fs::read_to_string(bench.path("greeter/target/plugin/plugin.toml")).unwrap();
    assert!(before.contains("package.json") && !before.contains("tests/valid"), "{before}");
    let out = bench.k8sctl(&["plugin", "verify", "greeter/target/plugin"]).await.expect(0);
    assert!(out.contains("/greeter/target/plugin"), "{out}");

    bench.k8sctl(&["plugin", "sign", "--new-key", "mine"]).await.expect(0);
    bench.k8sctl(&["plugin", "sign", "greeter", "--key", "mine"]).await.fails(1, &["source folder"]);
    bench.k8sctl(&["plugin", "package", "greeter/target/plugin", "-o", "greeter.tar.zst"]).await.expect(0);
    let unsigned = std::fs::read(bench.path("greeter.tar.zst")).unwrap();
    bench.k8sctl(&["plugin", "package", "greeter/target/plugin", "-o", "again.tar.zst"]).await.expect(0);
    assert!(std::fs::read(bench.path("again.tar.zst")).unwrap() == unsigned, "the same bytes each time");
    bench.k8sctl(&["plugin", "sign", "greeter.tar.zst", "--key", "mine"]).await.expect(0);
    assert!(std::fs::read(bench.path("greeter.tar.zst")).unwrap() != unsigned);
    let out = bench.k8sctl(&["plugin", "verify", "greeter.tar.zst"]).await.expect(0);
    assert!(out.contains("greeter") && out.contains("yes"), "{out}");

    // After it was built, somebody changes something.
    std::fs::write(bench.path("greeter/target/plugin/data.toml"), "# gone\n").unwrap();
    let out = bench.k8sctl(&["plugin", "verify", "greeter/target/plugin"]).await.expect(1);
    assert!(out.contains("warning PLUGIN-DIGEST"), "{out}");
}

#[tokio::test]
async fn a_plugin_that_does_not_behave_fails_its_test() {
    let bench = Workbench::new().await;
    bench.k8sctl(&["plugin", "new", "greeter"]).await.expect(0);
    let file = bench.path("greeter/plugin.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    // It plans more than it asks for.
    std::fs::write(&file, text.replace("kind = \"Deployment\"", "kind = \"StatefulSet\"")).unwrap();
    let test = ["plugin", "test", "greeter", "--plans", "2", "--configs", "20"];
    let run = bench.k8sctl(&test).await;
    assert!(run.out.contains("✗"), "{run:?}");
    run.fails(1, &["error PLUGIN-TEST: plugin greeter: "]);
    // A test that says nothing is no test.
    std::fs::write(bench.path("greeter/tests/invalid/none.json"), "{\"config\": {}}").unwrap();
    std::fs::write(&file, &text).unwrap();
    bench.k8sctl(&test).await.fails(1, &["error PLUGIN-TEST: plugin greeter: ", "none.json"]);
    std::fs::remove_file(bench.path("greeter/tests/invalid/none.json")).unwrap();
    // An expression of its own cannot be evaluated, with few of the configs that its schema takes.
    let (schema, data) = (bench.path("greeter/schema.json"), bench.path("greeter/data.toml"));
    let zone = "\"properties\": { \"zone\": { \"title\": \"Zone\", \"type\": \"string\" },";
    let taken = std::fs::read_to_string(&schema).unwrap();
    std::fs::write(&schema, taken.replacen("\"properties\": {", zone, 1)).unwrap();
    let remark =
        "\n[[check]]\nwhen = \"config.replicas == 10\"\nmessage = \"{{ config.zone }}\"\nwarning = true\n";
    std::fs::write(&data, std::fs::read_to_string(&data).unwrap() + remark).unwrap();
    let run = bench.k8sctl(&["plugin", "test", "greeter", "--plans", "2", "--configs", "500"]).await;
    assert!(run.out.contains("config.zone"), "{run:?}");
    run.fails(1, &["error PLUGIN-TEST: plugin greeter: ", "checks failed: configs\n"]);
    // Of what is no plugin each mistake is told.
    std::fs::write(&file, text.replace("format = 1", "format = 2").replace("verbs", "verb")).unwrap();
    bench.k8sctl(&test).await.fails(1, &["error PLUGIN-MANIFEST", "  | ", "next: "]);
}

/// What no schema says, the program is asked for; and a program must be one that can run on any host.
#[tokio::test]
async fn what_cannot_be_built_is_told_with_the_way_on() {
    let bench = Workbench::new().await;
    bench.k8sctl(&["plugin", "new", "greeter"]).await.expect(0);
    std::fs::write(bench.path("greeter/schema.json"), "{").unwrap();
    bench.k8sctl(&["plugin", "build", "greeter"]).await.fails(1, &["PLUGIN-BUILD", "schema.json", "no JSON"]);
    let file = bench.path("greeter/plugin.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"data-plugin\"", "\"other\"")).unwrap();
    let run = bench.k8sctl(&["plugin", "build", "greeter"]).await;
    run.fails(1, &["PLUGIN-BUILD", "no Cargo.toml", "--program FILE"]);
    // A shell is linked to this host's libraries.
    let dynamic = bench.k8sctl(&["plugin", "build", "greeter", "--program", "/bin/bash"]).await;
    dynamic.fails(1, &["PLUGIN-DYNAMIC"]);
    bench.k8sctl(&["plugin", "test", "nothing"]).await.fails(1, &["PLUGIN-NOT-FOUND"]);
    bench
        .k8sctl(&["plugin", "new", "x", "--rust", "--sdk", "greeter"])
        .await
        .fails(1, &["PLUGIN-NEW", "no SDK"]);
}

/// Its own tests too: the plan that it comes with is the one that it makes.
#[tokio::test]
async fn a_plugin_in_rust_builds_and_passes_all_tests_as_it_is() {
    let bench = Workbench::new().await;
    bench.k8sctl(&["plugin", "new", "my-service", "--rust"]).await.expect(0);
    let test = ["plugin", "test", "my-service", "--plans", "3", "--configs", "100"];
    let out = bench.k8sctl(&test).await.expect(0);
    assert!(out.contains("all ") && out.contains(" checks passed"), "{out}");
    let run = bench.script("cd my-service && cargo test --release").await;
    assert_eq!(run.code, 0, "{}\n{}", run.out, run.err);
    assert!(run.out.contains("2 passed"), "{}", run.out);
    // A mistake is told as cargo tells it.
    std::fs::write(bench.path("my-service/src/main.rs"), "fn main() { nothing() }\n").unwrap();
    let run = bench.k8sctl(&["plugin", "build", "my-service"]).await;
    run.fails(1, &["error PLUGIN-BUILD: plugin my-service: cargo could not build it", "nothing"]);
}

/// The shell that comes back is one in which what is typed can be seen.
#[tokio::test]
async fn the_terminal_shows_what_is_typed_again_however_the_question_for_a_password_ends() {
    const QUESTIONS: [&str; 2] = ["password for the new key", "the same again"];
    let echoes = |terminal: &File| tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO);
    for (signal, code) in [(None, 0), (Some(Signal::INT), 130), (Some(Signal::TERM), 130)] {
        let bench = Bench::new(story::answers());
        let (key, public) = (bench.path("mine"), bench.path("mine.pub"));
        let (mut ours, theirs) = terminal();
        assert!(echoes(&ours));
        let mut command = bench.command(&["plugin", "sign", "--new-key", &key.display().to_string()]);
        command.env("TERM", "dumb").stdin(theirs.try_clone().unwrap());
        command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let mut child = command.spawn().unwrap();
        // It keeps the terminal's other side open.
        drop(command);
        let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
        let said = tokio::task::spawn_blocking(move || {
            let (mut said, mut buffer, mut asked) = (Vec::new(), [0; 4096], 0);
            // EIO is how the end of a terminal's other side is told.
            while let Ok(count @ 1..) = ours.read(&mut buffer) {
                said.extend_from_slice(&buffer[..count]);
                if asked < QUESTIONS.len() && String::from_utf8_lossy(&said).contains(QUESTIONS[asked]) {
                    asked += 1;
                    match signal {
                        Some(signal) => kill_process(pid, signal).unwrap(),
                        None => ours.write_all(b"kanarienvogel\n").unwrap(),
                    }
                }
            }
            (String::from_utf8_lossy(&said).into_owned(), ours)
        });
        let status = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
        let (said, ours) = said.await.unwrap();
        assert_eq!(status.code(), Some(code), "{said}");
        assert!(echoes(&ours), "{signal:?}: {said}");
        assert!(!said.contains("kanarienvogel"), "{said}");
        assert_eq!((key.exists(), public.exists()), (signal.is_none(), signal.is_none()), "{said}");
    }
}

/// The last check: a cluster is asked, and nothing is changed on it.
#[tokio::test]
async fn a_cluster_is_asked_whether_it_would_take_the_objects() {
    let bench = Workbench::new().await;
    bench.k8sctl(&["plugin", "new", "greeter"]).await.expect(0);
    let host = Bench::new(story::answers());
    host.listening().await;
    let socket = host.path("api.sock").display().to_string();
    let few = ["--plans", "2", "--configs", "10", "--cluster", "home", "--socket", &socket, "-o", "json"];
    let test = [&["plugin", "test", "greeter"][..], &few].concat();
    let last = |out: &str| {
        let document: Value = serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"));
        document["checks"].as_array().unwrap().last().unwrap().clone()
    };
    let check = last(&bench.k8sctl(&test).await.expect(0));
    assert_eq!((&check["name"], &check["passed"]), (&"cluster".into(), &true.into()));
    let calls = host.calls();
    assert!(calls.contains("dev: true") && calls.contains("diff: true"), "{calls}");
    // With each config that it must take.
    assert_eq!(calls.matches("PlanPluginRequest").count(), 2, "{calls}");
    assert!(!calls.contains("ChangePluginRequest"), "{calls}");

    host.fake.answers.lock().unwrap().plugin_diagnostics = vec![Diagnostic {
        field: "/image".to_owned(),
        message: "this cluster has no such registry".to_owned(),
        ..Diagnostic::default()
    }];
    let run = bench.k8sctl(&test).await.fails(1, &["checks failed: cluster"]);
    let check = last(&run.out);
    assert!(check["details"].to_string().contains("/image: this cluster has no such registry"), "{check}");
}
