//! Makes a package folder of a source folder: copies what is the plugin's, puts programs and schema beside it, and writes
//! the digests of all of it into `plugin.toml`, which keeps its comments. Called by `k8sctl plugin build`, which has built
//! the program and asked it for its schema; starts nothing.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::error::PackageError;
use crate::folder::{MANIFEST_FILE, PACKAGE_BYTES, Package, SCHEMA_FILE, SIGNATURE_FILE, sha256_hex, utf8};
use crate::manifest::{Binary, FileEntry, Manifest};
use crate::plain::{files_below, read_bounded};
use crate::signature::TrustPolicy;

/// Name of the program that evaluates plugins which are data.
pub const DATA_PROGRAM: &str = "data-plugin";
/// What that program is told of the package that it stands for.
pub const DATA_FILE: &str = "package.json";

/// What a Rust crate has and its package has not.
const CRATE: [&str; 7] = ["Cargo.toml", "Cargo.lock", "build.rs", "src", "tests", "benches", "target"];

/// What a package is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The source folder.
    pub source: &'a Path,
    /// The package folder; replaced as a whole.
    pub out: &'a Path,
    /// Platforms, and the program of each.
    pub programs: &'a [(String, PathBuf)],
    /// JSON Schema of the config, as the program describes it.
    pub schema: &'a serde_json::Value,
}

/// Makes a package folder of a source folder: `plugin.toml` with `[[binary]]` and `[[file]]`, `schema.json`, programs, and
/// every other file but what a Rust crate has and what begins with a dot. A data plugin also gets `package.json`, from which
/// its program learns whose it is. Replaces `out` as a whole, once everything is there.
pub fn assemble(parts: &Parts<'_>) -> Result<Package, PackageError> {
    let failed = |reason: String| PackageError::Build { path: parts.out.to_owned(), reason };
    let path = parts.source.join(MANIFEST_FILE);
    let text = utf8(&path, read_bounded(&path, 256 << 10)?)?;
    let manifest = source_manifest(&path, &text)?;
    check_out(parts).map_err(failed)?;

    let parent = parts.out.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let system = |error: io::Error| failed(error.to_string());
    fs::create_dir_all(parent).map_err(system)?;
    let folder = tempfile::Builder::new().prefix(".plugin-").tempdir_in(parent).map_err(system)?;

    let mut made = Folder { root: folder.path(), files: Vec::new(), binaries: Vec::new() };
    let schema = pretty(parts.schema).map_err(failed)?;
    made.file(SCHEMA_FILE, &schema).map_err(failed)?;
    if manifest.program.name == DATA_PROGRAM {
        let about = json!({
            "name": manifest.name,
            "version": manifest.version.to_string(),
            "summary": manifest.summary,
            "config_version": manifest.config_version,
        });
        made.file(DATA_FILE, &pretty(&about).map_err(failed)?).map_err(failed)?;
    }
    for (platform, program) in parts.programs {
        let content = read_bounded(program, PACKAGE_BYTES)?;
        made.program(platform, &content).map_err(failed)?;
    }
    for name in own_files(parts)? {
        let content = read_bounded(&parts.source.join(&name), PACKAGE_BYTES)?;
        if is_secret_key(&content) {
            let reason = "is a secret key, and packages are for others: keep it outside of the source folder";
            return Err(failed(format!("{name} {reason}")));
        }
        made.file(&name, &content).map_err(failed)?;
    }
    made.files.sort_by(|a, b| a.path.cmp(&b.path));
    let text = with_digests(&text, &made).map_err(failed)?;
    write(&folder.path().join(MANIFEST_FILE), text.as_bytes(), 0o644).map_err(system)?;
    // What was put together is what a stranger would get.
    Package::open(folder.path(), &TrustPolicy::default(), true)?.verify()?;

    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(system)?;
    if parts.out.exists() {
        fs::remove_dir_all(parts.out).map_err(system)?;
    }
    fs::rename(folder.path(), parts.out).map_err(system)?;
    // It is elsewhere now: nothing is left to clean up.
    let _ = folder.keep();
    Package::open(parts.out, &TrustPolicy::default(), true)
}

fn source_manifest(path: &Path, text: &str) -> Result<Manifest, PackageError> {
    let mistakes = |mistakes| PackageError::Mistakes { path: path.to_owned(), mistakes };
    let manifest = Manifest::parse(text).map_err(mistakes)?;
    if manifest.binaries.is_empty() && manifest.files.is_empty() {
        return Ok(manifest);
    }
    let why = "it has [[binary]] or [[file]]: in a source folder these are left out, the build writes them";
    Err(mistakes(vec![why.to_owned()]))
}

