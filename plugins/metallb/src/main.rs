//! The program `metallb`: serves [`plugin_metallb::MetalLb`] to the host agent that started it, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    plugin_sdk::main(plugin_metallb::MetalLb)
}
