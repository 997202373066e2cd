//! `k8sctl plugin config`: shows the config of an installed plugin, changes it, or keeps a secret for it. A secret comes
//! from a file or from standard input, never from the command line, and is told to nobody but the host agent.

use std::fs::File;
use std::io::{self, Read as _};

use k8sctl_proto::control::v1::{PluginChange, PluginWish, SetPluginSecretRequest, ShowPluginRequest};
use k8sctl_types::failure::Failure;
use serde::Serialize;
use serde_json::{Map, Value};

use super::change::{self, Change};
use super::values::Values;
use crate::agent::{self, Agent};
use crate::cli::PluginConfigArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output::{self, Format};
use crate::terminal::{Context, styles, visible};

/// Largest secret.
const SECRET_BYTES: u64 = 256 << 10;

pub(super) async fn run(context: &Context, args: &PluginConfigArgs) -> Result<Exit, Ended> {
    if !args.secret.is_empty() {
        return keep_secrets(context, args).await;
    }
    let agent = agent::connect(context).await?;
    let cluster = agent.cluster_name(context, args.cluster.as_deref()).await?;
    // Such a flag wants the config that is there applied once more.
    let is_only_looked_at = !(args.adopt || args.lift_quarantine || args.prune_many);
    if args.values.is_empty() && is_only_looked_at {
        return show(context, &present(&agent, &cluster, &args.name).await?);
    }
    // A file is all of it: what is there now need not be known.
    let there = match &args.values.config {
        Some(_) => Map::new(),
        None => present(&agent, &cluster, &args.name).await?,
    };
    let values = Values::over(&args.values, &args.name, there)?;
    let wish = PluginWish {
        config_json: values.to_json(),
        config_name: values.name().to_owned(),
        lift_quarantine: args.lift_quarantine,
        adopt: args.adopt,
        ..change::wish(cluster, PluginChange::Configure, args.name.clone())
    };
    let change = Change {
        wish,
        values: &values,
        again: again(args),
        yes: args.yes,
        prune_many: args.prune_many,
        deadline: args.deadline,
    };
    change::run(context, &agent, &change).await
}

/// The config of an installed plugin; of one that is not installed the host agent says so.
pub(super) async fn present(agent: &Agent, cluster: &str, plugin: &str) -> Result<Map<String, Value>, Ended> {
    let request = ShowPluginRequest { cluster_name: cluster.to_owned(), plugin: plugin.to_owned() };
    let shown = agent.plugins().show_plugin(request).await?.into_inner();
    if shown.config_json.is_empty() {
        let next = "add it first: k8sctl plugin add";
        let object = format!("plugin {plugin}");
        return Err(Failure::new("PLUGIN-NOT-INSTALLED", object, "it is not installed", next).into());
    }
    serde_json::from_str(&shown.config_json).map_err(|error| {
        let reason = format!("the host agent has a config of it that is no table: {error}");
        Failure::new("HOST-INTERNAL", format!("plugin {plugin}"), reason, "report this").into()
    })
}

/// For people and with `-o yaml` as YAML, which a file for `--config` may be.
fn show(context: &Context, config: &Map<String, Value>) -> Result<Exit, Ended> {
    match context.format {
        Format::Json | Format::Yaml => output::document(context, config)?,
        Format::Table | Format::Wide => {
            let text = crate::yaml::to_string(config).map_err(io::Error::other)?;
            context.out.raw(text.lines().map(|line| visible(line) + "\n").collect::<String>())?;
        }
    }
    Ok(Exit::Ok)
}

fn again(args: &PluginConfigArgs) -> Vec<String> {
    let mut words = ["plugin", "config", args.name.as_str()].map(str::to_owned).to_vec();
    change::option(&mut words, "--cluster", args.cluster.clone());
    change::option(
        &mut words,
        "--config",
        args.values.config.as_ref().map(|file| file.display().to_string()),
    );
    for pair in &args.values.set {
        change::option(&mut words, "--set", Some(pair.clone()));
    }
    change::option(&mut words, "--deadline", change::deadline(args.deadline));
    let flags = [
        ("--adopt", args.adopt),
        ("--lift-quarantine", args.lift_quarantine),
        ("--prune-many", args.prune_many),
    ];
    change::flags(&mut words, &flags);
    words
}

/// `plugin config --secret -o json`.
#[derive(Debug, Serialize)]
struct Kept {
    plugin: String,
    /// `HANDLE.KEY`
    secret: String,
    /// It was empty, which means: forget it.
    forgotten: bool,
}

