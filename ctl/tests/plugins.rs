//! The plugin verbs that need a host agent, of the real binary against the fake one.

#![allow(clippy::unwrap_used)]

mod fake;
mod harness;

use fake::{Answers, story};
use harness::{Bench, DEADLINE};
use k8sctl_proto::control::v1::*;
use k8sctl_proto::node::v1::PodLogs;
use k8sctl_types::failure::Failure;
use serde_json::Value;
use tokio::time::timeout;
use tonic::Code;

fn bench(change: impl FnOnce(&mut Answers)) -> Bench {
    let mut answers = story::answers();
    change(&mut answers);
    Bench::new(answers)
}

fn mistake(warning: bool) -> Diagnostic {
    Diagnostic {
        id: "PLUGIN-CONFIG-INVALID".to_owned(),
        field: "/page/title".to_owned(),
        message: "x is too short".to_owned(),
        warning,
        ..Default::default()
    }
}

#[tokio::test]
async fn adding_needs_consent_to_what_is_asked_for() {
    let bench = bench(|_| {});
    let file = bench.file("hello.toml", "replicas = 1\n[page]\ntitle = 'x'\n");
    let add = ["plugin", "add", "hello", "--config", &file, "--set", "replicas=3", "--deadline", "90s"];
    let run = bench.run(&add).await;
    for text in [
        "plugin hello 0.1.0 (built-in)",
        "+ get,create,patch,delete Deployment.apps in namespace hello: the web servers",
        "+ apps/v1 Deployment hello/hello",
        "create 2, change 0, delete 0",
    ] {
        assert!(run.out.contains(text), "{text:?} is not in:\n{}", run.out);
    }
    let next =
        format!("k8sctl plugin add hello --config {file} --set 'replicas=3' --deadline '1m 30s' --yes\n");
    run.fails(6, &["plugin hello", &next]);
    assert!(!bench.calls().contains("ChangePluginRequest"), "{}", bench.calls());

    let out = bench.run(&[&add[..], &["--yes", "--adopt"]].concat()).await.expect(0);
    assert!(
        out.contains("applying 2 objects") && out.contains("plugin hello 0.1.0 is Ready (2 objects)"),
        "{out}"
    );
    let calls = bench.calls();
    for text in [
        "change: Add, plugin: \"hello\"",
        "approved_permissions: \"digest-of-the-permissions\"",
        "plan_digest: \"digest-of-the-offer\"",
        r#"config_json: "{\"page\":{\"title\":\"x\"},\"replicas\":3}""#,
        "adopt: true",
        "seconds: 90",
    ] {
        assert!(calls.contains(text), "{text:?} is not in:\n{calls}");
    }
}

#[tokio::test]
async fn what_was_approved_before_is_not_asked_for_again() {
    let bench = bench(|answers| {
        answers.offer.as_mut().unwrap().new_permissions.clear();
        answers.offer.as_mut().unwrap().from_version = "0.0.9".to_owned();
    });
    let out = bench.run(&["plugin", "upgrade", "hello"]).await.expect(0);
    assert!(out.contains("plugin hello 0.1.0 instead of 0.0.9") && out.contains("2 permission(s)"), "{out}");
    let calls = bench.calls();
    assert!(calls.contains("change: Upgrade") && calls.contains("approved_permissions: \"\""), "{calls}");
    // What is new alone is asked for.
    let new = vec!["EVERY SECRET: its service accounts may get secrets in the whole cluster: x".to_owned()];
    bench.fake.answers.lock().unwrap().offer.as_mut().unwrap().new_permissions = new;
    let run = bench.run(&["plugin", "upgrade", "hello"]).await;
    assert!(run.out.contains("+ EVERY SECRET:") && run.out.contains("1 more permission(s)"), "{run:?}");
    run.fails(6, &["k8sctl plugin upgrade hello --yes"]);
}

