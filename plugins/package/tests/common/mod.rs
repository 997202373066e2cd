//! Source folders and packages for tests.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

use plugin_package::{PLATFORM, Package, PackageError, Parts, assemble};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What stands for the program.
pub const PROGRAM: &[u8] = b"\x7fELF and so on";

pub const MANIFEST: &str = r#"# This comment stays.
format = 1
name = "beispiel"
version = "1.2.3" # and so does this one
summary = "An example"
protocol = [1]

[program]
name = "beispiel"

[[permission]]
group = ""
kind = "Namespace"
names = ["beispiel"]
verbs = ["get", "create", "patch", "delete"]
why = "a namespace of its own"
"#;

/// A place with a source folder, and room for what is made of it.
pub struct Place {
    pub dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a folder") };
        place.write("source/plugin.toml", MANIFEST.as_bytes());
        place.write("source/README.md", b"# Beispiel\n");
        place.write("source/objects/pool.yaml", b"kind: Pool\n");
        place.write("program", PROGRAM);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
        fs::write(path, content).expect("written");
    }

    /// Assembles the source folder into `out`.
    pub fn assemble(&self, out: &str) -> Result<Package, PackageError> {
        let programs = [(PLATFORM.to_owned(), self.path("program"))];
        let (source, out) = (self.path("source"), self.path(out));
        assemble(&Parts { source: &source, out: &out, programs: &programs, schema: &schema() })
    }
}

pub fn schema() -> Value {
    json!({"type": "object", "properties": {"replicas": {"type": "integer", "title": "Pods"}}, "additionalProperties": false})
}

/// All files below a folder with their contents.
pub fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("it lies in it").display().to_string();
                found.push((name, fs::read(&path).expect("a file")));
            }
        }
    }
    found.sort();
    found
}
