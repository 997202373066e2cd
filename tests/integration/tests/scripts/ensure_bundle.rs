//! `ensure-bundle`, which decides where a Kubernetes comes from, and gives a host its kubectl.

use anyhow::{Result, ensure};

use super::stage::{NOTE, Stage, in_namespace, said};

/// Answers from files, and notes each call.
const K8SCTL: &str = r#"#!/bin/bash
echo "k8sctl $*" >>"$STUBS/calls"
case $* in
  "bundle list -o json") cat "$STUBS/list" ;;
  "bundle fetch -o json") cat "$STUBS/fetch"; echo "told to people" >&2; exit "$(<"$STUBS/fetch-status")" ;;
esac
"#;

const BUNDLE: &str = r#"[{"problem": null, "name": "a", "path": "/b/a.k8sbundle"}]"#;
const BROKEN: &str = r#"[{"path": "/b/a.k8sbundle", "name": "", "problem": {"id": "BUNDLE-CORRUPT"}}]"#;
const UNREACHABLE: &str = r#"{"error":{"object":"bundle v1","id":"BUNDLE-UNREACHABLE"}}"#;
const UPSTREAM: &str =
    r#"{"error":{"id":"BUNDLE-UPSTREAM","reason":"error BUNDLE-UNREACHABLE: not really"}}"#;
const FETCH: &str = "k8sctl bundle fetch -o json";
const LIST: &str = "k8sctl bundle list -o json";

/// What `ensure-bundle` did.
struct Ensured {
    success: bool,
    said: String,
    calls: Vec<String>,
}

/// `ensure-bundle` with this list of bundles, this answer to a fetch, and this cluster file.
fn ensure_bundle(list: &str, fetch: (&str, i32), spec: &str) -> Result<Ensured> {
    let stage = Stage::new(&["ensure-bundle"])?;
    for name in ["deps", "build-kubernetes", "build-bundle"] {
        stage.program(&format!("tests/lab/{name}"), NOTE)?;
    }
    // The host has a kubectl of its own, so none is installed.
    stage.stubs(&[("k8sctl", K8SCTL), ("kubectl", NOTE)])?;
    let status = fetch.1.to_string();
    for (name, text) in
        [("list", list), ("fetch", fetch.0), ("fetch-status", status.as_str()), ("cluster.toml", spec)]
    {
        stage.file(name, text)?;
    }
    let mut command = stage.command("ensure-bundle")?;
    for proxy in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    let output = command.env("K8S_MYHOME_CACHE", "/cache").arg(stage.at("cluster.toml")).output()?;
    Ok(Ensured { success: output.status.success(), said: said(&output), calls: stage.calls() })
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

#[test]
fn half_a_kubectl_is_never_taken_for_the_users_own() -> Result<()> {
    in_namespace(
        "ensure_bundle::half_a_kubectl_is_never_taken_for_the_users_own",
        include_str!("give_kubectl.sh"),
    )
}