#[tokio::test]
async fn mistakes_have_their_place_in_the_file_and_warnings_stop_nothing() {
    let bench = bench(|answers| answers.plugin_diagnostics = vec![mistake(false)]);
    let file = bench.file("hello.toml", "replicas = 1\n[page]\ntitle = 'x'\n");
    let add = ["plugin", "add", "hello", "--config", &file, "--yes"];
    let run = bench.run(&add).await;
    let place = "hello.toml:3:1: error PLUGIN-CONFIG-INVALID /page/title: x is too short";
    run.fails(3, &[place, " | title = 'x'"]);
    assert!(!bench.calls().contains("ChangePluginRequest"), "{}", bench.calls());
    bench.fake.answers.lock().unwrap().plugin_diagnostics[0].warning = true;
    let run = bench.run(&[&add[..], &["-o", "json"]].concat()).await;
    assert_eq!(run.err.matches("warning PLUGIN-CONFIG-INVALID /page/title").count(), 1, "{run:?}");
    let document: Value = serde_json::from_str(&run.expect(0)).unwrap();
    assert_eq!((&document["name"], &document["trust"]), (&"hello".into(), &"built-in".into()));
    bench.run(&["plugin", "add", "hello", "--set", "novalue", "--yes"]).await.fails(3, &["PLUGIN-CONFIG"]);
    bench.run(&["plugin", "add", "./nosuch", "--yes"]).await.fails(1, &["PLUGIN-NOT-FOUND: plugin ./nosuch"]);
}

#[tokio::test]
async fn a_change_is_followed_through_the_loss_of_the_host_agent() {
    let bench = bench(|answers| answers.change_broken_after = Some(1));
    let out = bench.run(&["plugin", "add", "hello", "--yes"]).await.expect(0);
    assert!(out.contains("went away") && out.contains("is Ready"), "{out}");
    let calls = bench.calls();
    assert_eq!(calls.matches("ChangePluginRequest").count(), 2, "{calls}");
    assert_eq!(calls.matches("PlanPluginRequest").count(), 1, "{calls}");
}

/// What went back while nobody followed it would go forward again by the same request.
#[tokio::test]
async fn a_rollback_that_ended_without_its_client_is_not_begun_again() {
    let bench = bench(|answers| {
        answers.change_broken_after = Some(1);
        answers.changed_offers = 1;
    });
    let out = bench.run(&["plugin", "rollback", "hello", "--yes"]).await.expect(0);
    assert!(out.contains("went away") && out.contains("plugin hello 0.1.0 is Ready"), "{out}");
    let calls = bench.calls();
    assert_eq!(calls.matches("PlanPluginRequest").count(), 1, "{calls}");
    assert_eq!(calls.matches("ChangePluginRequest").count(), 2, "{calls}");
}

#[tokio::test]
async fn a_removal_is_followed_through_the_loss_of_the_host_agent() {
    let bench = bench(|answers| answers.change_broken_after = Some(1));
    let out = bench.run(&["plugin", "remove", "hello"]).await.expect(0);
    assert!(out.contains("went away") && out.contains("removed plugin hello"), "{out}");
    assert_eq!(bench.calls().matches("RemovePluginRequest").count(), 2, "{}", bench.calls());
    // It ended meanwhile.
    {
        let mut answers = bench.fake.answers.lock().unwrap();
        answers.change_broken_after = Some(1);
        answers.plugins.clear();
    }
    let out = bench.run(&["plugin", "remove", "hello"]).await.expect(0);
    assert!(out.contains("k8sctl events") && out.contains("removed plugin hello"), "{out}");
    // One that was never there is no success.
    bench.run(&["plugin", "remove", "hello"]).await.fails(1, &["PLUGIN-NOT-INSTALLED"]);
}

#[tokio::test]
async fn a_plan_that_changed_is_made_again() {
    let bench = bench(|answers| answers.changed_offers = 1);
    let out = bench.run(&["plugin", "add", "hello", "--yes"]).await.expect(0);
    assert!(out.contains("the plan has changed meanwhile"), "{out}");
    assert_eq!(bench.calls().matches("PlanPluginRequest").count(), 2, "{}", bench.calls());
}

#[tokio::test]
async fn what_blocks_is_told_and_what_ends_badly_ends_so() {
    let bench = bench(|answers| {
        answers.plugins = vec![PluginStatus { state: "Failed".to_owned(), ..story::blocked_plugin() }];
    });
    let run = bench.run(&["plugin", "add", "hello", "--yes"]).await;
    let told = "waits for apps/v1 Deployment hello/hello: 0 of 2 pods are available \
                (pod hello-7d9f on k8s-worker-1: container hello: ImagePullBackOff\\x1b[2J)";
    assert!(run.out.contains(told) && run.out.contains("is Failed"), "{}", run.out);
    run.expect(1);
    let failure = Failure::new("PLUGIN-NOT-READY", "plugin hello", "not within 90 s", "look at that object");
    let bench = Bench::failing(Code::DeadlineExceeded, failure);
    let run = bench.run(&["plugin", "add", "hello", "--cluster", "home", "--yes"]).await;
    run.fails(1, &["error PLUGIN-NOT-READY: plugin hello: not within 90 s"]);
}

