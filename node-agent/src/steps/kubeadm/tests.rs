//! kubeadm run by a fake of it, and the waits around it.

use std::os::unix::fs::PermissionsExt as _;

use k8sctl_proto::node::v1::StepState;

use super::*;
use crate::status::Board;

#[tokio::test]
async fn what_is_beside_the_work_neither_ends_nor_outlasts_it() {
    let (told, mut heard) = mpsc::channel::<&str>(2);
    let at_once = async { told.send("beside").await.expect("heard") };
    let work = async { heard.recv().await };
    assert_eq!(with(work, at_once).await, Some("beside"));
    let work = async { 1 };
    assert_eq!(with(work, std::future::pending()).await, 1);
}

#[tokio::test]
async fn what_kubeadm_wrote_is_synced_however_it_ended() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let step = Kubeadm::new(Root::new(dir.path()), Claims::default());
    let progress = Progress::new(Board::default(), "kubeadm");
    for status in ["0", "2"] {
        step.synced.store(false, Ordering::Relaxed);
        let script = format!("exit {status}");
        assert_eq!(step.kubeadm(&["sh", "-c", &script], &progress).await.is_ok(), status == "0");
        assert!(step.synced.load(Ordering::Relaxed));
    }
    // Nothing can be synced where a file is in the place of a directory, so that it is not done.
    std::fs::create_dir_all(dir.path().join("etc")).expect("made");
    std::fs::write(dir.path().join("etc/kubernetes"), "").expect("written");
    let error = step.kubeadm(&["true"], &progress).await.expect_err("not synced");
    assert!(matches!(error, StepError::Write { .. }) && !step.synced.load(Ordering::Relaxed), "{error}");
}

/// Runs what hangs after its first words, as kubeadm would be, and perhaps waits behind it.
struct Hanging {
    deadline: Duration,
    script: &'static str,
    waits: bool,
}

#[async_trait]
impl Step for Hanging {
    fn name(&self) -> &'static str {
        "kubeadm"
    }

    fn unit(&self) -> Option<&'static str> {
        None
    }

    fn members_only(&self) -> bool {
        false
    }

    async fn check(&self, _: &DesiredState) -> Result<Check, StepError> {
        Ok(Check::False("not yet".to_owned()))
    }

    async fn apply(&self, _: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        run_kubeadm(&["sh", "-c", self.script], self.deadline, progress).await?;
        if self.waits {
            let last = "refused".to_owned();
            return Err(StepError::Waited { what: "the API answers", waited: Duration::ZERO, last });
        }
        Ok(())
    }
}

/// What the host is told of it.
async fn told(step: Hanging, step_deadline: Duration) -> k8sctl_proto::node::v1::StepStatus {
    let board = Board::default();
    let desired = DesiredState {
        step_deadline: prost_types::Duration::try_from(step_deadline).ok(),
        ..DesiredState::default()
    };
    let (_sender, receiver) = tokio::sync::watch::channel(Some(desired));
    let journal = std::sync::Arc::new(crate::converge::simulated::NoJournal);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let converge =
        crate::converge::Converge::new(vec![Box::new(step)], receiver, board.clone(), journal, shutdown);
    let _converging = k8sctl_rpc::task::spawn("converge", converge.run());
    let mut report = board.subscribe();
    let failed =
        report.wait_for(|report| report.steps.first().is_some_and(|step| step.state() == StepState::Failed));
    let report = tokio::time::timeout(Duration::from_secs(60), failed).await.expect("in time");
    report.expect("the board lives").steps[0].clone()
}

#[tokio::test]
async fn a_kubeadm_that_hangs_leaves_what_it_said_whichever_deadline_comes_first() {
    let long = Duration::from_secs(600);
    let short = Duration::from_secs(3);
    let script = "echo '[wait-control-plane] Waiting'; echo it hangs >&2; exec sleep 1000";
    for (deadline, step_deadline, says) in [(short, long, "still ran after"), (long, short, "not done after")]
    {
        let step = told(Hanging { deadline, script, waits: false }, step_deadline).await;
        let evidence = step.evidence.expect("evidence");
        assert_eq!(evidence.argv, ["sh", "-c", script]);
        assert_eq!(evidence.exit_status, None);
        assert!(evidence.output_tail.contains("Waiting\n"), "{}", evidence.output_tail);
        assert!(evidence.output_tail.contains("it hangs\n"), "{}", evidence.output_tail);
        assert!(step.message.contains(says), "{}", step.message);
    }
}

