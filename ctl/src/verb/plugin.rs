//! `k8sctl plugin …`: platform services on a running cluster. Adding one shows first what it asks for; the consent is
//! tied to exactly that.

use std::path::Path;

use k8sctl_proto::control::v1::{
    AddPluginRequest, AddPluginResponse, ListPluginsRequest, RemovePluginRequest,
};
use k8sctl_types::failure::Failure;
use k8sctl_types::spec;
use serde::Serialize;
use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;

use crate::agent::{self, Agent};
use crate::cli::{PluginAddArgs, PluginVerb};
use crate::consent::{self, Question};
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::progress::Ticker;
use crate::spec_file;
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, Printer, styles, visible};
use crate::view::{DiagnosticView, OfferView, PluginView};

pub(super) async fn run(context: &Context, verb: PluginVerb) -> Result<Exit, Ended> {
    match verb {
        PluginVerb::Add(args) => add(context, &args).await,
        PluginVerb::List { cluster } => list(context, cluster.as_deref()).await,
        PluginVerb::Remove { name, cluster, yes: _ } => remove(context, name, cluster.as_deref()).await,
    }
}

async fn add(context: &Context, args: &PluginAddArgs) -> Result<Exit, Ended> {
    let plugin = plugin_of(&args.name)?;
    let config = config_of(args)?;
    let agent = agent::connect(context).await?;
    let mut request = AddPluginRequest {
        cluster_name: agent.cluster_name(context, args.cluster.as_deref()).await?,
        plugin,
        config_json: config,
        dry_run: true,
        approved_permissions: String::new(),
    };
    let (offer, _) = ask(context, &agent, &request, args).await?;
    if let Some(offer) = &offer {
        show(context.story(), offer)?;
        if !offer.permissions.is_empty() {
            let question = Question {
                object: &format!("plugin {}", offer.name),
                what: "the plugin asks for the permissions above",
                agree: &agreed(context, args),
            };
            consent::require(context, args.yes, &question)?;
        }
        request.approved_permissions = offer.permissions_digest.clone();
    }
    request.dry_run = false;
    let (_, status) = ask(context, &agent, &request, args).await?;
    let status = status.ok_or_else(|| {
        let object = format!("plugin {}", args.name);
        let next = format!("look at it with: {}", list_of(context, args.cluster.as_deref()));
        Failure::new("PLUGIN-NO-STATUS", object, "the host agent ended without saying how it stands", next)
    })?;
    if context.format.is_structured() {
        output::document(context, &status)?;
    } else {
        let (name, version, state) =
            (visible(&status.name), visible(&status.version), visible(&status.state));
        let what = format!("plugin {name} {version} is {state} ({} objects)", status.objects);
        context.out.line(context.out.paint(style(&status.state), what))?;
        if let Some(message) = &status.message {
            context.out.line(visible(message))?;
        }
    }
    Ok(if matches!(status.state.as_str(), "Failed" | "Degraded") { Exit::Failed } else { Exit::Ok })
}

/// The same command with the consent.
fn agreed(context: &Context, args: &PluginAddArgs) -> String {
    let config = args.config.as_ref().map(|file| file.display().to_string());
    let mut words = vec!["plugin", "add", args.name.as_str()];
    for (flag, value) in [("--cluster", &args.cluster), ("--config", &config)] {
        words.extend(value.iter().flat_map(|value| [flag, value.as_str()]));
    }
    words.extend(args.set.iter().flat_map(|pair| ["--set", pair.as_str()]));
    words.push("--yes");
    context.source.command(&words)
}

/// The command that lists the plugins of that cluster.
fn list_of(context: &Context, cluster: Option<&str>) -> String {
    let mut words = vec!["plugin", "list"];
    words.extend(cluster.into_iter().flat_map(|cluster| ["--cluster", cluster]));
    context.source.command(&words)
}

async fn ask(
    context: &Context,
    agent: &Agent,
    request: &AddPluginRequest,
    args: &PluginAddArgs,
) -> Result<(Option<OfferView>, Option<PluginView>), Ended> {
    let mut stream = agent.plugins().add_plugin(request.clone()).await?.into_inner();
    let mut ticker = Ticker::new(context.story());
    let (mut offer, mut status, mut mistakes) = (None, None, Vec::new());
    while let Some(message) = stream.message().await? {
        let AddPluginResponse { progress, offer: offered, diagnostics, status: stands } = message;
        ticker.show(&progress)?;
        offer = offered.map(OfferView::from).or(offer);
        status = stands.map(PluginView::from).or(status);
        mistakes.extend(diagnostics);
    }
    drop(ticker);
    // Warnings are shown once, on the first time.
    let mistakes: Vec<_> =
        mistakes.into_iter().filter(|one| request.dry_run || !one.warning).map(Into::into).collect();
    let name = args
        .config
        .as_ref()
        .map_or_else(|| format!("config of {}", args.name), |file| file.display().to_string());
    // Places are in the config as JSON, not in the file.
    if mistakes.iter().any(|one: &DiagnosticView| !one.warning) {
        spec_file::report(context, &name, "", &mistakes)?;
        return Err(Ended::Reported(Exit::InvalidSpec));
    }
    spec_file::warn(context, &name, "", &mistakes)?;
    Ok((offer, status))
}

