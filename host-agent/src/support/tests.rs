use std::collections::BTreeMap;

use host_hypervisor::documents::Document;

use super::*;
use crate::cluster::fake::{FakeHostAgent, SPEC};
use crate::cluster::node_requirements::tests::flannel;

const CANARY: &str = "kanarienvogel0123456789";

async fn parts(manager: &Arc<Manager>) -> BTreeMap<String, SupportPart> {
    let (sender, mut receiver) = mpsc::channel(4);
    let collect = collect(Arc::clone(manager), String::new(), None, sender);
    let read = async {
        let mut parts = BTreeMap::new();
        while let Some(response) = receiver.recv().await {
            let part = response.expect("a part").part.expect("a part");
            parts.insert(part.path.clone(), part);
        }
        parts
    };
    let (ended, parts) = tokio::join!(collect, read);
    ended.expect("to its end");
    parts
}

#[tokio::test]
async fn all_that_there_is_comes_without_secrets_and_the_rest_is_named() {
    let agent = FakeHostAgent::new().await;
    let mut generation = agent.generation(SPEC).await;
    generation.spec.plugins = vec![k8sctl_types::spec::PluginSpec {
        name: "hello".to_owned(),
        config: serde_json::json!({ "motd": CANARY, "replicas": 2 }),
        source: None,
    }];
    generation.plugins = vec![flannel()];
    let begun = agent.begin(generation).await;
    let failure = Failure::new("NODE-SILENT", "node worker", "silent", "look")
        .with_evidence(format!("token: {CANARY}"));
    agent.shared.records.finish_operation(&begun.id, Some(&failure)).await.expect("writes");
    let xml = format!("<domain password='{CANARY}'/>");
    agent.hypervisor.host().documents = vec![Document { kind: "domain", name: "worker".to_owned(), xml }];
    let manager = agent.start().await;
    let parts = parts(&manager).await;

    for (path, part) in &parts {
        assert!(!part.content.contains(CANARY), "{path}: {}", part.content);
        assert!(!format!("{:?}", part.failure).contains(CANARY), "{path}");
    }
    let content =
        |path: &str| parts.get(path).unwrap_or_else(|| panic!("{path}: {:?}", parts.keys())).content.as_str();
    let spec: serde_json::Value = serde_json::from_str(content("clusters/home/spec.json")).expect("JSON");
    assert_eq!(spec["spec"]["plugins"][0]["config"]["replicas"], 2);
    let plugins: serde_json::Value =
        serde_json::from_str(content("clusters/home/plugins.json")).expect("JSON");
    assert_eq!(
        (&plugins["agreed"][0]["name"], &plugins["plugins"]),
        (&serde_json::json!("flannel"), &serde_json::json!([]))
    );
    let operations: serde_json::Value = serde_json::from_str(content("host/operations.json")).expect("JSON");
    assert_eq!(operations[0]["failure"]["id"], "NODE-SILENT");
    assert!(content("libvirt/domain-worker.xml").starts_with("<domain "));
    assert!(content("host/config.json").contains("state_dir"));
    assert!(content("clusters/home/consoles.txt").contains("== worker"));
    // Nobody listens there.
    let kubernetes = parts.iter().filter(|(path, _)| path.starts_with("clusters/home/kubernetes"));
    assert!(kubernetes.clone().count() > 0);
    for (path, part) in kubernetes {
        assert!(part.failure.is_some(), "{path}");
    }
}

#[tokio::test]
async fn a_libvirt_that_is_away_is_one_part_that_is_missing() {
    let agent = FakeHostAgent::new().await;
    let begun = agent.begin(agent.generation(SPEC).await).await;
    agent.shared.records.finish_operation(&begun.id, None).await.expect("writes");
    agent.hypervisor.host().unreachable = true;
    let manager = agent.start().await;
    let parts = parts(&manager).await;
    assert_eq!(parts["libvirt"].failure.as_ref().map(|it| it.id.as_str()), Some("LIBVIRT-UNREACHABLE"));
    assert!(parts["clusters/home/spec.json"].failure.is_none());
}