#[tokio::test]
async fn a_wait_after_kubeadm_keeps_what_kubeadm_said() {
    let script = "echo '[kubelet-start] Starting'";
    let long = Duration::from_secs(600);
    let step = told(Hanging { deadline: long, script, waits: true }, long).await;
    let evidence = step.evidence.expect("evidence");
    assert_eq!(
        (evidence.exit_status, evidence.output_tail.as_str()),
        (Some(0), "[kubelet-start] Starting\n")
    );
    assert!(step.message.contains("the API answers not after"), "{}", step.message);
}

#[tokio::test]
async fn what_a_killed_agent_left_is_removed_at_the_next_try_and_when_it_is_done() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let step = Kubeadm::new(Root::new(dir.path()), Claims::default());
    let progress = Progress::new(Board::default(), "kubeadm");
    let half = "/run/k8s-myhome/.discovery.conf.new";
    for done in [false, true] {
        for path in [CONFIG, DISCOVERY, BOOTSTRAP_CONF, half] {
            step.root.write(path, b"secret", 0o600).expect("written");
        }
        if done {
            step.settle(&DesiredState::default()).await.expect("settled");
        } else {
            // Whatever becomes of that try: nobody says what to join.
            step.apply(&DesiredState::default(), &progress).await.expect_err("no role");
        }
        for path in [CONFIG, DISCOVERY, BOOTSTRAP_CONF, half] {
            assert!(!step.root.exists(path), "{path}");
        }
    }
}

/// A worker as kubeadm has set it up, of a cluster whose API is away.
fn worker() -> (tempfile::TempDir, Kubeadm, DesiredState) {
    let (dir, step, desired) = half_a_worker();
    step.keep(&desired).expect("kept");
    (dir, step, desired)
}

/// The same where kubeadm was ended in between.
fn half_a_worker() -> (tempfile::TempDir, Kubeadm, DesiredState) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let step = Kubeadm::new(Root::new(dir.path()), Claims::default());
    let (certificate, key) = crate::certificate::example(3600);
    let credentials = k8sctl_proto::node::v1::ManagedFile {
        path: KUBELET_CONF.to_owned(),
        content: crate::kubeconfig::example(&certificate, &key),
        mode: 0o600,
    };
    let desired = DesiredState {
        role: NodeRole::Worker.into(),
        kubernetes_version: "v1.33.1".to_owned(),
        // Kept for nobody, so that it is refused at once.
        control_plane_endpoint: "127.0.0.1:1".to_owned(),
        files: vec![credentials],
        ..DesiredState::default()
    };
    observe::write_kubelet_config(&step.root);
    (dir, step, desired)
}

#[tokio::test]
async fn a_member_leaves_the_wait_for_the_api_to_the_next_look() {
    let (_dir, step, desired) = worker();
    let progress = Progress::new(Board::default(), "kubeadm");
    let applied = tokio::time::timeout(Duration::from_secs(60), step.apply(&desired, &progress));
    applied.await.expect("it does not wait for the API").expect("nothing to do");
    assert!(step.only_awaits_api(&step.next(&desired).await.expect("decided")));
    let other = Next::Wait { doing: "waiting for the kubelet to register the node", last: String::new() };
    assert!(!step.only_awaits_api(&other));
}

#[tokio::test]
async fn who_is_no_member_yet_waits_for_the_api_itself() {
    let (_dir, step, desired) = half_a_worker();
    let progress = Progress::new(Board::default(), "kubeadm");
    for is_configured in [true, false] {
        if !is_configured {
            step.root.remove(observe::KUBELET_CONFIG).expect("removed");
        }
        let next = step.next(&desired).await.expect("decided");
        assert!(next.awaits_api() && !step.only_awaits_api(&next), "{next:?}");
        let applied = tokio::time::timeout(ASK_AGAIN * 2, step.apply(&desired, &progress));
        applied.await.expect_err("it waits");
    }
}