fn show(printer: &Printer, offer: &OfferView) -> std::io::Result<()> {
    let name = printer.paint(styles::STRONG, visible(&format!("{} {}", offer.name, offer.version)));
    printer.line(format!("plugin {name}"))?;
    let lists = [("asks for", &offer.permissions, styles::WARN), ("brings", &offer.objects, styles::GOOD)];
    for (word, lines, style) in lists.into_iter().filter(|(_, lines, _)| !lines.is_empty()) {
        printer.line(format!("  {word}:"))?;
        for line in lines {
            printer.line(format!("    {} {}", printer.paint(style, "+"), visible(line)))?;
        }
    }
    Ok(())
}

/// A path is made absolute, since it is the host agent that reads it.
fn plugin_of(name: &str) -> Result<String, Failure> {
    if !name.contains('/') {
        return Ok(name.to_owned());
    }
    let failure =
        |reason: String, next: &str| Failure::new("PLUGIN-NOT-FOUND", format!("plugin {name}"), reason, next);
    let path = std::fs::canonicalize(name).map_err(|error| {
        failure(
            format!("cannot find it: {error}"),
            "name a plugin of the plugin path, or the directory of one",
        )
    })?;
    path.into_os_string().into_string().map_err(|path| {
        let reason = format!("its path is not UTF-8: {}", path.display());
        failure(reason, "move it to a path in plain letters")
    })
}

fn config_of(args: &PluginAddArgs) -> Result<String, Ended> {
    let failure = |object: String, reason: String| {
        let next = "write TOML, YAML (.yaml) or JSON (.json) in the file, and --set KEY=VALUE, like --set replicas=2";
        Ended::with(Exit::InvalidSpec, Failure::new("PLUGIN-CONFIG", object, reason, next))
    };
    let mut config = match &args.config {
        None => Map::new(),
        Some(path) => {
            read_config(path).map_err(|reason| failure(format!("file {}", path.display()), reason))?
        }
    };
    for pair in &args.set {
        set(&mut config, pair).map_err(|reason| failure(format!("--set {pair}"), reason))?;
    }
    Ok(Value::Object(config).to_string())
}

fn read_config(path: &Path) -> Result<Map<String, Value>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"))?;
    let value: Value = match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        Some("yaml" | "yml") => from_yaml(&text)?,
        _ => return spec::plugin_config(&text).map_err(|mistakes| mistakes.join("; ")),
    };
    match value {
        Value::Object(config) => Ok(config),
        _ => Err("it holds no table of keys and values".to_owned()),
    }
}

fn from_yaml(text: &str) -> Result<Value, String> {
    let value: Yaml = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    match not_finite(&value, "") {
        Some(told) => Err(told),
        None => serde_json::to_value(value).map_err(|error| error.to_string()),
    }
}

