//! `k8sctl`: reads the command line and hands it to the library. Wiring only.

use std::process::ExitCode;

fn main() -> ExitCode {
    ctl::main()
}
