use super::*;
use crate::dashboard::fake::{at, model, now, operation, status, troubled};
use crate::dashboard::model::{Feed, News};
use crate::view::BlockingView;

fn picture(news: impl IntoIterator<Item = News>) -> Picture {
    Picture::of(&model(news), now())
}

fn said(tone: Tone, text: &str) -> Said {
    Said { tone, text: text.to_owned() }
}

#[test]
fn nothing_is_claimed_of_what_is_not_known() {
    let empty = picture([]);
    assert_eq!(empty.verdict, said(Tone::Warn, "nothing is known yet"));
    assert!(empty.nodes.is_empty() && empty.old.is_none() && empty.kubernetes.is_empty());
    let away = picture([News::Lost(Feed::Status, "the host agent does not answer".to_owned())]);
    let old = "the host agent does not answer, for 0s: nothing is known yet";
    assert_eq!(away.old.as_deref(), Some(old));
}

#[test]
fn a_cluster_that_is_well_says_so_in_one_line() {
    let well = picture([News::Status(status())]);
    assert_eq!(well.verdict, said(Tone::Good, "well: 2 of 2 nodes Ready"));
    assert!(well.old.is_none() && well.operation.is_none() && well.failure.is_none());
    let node = &well.nodes[1];
    assert_eq!((node.tone, node.age.as_str(), node.agent.text.as_str()), (Tone::Good, "1h06m", "connected"));
    let conditions: Vec<_> = well.conditions.iter().map(|one| (one.condition.as_str(), one.tone)).collect();
    assert_eq!(conditions, [("Ready", Tone::Good), ("KubernetesAPI", Tone::Good)]);
    assert_eq!(well.plugins[0].state, said(Tone::Good, "Ready"));
    assert_eq!((well.place_of("worker-1"), well.place_of("strange")), (1, 0));
}

#[test]
fn dead_nodes_and_an_api_that_is_down_are_told() {
    let status = ClusterView { operation_id: None, ..troubled() };
    let ill = picture([News::Status(status), News::Operation(operation("failed"))]);
    assert_eq!(ill.verdict, said(Tone::Bad, "not well, 3 problems: 1 of 2 nodes Ready"));
    let dead = &ill.nodes[1];
    assert_eq!((dead.tone, &dead.vm), (Tone::Bad, &said(Tone::Bad, "crashed")));
    assert_eq!(dead.agent, said(Tone::Bad, "seen 1m12s ago"));
    assert_eq!(dead.untrue, ["AgentReady"], "what is unknown for want of a session is not told again");
    assert_eq!(dead.message, "its agent has no session\\x1b[2J");
    let wrong = ill.conditions.iter().map(|one| (one.node.as_str(), one.condition.as_str(), one.tone));
    let expected = [
        ("worker-1", "AgentReady", Tone::Bad),
        ("", "Ready", Tone::Bad),
        ("", "KubernetesAPI", Tone::Warn),
        ("", "HostOK", Tone::Good),
    ];
    assert_eq!(wrong.collect::<Vec<_>>(), expected);
    let failure = ill.failure.expect("it failed");
    assert_eq!(failure.what, "NODE-SILENT: node worker-1: its agent has not called home");
    assert_eq!(failure.evidence, ["Kernel panic\\x1b[31m <b>", "end of console"]);
    assert_eq!(ill.operation.expect("it is kept").title, said(Tone::Bad, "up failed 12s ago"));
}

#[test]
fn an_operation_is_told_object_by_object() {
    let busy = picture([News::Status(troubled()), News::Operation(operation("running"))]);
    assert_eq!(busy.verdict, said(Tone::Warn, "not well yet: 1 of 2 nodes Ready"));
    let operation = busy.operation.expect("it runs");
    assert_eq!(operation.title, said(Tone::Warn, "up is running, for 4m12s"));
    let [network, worker] = &operation.objects[..] else { panic!("{operation:?}") };
    assert_eq!((network.tone, network.age.as_str()), (Tone::Good, ""));
    assert_eq!((worker.tone, worker.age.as_str(), worker.message.as_str()), (Tone::Warn, "30s", "kubeadm"));
    assert_eq!(worker.steps, [said(Tone::Good, "containerd"), said(Tone::Warn, "kubeadm")]);
}

#[test]
fn what_is_old_is_marked_and_not_called_well() {
    let mut model = model([]);
    model.apply(News::Status(status()), at(20));
    model.apply(News::Lost(Feed::Status, "it went\x1b away".to_owned()), at(15));
    let old = Picture::of(&model, now());
    assert_eq!(old.verdict, said(Tone::Warn, "was well: 2 of 2 nodes Ready"));
    assert_eq!(old.old.as_deref(), Some("it went\\x1b away, for 15s: this is how it was 20s ago"));
    assert_eq!(old.nodes.len(), 2);
    model.apply(News::Status(status()), now());
    assert_eq!(Picture::of(&model, now()).verdict.tone, Tone::Good);
}

#[test]
fn ages_do_not_run_backwards_and_damaged_times_have_none() {
    let mut status = status();
    status.nodes[0].powered_on = Some(at(-50).to_string());
    status.nodes[1].powered_on = Some("yesterday".to_owned());
    let picture = picture([News::Status(status)]);
    assert_eq!((picture.nodes[0].age.as_str(), picture.nodes[1].age.as_str()), ("0s", ""));
}

#[test]
fn what_blocks_a_plugin_is_told_instead_of_its_state() {
    let mut status = status();
    let plugin = &mut status.plugins[0];
    plugin.state = "Installing".to_owned();
    plugin.blocking = Some(BlockingView {
        object: "apps/v1 Deployment hello/hello".to_owned(),
        reason: "0 of 2 pods are available".to_owned(),
        pod: Some("pod hello-1 on worker-1: container hello: ImagePullBackOff\x1b[2J".to_owned()),
        since: None,
    });
    let blocked = picture([News::Status(status.clone())]);
    assert_eq!(blocked.plugins[0].state, said(Tone::Warn, "Installing"));
    let message = "apps/v1 Deployment hello/hello: 0 of 2 pods are available \
                   (pod hello-1 on worker-1: container hello: ImagePullBackOff\\x1b[2J)";
    assert_eq!(blocked.plugins[0].message, message);
    for (state, tone) in [("Quarantined", Tone::Bad), ("Pending", Tone::Warn), ("Available", Tone::Plain)] {
        status.plugins[0].state = state.to_owned();
        assert_eq!(picture([News::Status(status.clone())]).plugins[0].state, said(tone, state));
    }
}