#[tokio::test]
async fn what_was_changed_comes_back_at_once_though_the_api_is_away() {
    let (_dir, step, desired) = worker();
    let before = step.root.read(observe::KUBELET_CONFIG).expect("read");
    step.root.remove(observe::KUBELET_CONFIG).expect("removed");
    let progress = Progress::new(Board::default(), "kubeadm");
    let applied = tokio::time::timeout(Duration::from_secs(60), step.apply(&desired, &progress));
    applied.await.expect("it does not wait for the API").expect("restored");
    assert_eq!(step.root.read(observe::KUBELET_CONFIG).expect("read"), before);
    let next = step.next(&desired).await.expect("decided");
    assert!(matches!(next, Next::Wait { .. }), "{next:?}");
}

#[tokio::test]
async fn a_kubelet_is_restarted_though_the_agent_is_ended_behind_the_files() {
    let (_dir, step, desired) = worker();
    let progress = Progress::new(Board::default(), "kubeadm");
    let noted = || step.root.exists(READ_OTHERS);
    let what = || step.what_to_restore(&desired).expect("compared");
    assert_eq!(what(), None);

    // Ended there: all files are as they were, and only the note tells that the kubelet is still to be restarted.
    step.root.write(READ_OTHERS, b"", 0o600).expect("written");
    let none = what().expect("a restart");
    assert!(none.is_empty());
    step.restore(&none, &progress).expect("nothing to do");
    step.restart_with_files(&progress).await.expect("restarted");
    assert_eq!((what(), noted()), (None, false));

    // It is there before any file is: here the file cannot be written.
    let path = step.root.path(observe::KUBELET_FLAGS);
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir_all(path.join("in the way")).expect("made");
    let drifted = what().expect("drifted");
    step.restore(&drifted, &progress).expect_err("a directory is in the way");
    assert!(noted());
    std::fs::remove_dir_all(&path).expect("removed");
    step.restore(&what().expect("drifted"), &progress).expect("restored");
    assert!(noted());
    step.restart_with_files(&progress).await.expect("restarted");
    assert_eq!(what(), None);

    // What the kubelet does not read again is no reason.
    let content = step.root.read(observe::KUBELET_FLAGS).expect("read").expect("there");
    step.root.write(observe::KUBELET_FLAGS, &content, 0o640).expect("written");
    assert!(!what().expect("drifted").is_kubelets());
}

#[tokio::test]
async fn a_kubeadm_that_fails_leaves_its_command_status_and_last_lines() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fake = dir.path().join("kubeadm");
    let script = "#!/bin/sh\necho '[init] Using Kubernetes version: v1.29.0'\n\
                  echo '[preflight] Running pre-flight checks'\n\
                  echo 'error execution phase preflight: [ERROR Swap]: running with swap on' >&2\nexit 2\n";
    std::fs::write(&fake, script).expect("written");
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let board = Board::default();
    board.observe(1, &["kubeadm"], false);
    let progress = Progress::new(board.clone(), "kubeadm");
    let argv = [fake.to_str().expect("text"), "init", "--config", CONFIG];
    let error = run_kubeadm(&argv, KUBEADM, &progress).await.expect_err("it fails");
    let evidence = error.evidence();
    assert_eq!(evidence.argv[1..], ["init", "--config", CONFIG]);
    assert_eq!(evidence.exit_status, Some(2));
    assert!(evidence.output_tail.contains("[preflight] Running"), "{}", evidence.output_tail);
    assert!(evidence.output_tail.contains("[ERROR Swap]: running with swap on"), "{}", evidence.output_tail);
    let text = k8sctl_rpc::chain(&error).to_string();
    assert!(text.contains("exit status 2") && text.contains("[ERROR Swap]"), "{text}");
    let status = board.step_status("kubeadm");
    assert_eq!(
        (status.state(), status.message.as_str()),
        (StepState::Pending, "[preflight] Running pre-flight checks")
    );
}