#[tokio::test]
async fn a_config_is_shown_and_changed_value_by_value() {
    let bench = bench(|answers| {
        answers.offer.as_mut().unwrap().new_permissions.clear();
        answers.plugin_details.config_json = "{\"replicas\":2,\"page\":{\"title\":\"a: b\"}}".to_owned();
    });
    let out = bench.run(&["plugin", "config", "hello"]).await.expect(0);
    assert!(out.contains("replicas: 2") && out.contains("title:"), "{out}");
    assert_eq!(bench.json(&["plugin", "config", "hello"]).await["page"]["title"], "a: b");
    bench.run(&["plugin", "config", "hello", "--set", "replicas=3"]).await.expect(0);
    let whole = r#"config_json: "{\"page\":{\"title\":\"a: b\"},\"replicas\":3}""#;
    assert!(
        bench.calls().contains(whole) && bench.calls().contains("change: Configure"),
        "{}",
        bench.calls()
    );
    let file = bench.file("hello.yaml", "replicas: 5\n");
    bench.run(&["plugin", "config", "hello", "--config", &file]).await.expect(0);
    assert!(bench.calls().contains(r#"config_json: "{\"replicas\":5}""#), "{}", bench.calls());
    // The config that is there, once more.
    bench.fake.calls.lock().unwrap().clear();
    let out = bench.run(&["plugin", "config", "hello", "--lift-quarantine"]).await.expect(0);
    assert!(out.contains("plugin hello 0.1.0 is Ready"), "{out}");
    let calls = bench.calls();
    let same = r#"config_json: "{\"page\":{\"title\":\"a: b\"},\"replicas\":2}""#;
    assert!(calls.contains("lift_quarantine: true") && calls.contains(same), "{calls}");
    bench.fake.answers.lock().unwrap().plugin_details.config_json.clear();
    bench.run(&["plugin", "config", "hello"]).await.fails(1, &["PLUGIN-NOT-INSTALLED"]);
}

#[tokio::test]
async fn a_secret_is_told_to_the_host_agent_alone() {
    let bench = bench(|_| {});
    let file = bench.file("secret", "kanarienvogel\n");
    let run = bench.run(&["plugin", "config", "hello", "--secret", &format!("admin.password=@{file}")]).await;
    assert!(run.out.contains("keeps the secret admin.password of plugin hello"), "{run:?}");
    assert!(!run.out.contains("kanarienvogel") && !run.err.contains("kanarienvogel"), "{run:?}");
    run.expect(0);
    let bytes: Vec<_> = b"kanarienvogel".iter().map(u8::to_string).collect();
    assert!(bench.calls().contains(&format!("value: [{}]", bytes.join(", "))), "{}", bench.calls());
    let run = bench.run(&["plugin", "config", "hello", "--secret", "admin.password=kanarienvogel"]).await;
    assert!(!run.err.contains("kanarienvogel"), "{run:?}");
    run.fails(1, &["PLUGIN-SECRET: secret admin.password"]);
    // An empty one forgets it: the second would find nothing in standard input.
    bench.fake.calls.lock().unwrap().clear();
    let run = bench.run(&["plugin", "config", "hello", "--secret", "a.b=-", "--secret", "c.d=-"]).await;
    run.fails(1, &["PLUGIN-SECRET: secret c.d", "nothing was changed"]);
    assert!(!bench.calls().contains("SetPluginSecretRequest"), "{}", bench.calls());
}

#[tokio::test]
async fn rolling_back_and_removing() {
    let bench = bench(|answers| {
        answers.offer.as_mut().unwrap().new_permissions.clear();
        answers.plugin_kept = vec!["v1 PersistentVolumeClaim hello/data".to_owned()];
    });
    bench.run(&["plugin", "rollback", "hello"]).await.expect(0);
    assert!(bench.calls().contains("change: RollBack, plugin: \"hello\""), "{}", bench.calls());
    let out = bench.run(&["plugin", "remove", "hello", "--deadline", "2m"]).await.expect(0);
    let kept = "kubectl what you do not need:\n  v1 PersistentVolumeClaim hello/data";
    assert!(out.contains("removed plugin hello") && out.contains(kept), "{out}");
    assert!(
        bench.calls().contains("purge: false, deadline: Some(Duration { seconds: 120"),
        "{}",
        bench.calls()
    );
    let removed = bench.json(&["plugin", "remove", "hello"]).await;
    assert_eq!((&removed["plugin"], &removed["cluster_name"]), (&"hello".into(), &"home".into()));
    let run = bench.run(&["plugin", "remove", "hello", "--purge"]).await;
    run.fails(6, &["will be lost", "k8sctl plugin remove hello --purge --yes"]);
    assert!(!bench.calls().contains("purge: true"), "{}", bench.calls());
    bench.run(&["plugin", "remove", "hello", "--purge", "--yes"]).await.expect(0);
    assert!(bench.calls().contains("purge: true"), "{}", bench.calls());
}

#[tokio::test]
async fn what_is_installed_and_what_could_be() {
    let bench = bench(|answers| {
        answers.plugins = vec![
            PluginStatus { newer_version: "0.2.0".to_owned(), ..story::plugin("Ready") },
            PluginStatus { name: "mine".to_owned(), trust: "dev".to_owned(), ..story::plugin("Quarantined") },
        ];
    });
    let out = bench.run(&["plugin", "list"]).await.expect(0);
    assert!(out.contains("0.2.0") && out.contains("built-in") && out.contains("dev"), "{out}");
    assert!(bench.calls().contains("available: Some(false)"), "{}", bench.calls());
    bench.run(&["plugin", "list", "--all"]).await.expect(0);
    assert!(bench.calls().contains("available: Some(true)"), "{}", bench.calls());
    bench.fake.answers.lock().unwrap().plugins.clear();
    let none = bench.run(&["plugin", "list"]).await.expect(0);
    assert!(none.contains("k8sctl plugin list --all") && none.contains("k8sctl plugin add NAME"), "{none}");
}

#[tokio::test]
async fn status_says_what_blocks_and_watching_goes_on() {
    let bench = bench(|answers| {
        answers.plugins =
            vec![story::blocked_plugin(), PluginStatus { name: "x".to_owned(), ..story::plugin("Ready") }];
    });
    let out = bench.run(&["plugin", "status"]).await.expect(0);
    for text in [
        "BLOCKED BY",
        "apps/v1 Deployment hello/hello",
        "hello: waits for apps/v1 Deployment hello/hello: 0 of 2 pods are available (pod hello-7d9f on k8s-worker-1: \
         container hello: ImagePullBackOff\\x1b[2J), for 1m1",
        "hello: changed by others, and left so: v1 Service hello/hello",
    ] {
        assert!(out.contains(text), "{text:?} is not in:\n{out}");
    }
    let one = bench.json(&["plugin", "status", "x"]).await;
    assert_eq!((one.as_array().unwrap().len(), &one[0]["name"]), (1, &"x".into()));
    let blocked = bench.json(&["plugin", "status", "hello"]).await;
    assert!(blocked[0]["blocking"]["pod"].as_str().unwrap().contains("ImagePullBackOff"), "{blocked}");
    bench
        .run(&["plugin", "status", "nosuch"])
        .await
        .fails(1, &["PLUGIN-NOT-INSTALLED", "k8sctl plugin list"]);
    bench.fake.answers.lock().unwrap().away = 2;
    let run = timeout(DEADLINE, bench.run(&["plugin", "status", "-w", "-o", "json"])).await.unwrap();
    assert!(run.err.contains("went away"), "{run:?}");
    let watched: Vec<Value> = run.expect(0).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(watched[0][0]["state"], "Installing");
    // One that is waited for.
    let run = timeout(DEADLINE, bench.run(&["plugin", "status", "later", "-w"])).await.unwrap();
    assert!(run.out.contains("plugin later is not installed"), "{run:?}");
    // The cluster's status has the same.
    let mut status = story::status();
    status.plugins = vec![story::blocked_plugin()];
    bench.fake.answers.lock().unwrap().status = vec![status];
    let out = bench.run(&["status"]).await.expect(0);
    assert!(out.contains("BLOCKED BY") && out.contains("hello: waits for"), "{out}");
}

#[tokio::test]
async fn show_has_all_of_it() {
    let bench = bench(|answers| {
        answers.plugin_details = ShowPluginResponse {
            status: Some(story::plugin("Ready")),
            manifest_toml: "format = 1\n".to_owned(),
            config_schema_json: "{\"type\":\"object\"}".to_owned(),
            config_json: "{\"replicas\":2}".to_owned(),
            permissions: story::offer().permissions,
            objects: story::offer().objects,
            outputs: [("url".to_owned(), "http://hello".to_owned())].into(),
            revisions: vec![PluginRevision {
                revision: 1,
                version: "0.1.0".to_owned(),
                created: story::ago(100),
                applied: story::ago(90),
                current: true,
            }],
            package_sha256: "ab".repeat(32),
            package_path: "/var/lib/k8s-myhome/plugins/store/x".to_owned(),
        };
    });
    let out = bench.run(&["plugin", "show", "hello"]).await.expect(0);
    for text in [
        "the web servers",
        "replicas: 2",
        "url = http://hello",
        "apps/v1 Deployment hello/hello",
        "current",
        "/var/lib/k8s-myhome/plugins/store/x",
    ] {
        assert!(out.contains(text), "{text:?} is not in:\n{out}");
    }
    let details = bench.json(&["plugin", "show", "hello"]).await;
    assert_eq!(
        (&details["config"]["replicas"], &details["config_schema"]["type"]),
        (&2.into(), &"object".into())
    );
    assert_eq!(details["revisions"][0]["current"], true);
}

#[tokio::test]
async fn differences_are_shown_and_nothing_is_changed() {
    let bench = bench(|answers| {
        answers.plugin_details.config_json = "{\"replicas\":2}".to_owned();
        let diff = |action: Action, object: &str, text: &str| ObjectDiff {
            action: action.into(),
            object: object.to_owned(),
            text: text.to_owned(),
        };
        answers.plugin_diffs = vec![
            diff(Action::Update, "apps/v1 Deployment hello/hello", "@@\n-  replicas: 2\n+  replicas: 3\n"),
            diff(Action::Unspecified, "v1 Service hello/hello", ""),
        ];
    });
    let out = bench.run(&["plugin", "diff", "hello", "--set", "replicas=3"]).await.expect(0);
    assert!(out.contains("update apps/v1 Deployment hello/hello\n  @@\n  -  replicas: 2\n"), "{out}");
    assert!(out.contains("keep v1 Service hello/hello"), "{out}");
    let calls = bench.calls();
    assert!(calls.contains("diff: true") && !calls.contains("ChangePluginRequest"), "{calls}");
    let document = bench.json(&["plugin", "diff", "hello"]).await;
    assert_eq!(document["diffs"][1]["action"], "keep");
    bench.fake.answers.lock().unwrap().plugin_diffs.remove(0);
    assert!(bench.run(&["plugin", "diff", "hello"]).await.expect(0).contains("no differences"));
}

#[tokio::test]
async fn logs_are_of_the_program_or_of_its_pods() {
    let run = |purpose: &str, ago: i64, outcome: &str, stderr: &str| PluginRun {
        time: story::ago(ago),
        purpose: purpose.to_owned(),
        took: Some(prost_types::Duration { seconds: 0, nanos: 21_000_000 }),
        outcome: outcome.to_owned(),
        stderr: stderr.to_owned(),
    };
    let bench = bench(|answers| {
        // The newest first, as it may come.
        answers.plugin_logs.runs =
            vec![run("assess", 1, "ok", ""), run("plan", 60, "crashed", "panicked\x1b[2J\n")];
    });
    let out = bench.run(&["plugin", "logs", "hello"]).await.expect(0);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].ends_with("plan: crashed after 21 ms") && lines[1] == "  panicked\\x1b[2J", "{out}");
    assert!(lines[2].ends_with("assess: ok after 21 ms"), "{out}");
    let last = bench.run(&["plugin", "logs", "hello", "--tail", "1", "-o", "json"]).await.expect(0);
    assert_eq!(serde_json::from_str::<Value>(&last).unwrap()["purpose"], "assess");
    // For that the cluster need not answer.
    assert!(!bench.calls().contains("pods: true"), "{}", bench.calls());
    bench.run(&["plugin", "logs", "hello", "--pods"]).await.fails(1, &["NODE-POD-UNKNOWN"]);
    assert!(bench.calls().contains("pods: true"), "{}", bench.calls());
    bench.fake.answers.lock().unwrap().plugin_logs.pods = vec![PodLogs {
        namespace: "hello".to_owned(),
        name: "hello-7d9f".to_owned(),
        container: String::new(),
    }];
    let out = bench.run(&["plugin", "logs", "hello", "--pods", "--tail", "5"]).await.expect(0);
    assert!(out.contains("kubelet    started"), "{out}");
    assert!(
        bench.calls().contains("pods: [PodLogs { namespace: \"hello\", name: \"hello-7d9f\""),
        "{}",
        bench.calls()
    );
}

