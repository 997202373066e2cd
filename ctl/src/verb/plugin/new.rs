//! `k8sctl plugin new`: writes a plugin that builds and passes its tests as it is, to begin with.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use plugin_package::SYSTEM_NAMESPACES;
use serde::Serialize;

use crate::cli::PluginNewArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, styles, visible};

/// Longest name.
const NAME_CHARS: usize = 40;
/// No names of Rust plugins: of cargo's own folders, of the SDK's crate, and of the program of all plugins that are data.
const NO_PROGRAMS: [&str; 6] = ["build", "deps", "examples", "incremental", "sdk", "data-plugin"];
/// The only file that is a program.
const PROGRAM: &str = ".ci/run";

/// A file of a new plugin: its path, and its text with names to be filled in.
type Template = (&'static str, &'static str);

/// What both kinds have.
const BOTH: [Template; 5] = [
    (".gitignore", include_str!("templates/gitignore.in")),
    ("tests/valid/defaults.json", include_str!("templates/valid-defaults.json.in")),
    ("tests/valid/three.json", include_str!("templates/valid-three.json.in")),
    ("tests/invalid/replicas.json", include_str!("templates/invalid-replicas.json.in")),
    ("tests/invalid/latest.json", include_str!("templates/invalid-latest.json.in")),
];

const DATA: [Template; 6] = [
    ("README.md", include_str!("templates/data/README.md.in")),
    ("plugin.toml", include_str!("templates/data/plugin.toml.in")),
    ("data.toml", include_str!("templates/data/data.toml.in")),
    ("schema.json", include_str!("templates/data/schema.json.in")),
    ("objects/namespace.yaml", include_str!("templates/data/namespace.yaml.in")),
    ("objects/deployment.yaml", include_str!("templates/data/deployment.yaml.in")),
];

const RUST: [Template; 8] = [
    ("README.md", include_str!("templates/rust/README.md.in")),
    ("plugin.toml", include_str!("templates/rust/plugin.toml.in")),
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml.in")),
    ("src/main.rs", include_str!("templates/rust/main.rs.in")),
    ("src/lib.rs", include_str!("templates/rust/lib.rs.in")),
    ("tests/golden.rs", include_str!("templates/rust/golden.rs.in")),
    ("tests/golden/defaults.json", include_str!("templates/rust/defaults.json.in")),
    (PROGRAM, include_str!("templates/rust/ci.in")),
];

/// `plugin new -o json`.
#[derive(Debug, Serialize)]
struct New {
    name: String,
    folder: PathBuf,
    files: Vec<&'static str>,
}

pub(super) fn run(context: &Context, args: &PluginNewArgs) -> Result<Exit, Ended> {
    let name = &args.name;
    if let Some(reason) = mistake(name, args.rust) {
        let next = "name it like my-service; namespace and objects of the plugin that is written have that name, too";
        return Err(refused(name, reason, next).into());
    }
    let sdk = if args.rust { Some(sdk(name, args.sdk.as_deref())?) } else { None };
    let new = write(name, sdk.as_deref())?;
    if context.format.is_structured() {
        output::document(context, &new)?;
        return Ok(Exit::Ok);
    }
    let folder = new.folder.display();
    let what = format!("wrote {folder}: {} files; README.md says what they are", new.files.len());
    context.out.line(context.out.paint(styles::GOOD, visible(&what)))?;
    let test = context.source.command(&["plugin", "test", name]);
    let add = context.source.command(&["plugin", "add", &format!("./{name}"), "--dev"]);
    context.out.line("next:")?;
    context.out.line(format!("  {test}"))?;
    context.out.line(format!("  {add}"))?;
    Ok(Exit::Ok)
}

fn refused(name: &str, reason: String, next: &str) -> Failure {
    Failure::new("PLUGIN-NEW", format!("plugin {name}"), reason, next)
}

/// What is wrong with a name, which becomes that of a namespace and, with Rust, of a crate and its program.
fn mistake(name: &str, is_rust: bool) -> Option<String> {
    let is_made_of = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_name = name.len() <= NAME_CHARS
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(is_made_of);
    if !is_name {
        return Some(format!(
            "that is no name: a letter, then letters, digits and dashes, at most {NAME_CHARS}"
        ));
    }
    if is_rust && NO_PROGRAMS.contains(&name) {
        return Some("no crate of a plugin can have that name".to_owned());
    }
    SYSTEM_NAMESPACES.contains(&name).then(|| "a namespace of Kubernetes has that name".to_owned())
}

