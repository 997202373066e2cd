//! A host agent that only tells a story, for looking at `k8sctl` by hand:
//! `fake_host_agent SOCKET [up|failed|trouble|dead-node]`, then `k8sctl --socket SOCKET up -f examples/home.toml`.

#[path = "../tests/fake/mod.rs"]
mod fake;

use std::path::Path;
use std::time::Duration;

use fake::{Answers, FakeHostAgent, scenes, story};

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let socket = args.next().unwrap_or_else(|| "fake.sock".to_owned());
    let calm = Answers { pace: Some(Duration::from_secs(2)), endless: true, ..story::answers() };
    let answers = match args.next().as_deref() {
        Some("failed") => Answers { operation: story::operation_failed(), ..calm },
        Some("trouble") => Answers {
            plan: k8sctl_proto::control::v1::Plan {
                kubernetes_version: "v1.20.2".to_owned(),
                notices: vec![
                    "trial bundle, Kubernetes v1.20.2: for trying things out, not for use".to_owned(),
                ],
                ..story::destructive_plan()
            },
            status: vec![story::troubled_status()],
            checks: vec![story::failed_check()],
            ..calm
        },
        Some("dead-node") => scenes::dead_node(),
        _ => calm,
    };
    FakeHostAgent::new(answers).serve(Path::new(&socket)).await;
}
