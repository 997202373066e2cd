//! `k8sctl.lock`: the plugins of a cluster file, exactly. It lies beside that file and is written by `k8sctl`; here it is
//! only read and put into words. What it means for an `up` is the host agent's to decide.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::folder::Package;
use crate::manifest::{FORMAT, is_digest};

const HEAD: &str = "# Written by k8sctl: the plugins of cluster.toml, exactly. Keep it beside the file, and in version control.\n";

/// The contents of `k8sctl.lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFile {
    /// Each plugin once, sorted by name where it was read or written.
    pub plugins: Vec<LockedPlugin>,
}

/// One plugin, exactly.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPlugin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `path`: the host's plugin path; else the absolute path of a folder or an archive.
    pub source: String,
    /// Of its `plugin.toml`. 64 hex digits.
    pub sha256: String,
    /// `built-in`, `signed:KEYID`, `dev`.
    pub trust: String,
    /// Digests of its programs, by platform.
    #[serde(default)]
    pub binaries: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    format: u32,
    #[serde(default, rename = "plugin")]
    plugins: Vec<LockedPlugin>,
}

impl LockFile {
    /// Reads `k8sctl.lock`; the error holds every mistake. An empty text is a file without plugins.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map(|before| format!("line {}: ", before.matches('\n').count() + 1));
            vec![format!("{}{}", line.unwrap_or_default(), error.message().trim_end())]
        })?;
        let mut mistakes = Vec::new();
        if raw.format != FORMAT {
            mistakes.push(format!("format {}: this release reads format {FORMAT}", raw.format));
        }
        let mut plugins = raw.plugins;
        plugins.sort_by(|a, b| a.name.cmp(&b.name));
        for pair in plugins.windows(2).filter(|pair| pair[0].name == pair[1].name) {
            mistakes.push(format!("plugin {:?} is there twice", pair[0].name));
        }
        for plugin in &plugins {
            let name = &plugin.name;
            let digests = std::iter::once(&plugin.sha256).chain(plugin.binaries.values());
            for digest in digests.filter(|digest| !is_digest(digest)) {
                mistakes.push(format!(
                    "plugin {name:?}: sha256 {digest:?}: expected 64 hex digits in lower case"
                ));
            }
            if let Err(error) = semver::Version::parse(&plugin.version) {
                mistakes.push(format!("plugin {name:?}: version {:?}: {error}", plugin.version));
            }
            if let Err(error) = plugin.trust.parse::<crate::Trust>() {
                mistakes.push(format!("plugin {name:?}: trust {error}"));
            }
            if plugin.source != "path" && !plugin.source.starts_with('/') {
                let source = &plugin.source;
                mistakes
                    .push(format!("plugin {name:?}: source {source:?}: expected path or an absolute path"));
            }
        }
        if mistakes.is_empty() { Ok(Self { plugins }) } else { Err(mistakes) }
    }

    /// The file's text: sorted by name, the same each time.
    pub fn to_text(&self) -> String {
        let mut sorted: Vec<_> = self.plugins.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let mut tables = ArrayOfTables::new();
        for plugin in sorted {
            let mut table = Table::new();
            for (key, text) in [
                ("name", &plugin.name),
                ("version", &plugin.version),
                ("source", &plugin.source),
                ("sha256", &plugin.sha256),
                ("trust", &plugin.trust),
            ] {
                table.insert(key, value(text.as_str()));
            }
            let mut binaries = Table::new();
            binaries.decor_mut().set_prefix("");
            for (platform, sha256) in &plugin.binaries {
                binaries.insert(platform, value(sha256.as_str()));
            }
            table.insert("binaries", Item::Table(binaries));
            tables.push(table);
        }
        let mut document = DocumentMut::new();
        document.insert("format", value(i64::from(FORMAT)));
        if !tables.is_empty() {
            document.insert("plugin", Item::ArrayOfTables(tables));
        }
        format!("{HEAD}{document}")
    }

    /// The entry of a plugin.
    pub fn of(&self, name: &str) -> Option<&LockedPlugin> {
        self.plugins.iter().find(|plugin| plugin.name == name)
    }
}

