//! The program `hello` without a host agent.

#![expect(
    clippy::disallowed_methods,
    reason = "a test looks at the exit status and the output of the program itself"
)]

use std::process::{Command, Stdio};

#[test]
fn it_says_what_it_is_and_ends_with_usage() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_hello")).stdin(Stdio::null()).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("k8sctl plugin add hello"), "{said}");
}