/// The SDK that was named, or the one of the checkout that this directory lies in.
fn sdk(name: &str, given: Option<&Path>) -> Result<PathBuf, Failure> {
    let is_sdk = |dir: &Path| {
        let text = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
        text.lines().any(|line| line.trim() == "name = \"plugin-sdk\"")
    };
    let next = "name the folder plugins/sdk of a checkout of k8s-myhome with --sdk DIR";
    let here = std::env::current_dir().unwrap_or_default();
    let found = match given {
        Some(dir) if is_sdk(dir) => Some(dir.to_owned()),
        Some(dir) => return Err(refused(name, format!("there is no SDK in {}", dir.display()), next)),
        None => here.ancestors().map(|dir| dir.join("plugins/sdk")).find(|dir| is_sdk(dir)),
    };
    let found =
        found.ok_or_else(|| refused(name, "no SDK was found above this directory".to_owned(), next))?;
    fs::canonicalize(&found).map_err(|error| refused(name, format!("{}: {error}", found.display()), next))
}

/// Writes all of it into a folder of its name, which must not be there yet.
fn write(name: &str, sdk: Option<&Path>) -> Result<New, Failure> {
    let folder = PathBuf::from(name);
    fs::create_dir(&folder).map_err(|error| {
        let reason = format!("cannot make the folder {name} here: {error}");
        refused(name, reason, "go to a directory that you may write and that has none of that name")
    })?;
    let cannot_write = |error: io::Error| {
        let reason = format!("cannot write it: {error}");
        refused(name, reason, "remove the folder, make room on that disk, and run it again")
    };
    let path = toml::Value::String(sdk.unwrap_or(Path::new("")).to_string_lossy().into_owned()).to_string();
    let filled = |text: &str| {
        text.replace("@NAME@", name).replace("@IDENT@", &name.replace('-', "_")).replace("@SDK@", &path)
    };
    let kind: &[Template] = if sdk.is_some() { &RUST } else { &DATA };
    let mut files = Vec::new();
    for (file, text) in BOTH.iter().chain(kind) {
        write_file(&folder.join(file), &filled(text)).map_err(cannot_write)?;
        files.push(*file);
    }
    // What the SDK was tested with.
    if let Some(lock) = sdk.and_then(|sdk| Some(sdk.ancestors().nth(2)?.join("Cargo.lock")))
        && lock.is_file()
    {
        fs::copy(&lock, folder.join("Cargo.lock")).map_err(cannot_write)?;
        files.push("Cargo.lock");
    }
    files.sort_unstable();
    Ok(New { name: name.to_owned(), folder, files })
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    if path.ends_with(PROGRAM) {
        file.set_permissions(Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_namespaces_and_crates() {
        for name in ["hello", "my-service", "a1"] {
            assert_eq!((mistake(name, false), mistake(name, true)), (None, None), "{name}");
        }
        for name in NO_PROGRAMS {
            assert!(mistake(name, true).is_some() && mistake(name, false).is_none(), "{name}");
        }
        let long = "a".repeat(NAME_CHARS + 1);
        for name in ["", "Hello", "1a", "-a", "a-", "a_b", "../a", "kube-system", "default", long.as_str()] {
            assert!(mistake(name, false).is_some(), "{name}");
        }
    }

    #[test]
    fn every_name_in_the_templates_is_one_that_is_filled_in() {
        for (file, text) in BOTH.iter().chain(&DATA).chain(&RUST) {
            let rest = text.replace("@NAME@", "").replace("@IDENT@", "").replace("@SDK@", "");
            let is_left =
                rest.split('@').skip(1).any(|part| part.starts_with(|c: char| c.is_ascii_uppercase()));
            assert!(!is_left && text.ends_with('\n'), "{file}");
        }
    }

    #[test]
    fn what_the_templates_say_of_a_plugin_is_sound_and_as_their_code_says() {
        let of = |templates: &[Template], name: &str| {
            templates.iter().find(|(file, _)| *file == name).expect("there").1.replace("@NAME@", "x")
        };
        for kind in [&DATA[..], &RUST[..]] {
            let manifest = plugin_package::Manifest::parse(&of(kind, "plugin.toml")).expect("sound");
            assert_eq!((manifest.name.as_str(), manifest.permissions.len()), ("x", 2));
        }
        let summary = plugin_package::Manifest::parse(&of(&RUST, "plugin.toml")).expect("sound").summary;
        assert!(of(&RUST, "src/lib.rs").contains(&summary), "{summary}");
        let schema: serde_json::Value = serde_json::from_str(&of(&DATA, "schema.json")).expect("JSON");
        assert_eq!(schema["additionalProperties"], false);
        let golden = of(&RUST, "tests/golden/defaults.json");
        serde_json::from_str::<serde_json::Value>(&golden).expect("JSON");
        for name in ["objects/namespace.yaml", "objects/deployment.yaml"] {
            let object: serde_json::Value = serde_yaml_ng::from_str(&of(&DATA, name)).expect("YAML");
            assert_eq!(object["metadata"]["name"], "x", "{name}");
        }
    }
}