impl LockedPlugin {
    /// The entry that a package gets. `source` is `path` or an absolute path.
    pub fn of_package(package: &Package, source: &str) -> Self {
        // A source folder that is tried out has a program without a digest.
        let built = package.manifest.binaries.iter().filter(|binary| !binary.sha256.is_empty());
        Self {
            name: package.manifest.name.clone(),
            version: package.manifest.version.to_string(),
            source: source.to_owned(),
            sha256: package.sha256.clone(),
            trust: package.trust.to_string(),
            binaries: built.map(|binary| (binary.platform.clone(), binary.sha256.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn locked(name: &str) -> LockedPlugin {
        LockedPlugin {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            source: "path".to_owned(),
            sha256: "ab".repeat(32),
            trust: "built-in".to_owned(),
            binaries: BTreeMap::from([("x86_64-linux".to_owned(), "cd".repeat(32))]),
        }
    }

    #[test]
    fn the_file_is_one_that_people_can_read() {
        let file = LockFile { plugins: vec![locked("metallb"), locked("flannel")] };
        let (own, program) = ("ab".repeat(32), "cd".repeat(32));
        let entry = |name: &str| {
            format!(
                "\n[[plugin]]\nname = \"{name}\"\nversion = \"0.1.0\"\nsource = \"path\"\nsha256 = \"{own}\"\n\
                 trust = \"built-in\"\n[plugin.binaries]\nx86_64-linux = \"{program}\"\n"
            )
        };
        assert_eq!(file.to_text(), format!("{HEAD}format = 1\n{}{}", entry("flannel"), entry("metallb")));
        assert_eq!(LockFile::default().to_text(), format!("{HEAD}format = 1\n"));
        assert_eq!(LockFile::parse(&LockFile::default().to_text()), Ok(LockFile::default()));
        assert_eq!(LockFile::parse(""), Ok(LockFile::default()), "there is none yet");
    }

    #[test]
    fn an_entry_is_found_by_its_name() {
        let file = LockFile { plugins: vec![locked("metallb"), locked("flannel")] };
        assert_eq!(file.of("flannel"), Some(&locked("flannel")));
        assert_eq!(file.of("harbor"), None);
    }

    #[test]
    fn each_mistake_is_told() {
        let text = LockFile { plugins: vec![locked("a"), locked("b")] }.to_text();
        for (of, instead, said) in [
            ("format = 1", "format = 2", "this release reads format 1"),
            ("name = \"b\"", "name = \"a\"", "plugin \"a\" is there twice"),
            ("trust = \"built-in\"", "trust = \"yes\"", "expected built-in, dev"),
            ("source = \"path\"", "source = \"here\"", "expected path or an absolute path"),
            ("version = \"0.1.0\"", "version = \"new\"", "version \"new\""),
            ("sha256 = \"ab", "sha256 = \"AB", "expected 64 hex digits"),
            ("x86_64-linux = \"cd", "x86_64-linux = \"", "expected 64 hex digits"),
            ("trust =", "approved = true\ntrust =", "approved"),
        ] {
            let why = LockFile::parse(&text.replacen(of, instead, 1)).expect_err(instead).join("\n");
            assert!(why.contains(said), "{instead}: {why}");
        }
        let why = LockFile::parse("format = 1\nx = = 2\n").expect_err("it is no TOML").join("\n");
        assert!(why.starts_with("line 2: ") && !why.contains('\n'), "{why}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_again(
            names in prop::collection::btree_set("[a-z][a-z0-9-]{0,10}", 0..6),
            source in "/[ -~]{0,20}",
            platform in "[a-z0-9_-]{1,12}",
        ) {
            let plugins = names.iter().map(|name| LockedPlugin {
                source: source.clone(),
                binaries: BTreeMap::from([(platform.clone(), "ef".repeat(32))]),
                ..locked(name)
            });
            let file = LockFile { plugins: plugins.collect() };
            prop_assert_eq!(LockFile::parse(&file.to_text()), Ok(file.clone()));
            prop_assert!(file.to_text().ends_with('\n') && !file.to_text().ends_with("\n\n"));
        }
    }
}