/// The first number that JSON cannot hold: it would silently become `null`.
fn not_finite(value: &Yaml, at: &str) -> Option<String> {
    match value {
        Yaml::Number(number) if number.as_f64().is_none_or(|number| !number.is_finite()) => {
            Some(format!("{at}: JSON cannot hold the number {number}; write it as a string, or leave it out"))
        }
        Yaml::Sequence(items) => {
            items.iter().enumerate().find_map(|(index, item)| not_finite(item, &format!("{at}[{index}]")))
        }
        Yaml::Mapping(entries) => entries.iter().find_map(|(key, value)| {
            let key = key.as_str().unwrap_or("?");
            not_finite(value, &if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") })
        }),
        Yaml::Tagged(tagged) => not_finite(&tagged.value, at),
        _ => None,
    }
}

/// `a.b=value`: the value is JSON where it can be, else text.
fn set(config: &mut Map<String, Value>, pair: &str) -> Result<(), String> {
    let (path, text) = pair.split_once('=').ok_or("it has no =")?;
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let (parents, last) = match path.rsplit_once('.') {
        Some((parents, last)) => (parents.split('.').collect(), last),
        None => (Vec::new(), path),
    };
    if last.is_empty() || parents.contains(&"") {
        return Err("a part of its key is empty".to_owned());
    }
    let mut table = config;
    for parent in parents {
        let slot = table.entry(parent).or_insert_with(|| Value::Object(Map::new()));
        table = slot.as_object_mut().ok_or_else(|| format!("{parent} is a value, not a table"))?;
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

fn style(state: &str) -> anstyle::Style {
    match state {
        "Ready" => styles::GOOD,
        "Failed" => styles::BAD,
        _ => styles::WARN,
    }
}

/// Plugins as a table; `status` shows the same.
pub(super) fn table(plugins: &[PluginView]) -> Table {
    let mut table = Table::new(&["PLUGIN", "VERSION", "STATE", "OBJECTS", "MESSAGE"]);
    for plugin in plugins {
        table.row(vec![
            styled(styles::STRONG, &plugin.name),
            cell(&plugin.version),
            styled(style(&plugin.state), &plugin.state),
            cell(plugin.objects.to_string()),
            cell(plugin.message.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

async fn list(context: &Context, cluster: Option<&str>) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let request = ListPluginsRequest { cluster_name: agent.cluster_name(context, cluster).await? };
    let plugins = agent.plugins().list_plugins(request).await?.into_inner().plugins;
    let plugins: Vec<_> = plugins.into_iter().map(PluginView::from).collect();
    if context.format.is_structured() {
        output::document(context, &plugins)?;
    } else if plugins.is_empty() {
        let add = context.source.command(&["plugin", "add", "NAME"]);
        context.out.line(format!("no plugin is installed; add one with: {add}, like hello"))?;
    } else {
        table(&plugins).print(&context.out)?;
    }
    Ok(Exit::Ok)
}

/// `plugin remove -o json`.
#[derive(Debug, Serialize)]
struct Removed {
    /// Name of the plugin that is gone.
    plugin: String,
    /// The cluster that it was on.
    cluster_name: String,
}

async fn remove(context: &Context, plugin: String, cluster: Option<&str>) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let cluster_name = agent.cluster_name(context, cluster).await?;
    let request = RemovePluginRequest { cluster_name: cluster_name.clone(), plugin: plugin.clone() };
    let mut stream = agent.plugins().remove_plugin(request).await?.into_inner();
    let mut ticker = Ticker::new(context.story());
    while let Some(message) = stream.message().await? {
        ticker.show(&message.progress)?;
    }
    drop(ticker);
    if context.format.is_structured() {
        output::document(context, &Removed { plugin, cluster_name })?;
    } else {
        let what = format!("removed plugin {}", visible(&plugin));
        context.out.line(context.out.paint(styles::GOOD, what))?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_cannot_hold_is_refused_and_dates_are_texts() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("writes");
            read_config(&path)
        };
        let toml = read("c.toml", "since = 2026-01-01T00:00:00Z\n[node]\nday = 2026-01-01\n").expect("sound");
        let expected = serde_json::json!({"since": "2026-01-01T00:00:00Z", "node": {"day": "2026-01-01"}});
        assert_eq!(Value::Object(toml), expected);
        let yaml = read("c.yaml", "since: 2026-01-01\nlist: [1, 1.5, on]\n7: true\n").expect("sound");
        let expected = serde_json::json!({"since": "2026-01-01", "list": [1, 1.5, "on"], "7": true});
        assert_eq!(Value::Object(yaml), expected);
        for (name, text, told) in [
            ("c.toml", "a = 1\nb.c = [-inf]\nd = nan\n", "line 2: b.c[0]: JSON cannot hold the number -inf"),
            ("c.toml", "a = 1\nb.c = [-inf]\nd = nan\n", "; line 3: d: JSON cannot hold the number nan"),
            ("c.yaml", "a: 1\nb: {c: [1, -.inf]}\n", "b.c[1]: JSON cannot hold the number -.inf"),
            ("c.yml", "a: .nan\n", "a: JSON cannot hold the number .nan"),
            ("c.yaml", "- a\n", "it holds no table"),
            ("c.json", "[1]", "it holds no table"),
        ] {
            let refused = read(name, text).expect_err(text);
            assert!(refused.contains(told) && !refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn values_are_set_by_path() {
        let mut config = Map::new();
        for pair in ["replicas=2", "ingress.host=home.example", "on=true", "ingress.port=80"] {
            set(&mut config, pair).expect("a pair");
        }
        let expected =
            serde_json::json!({"replicas": 2, "on": true, "ingress": {"host": "home.example", "port": 80}});
        assert_eq!(Value::Object(config.clone()), expected);
        assert!(set(&mut config, "replicas.x=1").is_err());
        assert!(set(&mut config, "novalue").is_err());
        assert!(set(&mut config, "a..b=1").is_err());
    }
}