/// Only a package, an empty folder or nothing is replaced, and never the source.
fn check_out(parts: &Parts<'_>) -> Result<(), String> {
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if resolved(parts.source).starts_with(resolved(parts.out)) {
        return Err("the source lies in it".to_owned());
    }
    if parts.programs.is_empty() {
        return Err("there is no program for it".to_owned());
    }
    let Ok(entries) = fs::read_dir(parts.out) else {
        return if parts.out.exists() { Err("it is no folder".to_owned()) } else { Ok(()) };
    };
    if parts.out.join(MANIFEST_FILE).is_file() || entries.count() == 0 {
        return Ok(());
    }
    Err("it is a folder with something else than a package in it".to_owned())
}

/// As `k8sctl plugin sign --new-key` and minisign write one: a comment, then a line that begins with the names of the key's
/// algorithms, with a password and without.
fn is_secret_key(content: &[u8]) -> bool {
    const BEGIN: [&str; 2] = ["RWRTY0Iy", "RWQAAEIy"];
    let head = String::from_utf8_lossy(&content[..content.len().min(2048)]);
    let mut lines = head.lines();
    let is_commented = lines.next().is_some_and(|line| line.starts_with("untrusted comment:"));
    is_commented && lines.next().is_some_and(|line| BEGIN.iter().any(|begin| line.starts_with(begin)))
}

/// The package that is being made.
struct Folder<'a> {
    root: &'a Path,
    files: Vec<FileEntry>,
    binaries: Vec<Binary>,
}

impl Folder<'_> {
    fn file(&mut self, path: &str, content: &[u8]) -> Result<(), String> {
        self.put(path, content, 0o644)?;
        let (path, bytes) = (path.to_owned(), content.len() as u64);
        self.files.push(FileEntry { path, sha256: sha256_hex(content), bytes });
        Ok(())
    }

    fn program(&mut self, platform: &str, content: &[u8]) -> Result<(), String> {
        let path = format!("bin/{platform}/plugin");
        self.put(&path, content, 0o755)?;
        let (platform, bytes) = (platform.to_owned(), content.len() as u64);
        self.binaries.push(Binary { platform, path, sha256: sha256_hex(content), bytes });
        Ok(())
    }

    fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<(), String> {
        let target = self.root.join(path);
        if target.exists() {
            return Err(format!("{path} is what the build itself makes: call the file otherwise"));
        }
        let parent = target.parent().unwrap_or(self.root);
        let written = fs::create_dir_all(parent).and_then(|()| write(&target, content, mode));
        written.map_err(|error| format!("{path}: {error}"))
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn pretty(value: &serde_json::Value) -> Result<Vec<u8>, String> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| error.to_string())?;
    text.push(b'\n');
    Ok(text)
}

/// Files of the source that belong to the plugin and are not made here, by their paths.
fn own_files(parts: &Parts<'_>) -> Result<Vec<String>, PackageError> {
    const MADE: [&str; 4] = [MANIFEST_FILE, SIGNATURE_FILE, SCHEMA_FILE, DATA_FILE];
    let unreadable = |source| PackageError::Read { path: parts.source.to_owned(), source };
    let out = parts.out.canonicalize().ok();
    let mut found = Vec::new();
    for entry in fs::read_dir(parts.source).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || CRATE.contains(&name.as_str()) || MADE.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            // A package of before may lie in the source.
            if path
                .canonicalize()
                .ok()
                .is_some_and(|path| out.as_ref().is_some_and(|out| out.starts_with(path)))
            {
                continue;
            }
            let below = files_below(&path)?.into_iter().map(|below| format!("{name}/{below}"));
            found.extend(below.filter(|path| !path.split('/').any(|part| part.starts_with('.'))));
        } else {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// `plugin.toml` of the source, comments and all, with the tables of the package behind it.
fn with_digests(text: &str, made: &Folder<'_>) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let mut binaries = ArrayOfTables::new();
    for binary in &made.binaries {
        let mut table = entry(&binary.path, &binary.sha256, binary.bytes);
        table.insert("platform", value(binary.platform.as_str()));
        binaries.push(table);
    }
    let mut files = ArrayOfTables::new();
    for file in &made.files {
        files.push(entry(&file.path, &file.sha256, file.bytes));
    }
    document.insert("binary", Item::ArrayOfTables(binaries));
    document.insert("file", Item::ArrayOfTables(files));
    let text = document.to_string();
    Manifest::parse(&text).map(|_| text).map_err(|mistakes| mistakes.join("; "))
}

fn entry(path: &str, sha256: &str, bytes: u64) -> Table {
    let mut table = Table::new();
    table.insert("path", value(path));
    table.insert("sha256", value(sha256));
    table.insert("bytes", value(i64::try_from(bytes).unwrap_or(i64::MAX)));
    table
}
