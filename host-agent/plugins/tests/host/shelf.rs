//! Packages for tests: plugins that are data, each with a ConfigMap, most of them in a namespace of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_command::Program;
use plugin_package::{PLATFORM, Package, Parts, assemble};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A plugin that is data. Its config is one text, which its ConfigMap holds.
#[derive(Clone)]
pub struct Data {
    pub name: &'static str,
    pub version: &'static str,
    /// Where its ConfigMap is; a namespace of its name is its own.
    pub namespace: &'static str,
    /// What the text is called in its config; the second version calls it otherwise.
    pub setting: &'static str,
    pub config_version: u32,
    pub requires: &'static [&'static str],
    pub provides: &'static [&'static str],
    /// More of `plugin.toml`, `data.toml` and the objects.
    pub manifest: &'static str,
    pub data: &'static str,
    pub objects: &'static str,
}

impl Data {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            version: "0.1.0",
            namespace: name,
            setting: "message",
            config_version: 1,
            requires: &[],
            provides: &[],
            manifest: "",
            data: "",
            objects: "",
        }
    }

    /// The version after it, with another name for its setting.
    pub fn next(name: &'static str) -> Self {
        Self {
            version: "0.2.0",
            setting: "text",
            config_version: 2,
            data: "[[migrate]]\nfrom = 1\nrename = { \"/message\" = \"/text\" }\n",
            ..Self::new(name)
        }
    }

    fn has_namespace(&self) -> bool {
        self.namespace == self.name
    }

    fn plugin_toml(&self) -> String {
        let Self { name, version, namespace, config_version, manifest, .. } = self;
        let requires: String =
            self.requires.iter().map(|what| format!("[[requires]]\nwhat = \"{what}\"\n")).collect();
        let provides = json!(self.provides);
        let verbs = "verbs = [\"get\", \"create\", \"patch\", \"delete\"]";
        let permission = |kind: &str, place: &str| {
            format!("[[permission]]\ngroup = \"\"\nkind = \"{kind}\"\n{place}names = [\"{name}\"]\n{verbs}\n")
        };
        let own = if self.has_namespace() { permission("Namespace", "") } else { String::new() };
        let map = permission("ConfigMap", &format!("namespaces = [\"{namespace}\"]\n"));
        format!(
            "format = 1\nname = \"{name}\"\nversion = \"{version}\"\nsummary = \"A text\"\nprotocol = [1]\n\
             config_version = {config_version}\nprovides = {provides}\n[program]\nname = \"data-plugin\"\n\
             {requires}{own}{map}{manifest}"
        )
    }

    fn data_toml(&self) -> String {
        let Self { setting, data, .. } = self;
        format!(
            "[[object]]\nfile = \"objects/all.yaml\"\n\
             [[output]]\nname = \"text\"\nvalue = \"{{{{ config.{setting} }}}}\"\n{data}"
        )
    }

    fn objects(&self) -> String {
        let Self { name, namespace, setting, objects, .. } = self;
        let own = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n---\n");
        let own = if self.has_namespace() { own } else { String::new() };
        format!(
            "{own}apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
             data:\n  text: \"{{{{ config.{setting} }}}}\"\n{objects}"
        )
    }

    fn schema(&self) -> Value {
        let setting = json!({"type": "string", "title": "Text", "minLength": 1, "default": "hello"});
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.name,
            "type": "object",
            "additionalProperties": false,
            "properties": {(self.setting): setting},
        })
    }
}

/// Where packages are made. Those of `path` are in the plugin path.
pub struct Shelf {
    pub folder: TempDir,
    program: PathBuf,
}

impl Shelf {
    pub async fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), program: built("data-plugin").await }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A package of it in this folder.
    pub fn data(&self, place: &str, data: &Data) -> Package {
        self.package(place, data, &self.program)
    }

    /// The same, with another program.
    pub fn package(&self, place: &str, data: &Data, program: &Path) -> Package {
        let source = tempfile::tempdir().expect("a source folder");
        let write = |path: &str, text: &str| {
            let path = source.path().join(path);
            fs::create_dir_all(path.parent().expect("it has a parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("plugin.toml", &data.plugin_toml());
        write("data.toml", &data.data_toml());
        write("objects/all.yaml", &data.objects());
        let (out, schema) = (self.at(place), data.schema());
        let programs = [(PLATFORM.to_owned(), program.to_owned())];
        let parts = Parts { source: source.path(), out: &out, programs: &programs, schema: &schema };
        assemble(&parts).unwrap_or_else(|error| panic!("{:?}", error.failure(data.name)))
    }
}

/// A program of the workspace, static, by the script that `make build` calls: nothing to do after that.
async fn built(program: &str) -> PathBuf {
    // Among the test programs of cargo lies the folder that it builds into.
    let test = std::env::current_exe().expect("this test has a path");
    let target = test.ancestors().nth(3).expect("TARGET/PROFILE/deps/TEST").to_owned();
    let crate_dir = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests"));
    let workspace = crate_dir.ancestors().nth(2).expect("two levels below the workspace");
    Program::new(workspace.join("tests/lab/cargo-build"), Duration::from_secs(1800))
        .arg("--locked")
        .env("CARGO_TARGET_DIR", &target)
        .run()
        .await
        .expect("the programs build");
    target.join("release").join(program)
}

/// A static program that ends at once, and badly.
pub async fn crashing_program(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("crash.rs"), folder.join("crash"));
    fs::write(&source, "fn main() { std::process::exit(3) }\n").expect("written");
    Program::new("rustc", Duration::from_secs(300))
        .args(["--edition", "2024", "-C", "target-feature=+crt-static"])
        .args(["--target", "x86_64-unknown-linux-gnu", "-o"])
        .arg(&program)
        .arg(&source)
        .run()
        .await
        .expect("it compiles");
    program
}
