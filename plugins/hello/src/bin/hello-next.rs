//! The program `hello-next`: serves [`plugin_hello::Next`] to the host agent that started it, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    plugin_sdk::main(plugin_hello::Next)
}
