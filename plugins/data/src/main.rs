//! The program `data-plugin`: serves [`plugin_data::DataPlugin`] to the host agent that started it, and nothing else.
//! `k8sctl plugin build` puts it into the package of every plugin that is data.

use std::process::ExitCode;

fn main() -> ExitCode {
    plugin_sdk::main_raw(plugin_data::DataPlugin)
}