async fn keep_secrets(context: &Context, args: &PluginConfigArgs) -> Result<Exit, Ended> {
    // The second one would find nothing there, and nothing means: forget it.
    let named = args.secret.iter().filter_map(|text| text.split_once('='));
    let mut from_input = named.filter(|(_, from)| *from == "-");
    if let (Some(_), Some((second, _))) = (from_input.next(), from_input.next()) {
        let object = format!("secret {second}");
        let reason = "standard input can be one secret only, and another one is to come from there";
        let next = "nothing was changed; give the others as HANDLE.KEY=@FILE, or one after the other";
        return Err(Failure::new("PLUGIN-SECRET", object, reason, next).into());
    }
    // All of them are read first: half a change would be worse than none.
    let secrets: Vec<_> = args.secret.iter().map(|text| read_secret(text)).collect::<Result<_, _>>()?;
    let agent = agent::connect(context).await?;
    let cluster = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let mut kept = Vec::new();
    for Secret { handle, key, value } in secrets {
        let (secret, forgotten) = (format!("{handle}.{key}"), value.is_empty());
        let request = SetPluginSecretRequest {
            cluster_name: cluster.clone(),
            plugin: args.name.clone(),
            handle,
            key,
            value,
        };
        agent.plugins().set_plugin_secret(request).await?;
        kept.push(Kept { plugin: args.name.clone(), secret, forgotten });
    }
    if context.format.is_structured() {
        output::document(context, &kept)?;
        return Ok(Exit::Ok);
    }
    for one in &kept {
        let how = if one.forgotten { "forgot" } else { "keeps" };
        let line = format!("the host agent {how} the secret {} of plugin {}", one.secret, one.plugin);
        context.out.line(context.out.paint(styles::GOOD, visible(&line)))?;
    }
    Ok(Exit::Ok)
}

struct Secret {
    handle: String,
    key: String,
    value: Vec<u8>,
}

/// `HANDLE.KEY=@FILE` or `HANDLE.KEY=-`; a line end behind the only line is an editor's, and no part of it.
fn read_secret(text: &str) -> Result<Secret, Failure> {
    let refused = |reason: String, next: &str| {
        // What stands behind the = may be the secret itself.
        let name = text.split('=').next().unwrap_or_default();
        Failure::new("PLUGIN-SECRET", format!("secret {name}"), reason, next)
    };
    let form = "write it as HANDLE.KEY=@FILE, or HANDLE.KEY=- for standard input";
    let (name, from) = text.split_once('=').ok_or_else(|| refused("it names no source".to_owned(), form))?;
    let (handle, key) = match name.split_once('.') {
        Some((handle, key)) if !handle.is_empty() && !key.is_empty() => (handle, key),
        _ => return Err(refused("it names no handle and key".to_owned(), form)),
    };
    let read = match (from, from.strip_prefix('@')) {
        ("-", _) => limited(io::stdin().lock()),
        (_, Some(file)) if !file.is_empty() => File::open(file).and_then(limited),
        _ => {
            let reason = "a secret on the command line is everybody's to read".to_owned();
            return Err(refused(reason, form));
        }
    };
    let mut value = read.map_err(|error| {
        refused(format!("cannot read it: {error}"), "name a file that you may read, or - for standard input")
    })?;
    if value.iter().filter(|byte| **byte == b'\n').count() == 1 && value.ends_with(b"\n") {
        value.pop();
    }
    Ok(Secret { handle: handle.to_owned(), key: key.to_owned(), value })
}

fn limited(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    from.take(SECRET_BYTES + 1).read_to_end(&mut value)?;
    if value.len() as u64 > SECRET_BYTES {
        return Err(io::Error::other("it is larger than 256 KiB"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_and_never_from_the_command_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("writes");
            path.display().to_string()
        };
        let line = file("line", b"canary\n");
        let secret = read_secret(&format!("admin.password=@{line}")).expect("readable");
        assert_eq!((secret.handle.as_str(), secret.key.as_str()), ("admin", "password"));
        assert_eq!(secret.value, b"canary");
        let lines = file("lines", b"-----BEGIN-----\nx\n");
        let secret = read_secret(&format!("admin.tls.key=@{lines}")).expect("readable");
        assert_eq!((secret.key.as_str(), secret.value.ends_with(b"\n")), ("tls.key", true));
        let huge = file("huge", &vec![b'x'; (SECRET_BYTES + 1) as usize]);
        for wrong in [
            "admin.password=canary".to_owned(),
            "admin.password=@".to_owned(),
            "admin.password=@/no/such/canary".to_owned(),
            format!("admin.password=@{huge}"),
            "admin=@x".to_owned(),
            ".password=-".to_owned(),
            "admin.password".to_owned(),
        ] {
            let failure = read_secret(&wrong).err().expect(&wrong);
            assert_eq!(failure.id, "PLUGIN-SECRET");
            assert!(!failure.object.contains("canary"), "{failure:?}");
        }
    }
}
