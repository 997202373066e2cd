//! The programs `hello` and `hello-next` without a host agent.

#![expect(
    clippy::disallowed_methods,
    reason = "a test looks at the exit status and the output of the program itself"
)]

use std::process::{Command, Stdio};

#[test]
fn they_say_what_they_are_and_end_with_usage() {
    for program in [env!("CARGO_BIN_EXE_hello"), env!("CARGO_BIN_EXE_hello-next")] {
        let output = Command::new(program).stdin(Stdio::null()).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(64));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("k8sctl plugin add hello"), "{said}");
    }
}