#[tokio::test]
async fn manifests_are_vendored_and_packages_verified() {
    let manifest = |present: bool| VendoredManifest {
        url: "https://example.org/x.yaml".to_owned(),
        sha256: "ab".repeat(32),
        present,
        problem: if present { String::new() } else { "404".to_owned() },
    };
    let bench = bench(|answers| {
        answers.clusters.clear();
        answers.vendored = vec![manifest(true)];
        answers.verified = vec![VerifiedPlugin {
            name: "hello".to_owned(),
            version: "0.1.0".to_owned(),
            sha256: "cd".repeat(32),
            trust: "built-in".to_owned(),
            problem: None,
            found: "plugin-path".to_owned(),
            path: "/usr/lib/k8s-myhome/plugins/hello".to_owned(),
        }];
    });
    // Also where there is no cluster yet.
    let from = bench.dir.path().display().to_string();
    let out = bench.run(&["plugin", "vendor", "metallb", "--from", &from]).await.expect(0);
    assert!(out.contains("https://example.org/x.yaml") && out.contains("fetching 1 of 2"), "{out}");
    assert!(
        bench.calls().contains("VendorPluginRequest { plugin: \"metallb\", from: \"/"),
        "{}",
        bench.calls()
    );
    bench.fake.answers.lock().unwrap().vendored = vec![manifest(false)];
    bench.run(&["plugin", "vendor"]).await.expect(1);

    let cluster = bench.path("cluster.toml").display().to_string();
    let none = bench.run(&["plugin", "verify", "-f", &cluster]).await;
    none.fails(3, &["PLUGIN-LOCK", "k8sctl.lock: there is none"]);
    std::fs::write(bench.path("k8sctl.lock"), "format = 1\n").unwrap();
    let out = bench.run(&["plugin", "verify", "-f", &cluster]).await.expect(0);
    assert!(out.contains("hello") && out.contains("yes"), "{out}");
    assert!(bench.calls().contains("lock_text: \"format = 1\\n\""), "{}", bench.calls());
    assert!(out.contains("/usr/lib/k8s-myhome/plugins/hello"), "{out}");
    // Without a name: also what only the host's store has.
    {
        let mut answers = bench.fake.answers.lock().unwrap();
        let place = "/var/lib/k8s-myhome/plugins/store/".to_owned() + &"ef".repeat(32);
        let (name, sha256) = ("left".to_owned(), "ef".repeat(32));
        let stored = VerifiedPlugin {
            name,
            sha256,
            found: "store".to_owned(),
            path: place,
            ..answers.verified[0].clone()
        };
        answers.verified.push(stored);
    }
    let out = bench.run(&["plugin", "verify"]).await.expect(0);
    let left = out.lines().find(|line| line.starts_with("left")).unwrap();
    assert!(left.contains("yes") && left.contains("the host's store"), "{out}");
    assert!(
        bench.calls().contains("VerifyPluginsRequest { plugin: \"\", lock_text: \"\" }"),
        "{}",
        bench.calls()
    );
    let document = bench.json(&["plugin", "verify"]).await;
    assert_eq!((&document[0]["found"], &document[1]["found"]), (&"plugin-path".into(), &"store".into()));
    assert!(document[1]["path"].as_str().unwrap().ends_with(&"ef".repeat(32)), "{document}");
    bench.fake.answers.lock().unwrap().verified[0].problem =
        Some(k8sctl_proto::control::v1::Failure { id: "PLUGIN-DIGEST".to_owned(), ..story::failure() });
    let out = bench.run(&["plugin", "verify", "hello"]).await.expect(1);
    assert!(out.contains("warning PLUGIN-DIGEST"), "{out}");
    bench.run(&["plugin", "verify", "-f", "-"]).await.fails(3, &["PLUGIN-LOCK"]);
}
