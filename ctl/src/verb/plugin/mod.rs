//! `k8sctl plugin …`: platform services on a running cluster, and how one is made.
//!
//! - `list`, `show`, `status`, `logs`, `verify`: looking
//! - `add`, `config`, `upgrade`, `remove`: changing; `change` is what they share: shown first what a plugin asks for, and
//!   the consent is tied to exactly that; `offer` shows it
//! - `diff`, `vendor`: what a change would do to each object; manifests for when there is no network
//! - `new`, `build`, `package`, `sign`, `test`: making a plugin, all of it without a host agent
//! - `values`: a plugin's config from files and flags; `source`: what a path given for a plugin is; `password`: of a key,
//!   from a terminal or a file

mod add;
mod build;
mod change;
mod compile;
mod config;
mod diff;
mod list;
mod logs;
mod new;
mod offer;
mod package;
mod password;
mod remove;
mod show;
mod sign;
mod source;
mod status;
mod test;
mod upgrade;
mod values;
mod vendor;
mod verify;

use anstyle::Style;

pub(super) use offer::is_loud;

use crate::cli::PluginVerb;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, Printer, duration, styles, visible};
use crate::view::{PluginView, seconds_since};

pub(super) async fn run(context: &Context, verb: PluginVerb) -> Result<Exit, Ended> {
    match verb {
        PluginVerb::List(args) => list::run(context, &args).await,
        PluginVerb::Show(args) => show::run(context, &args).await,
        PluginVerb::Add(args) => add::run(context, &args).await,
        PluginVerb::Config(args) => config::run(context, &args).await,
        PluginVerb::Upgrade(args) => upgrade::run(context, &args).await,
        PluginVerb::Rollback(args) => upgrade::roll_back(context, &args).await,
        PluginVerb::Remove(args) => remove::run(context, &args).await,
        PluginVerb::Status(args) => status::run(context, &args).await,
        PluginVerb::Logs(args) => logs::run(context, &args).await,
        PluginVerb::Diff(args) => diff::run(context, &args).await,
        PluginVerb::Vendor(args) => vendor::run(context, &args).await,
        PluginVerb::Verify(args) => verify::run(context, &args).await,
        PluginVerb::New(args) => new::run(context, &args),
        PluginVerb::Build(args) => build::run(context, &args).await,
        PluginVerb::Package(args) => package::run(context, &args).await,
        PluginVerb::Sign(args) => sign::run(context, &args).await,
        PluginVerb::Test(args) => test::run(context, &args).await,
    }
}

/// How a state is coloured.
fn style(state: &str) -> Style {
    match state {
        "Ready" => styles::GOOD,
        "Failed" | "Quarantined" => styles::BAD,
        "Available" => styles::DIM,
        _ => styles::WARN,
    }
}

/// A state that a run which waited for the plugin does not end well with.
fn is_bad(state: &str) -> bool {
    matches!(state, "Failed" | "Degraded" | "Quarantined")
}

/// Plugins as a table; `status` shows the same.
pub(super) fn table(plugins: &[PluginView]) -> Table {
    let mut table = Table::new(&["PLUGIN", "VERSION", "STATE", "OBJECTS", "BLOCKED BY", "MESSAGE"]);
    for plugin in plugins {
        let blocking = plugin.blocking.as_ref().map(|blocking| blocking.object.as_str());
        table.row(vec![
            styled(styles::STRONG, &plugin.name),
            cell(&plugin.version),
            styled(style(&plugin.state), &plugin.state),
            cell(plugin.objects.to_string()),
            styled(styles::WARN, blocking.unwrap_or_default()),
            cell(plugin.message.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

/// What stands below that table, in whole sentences: what each waits for, and what others have changed.
pub(super) fn sentences(out: &Printer, plugins: &[PluginView]) -> Vec<String> {
    let mut lines = Vec::new();
    for plugin in plugins {
        let name = visible(&plugin.name);
        if let Some(blocking) = &plugin.blocking {
            let age = seconds_since(blocking.since.as_deref()).map(duration);
            let since = age.map(|age| format!(", for {age}")).unwrap_or_default();
            let told = format!("  {name}: waits for {}{since}", visible(&blocking.line()));
            lines.push(out.paint(styles::WARN, told));
        }
        for object in &plugin.drifted {
            lines.push(format!("  {name}: changed by others, and left so: {}", visible(object)));
        }
    }
    lines
}
