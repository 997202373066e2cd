//! A network namespace of its own for a test, where it may make links and addresses. Tests only.

use std::time::Duration;

use k8sctl_command::Program;

/// Tells the test that it is in a network namespace of its own.
const INSIDE: &str = "K8SCTL_TEST_IN_NAMESPACE";

/// Runs that test once more, in a network namespace of its own. False means: this is that run.
pub(super) async fn has_run_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let this = std::env::current_exe().expect("a test has a program");
    let unshare = ["--user", "--map-root-user", "--net"];
    let test = ["--exact", test, "--nocapture"];
    let run = Program::new("unshare", Duration::from_secs(60)).args(unshare).arg(this).args(test);
    let told = run.env(INSIDE, "1").run().await;
    let told = told.unwrap_or_else(|error| panic!("{error}: {:?}", error.evidence()));
    assert!(told.contains("1 passed"), "{told}");
    true
}
