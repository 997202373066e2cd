//! What is wrong with a `plugin.toml` that reads as one. All of it at once, each with its table and its value.

use std::collections::BTreeSet;

use serde_json::Value;

use super::asks::url_mistake;
use super::{Manifest, SYSTEM_NAMESPACES};
use crate::PROTOCOL_VERSIONS;
use crate::folder::{FILES_BYTES, MANIFEST_FILE, PACKAGE_BYTES, PACKAGE_FILES, SIGNATURE_FILE};

/// Longest text, in bytes.
const TEXT_BYTES: usize = 1024;
/// Largest manifest of an upstream project, in bytes.
const REMOTE_BYTES: u64 = 16 << 20;

const VERBS: [&str; 4] = ["get", "create", "patch", "delete"];
const AGGREGATED: [&str; 3] = ["view", "edit", "admin"];

pub(super) fn of(manifest: &Manifest) -> Vec<String> {
    let mut found = Mistakes::default();
    found.texts(manifest);
    found.head(manifest);
    found.permissions(manifest);
    found.grants(manifest);
    found.others(manifest);
    found.remotes(manifest);
    found.node(manifest);
    found.contents(manifest);
    found.0
}

#[derive(Default)]
struct Mistakes(Vec<String>);

impl Mistakes {
    fn say(&mut self, mistake: String) {
        self.0.push(mistake);
    }

    fn unless(&mut self, is_right: bool, mistake: impl FnOnce() -> String) {
        if !is_right {
            self.say(mistake());
        }
    }

    /// People read these texts in their terminals.
    fn texts(&mut self, manifest: &Manifest) {
        let Ok(all) = serde_json::to_value(manifest) else { return };
        self.text("", &all);
    }

    fn text(&mut self, place: &str, value: &Value) {
        match value {
            Value::String(text) => {
                if text.chars().any(char::is_control) {
                    self.say(format!("{place}: it has a line break or another control character"));
                }
                if text.len() > TEXT_BYTES {
                    self.say(format!("{place}: it has {} bytes, expected at most {TEXT_BYTES}", text.len()));
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.text(&format!("{place}[{index}]"), item);
                }
            }
            Value::Object(fields) => {
                for (key, field) in fields {
                    let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                    self.text(&place, field);
                }
            }
            _ => {}
        }
    }

    fn head(&mut self, manifest: &Manifest) {
        let name = &manifest.name;
        self.unless(is_name(name), || format!("name {name:?}: expected {NAME}"));
        self.unless(!manifest.summary.is_empty(), || "summary: expected one line".to_owned());
        let protocol = &manifest.protocol;
        self.unless(protocol.iter().any(|version| PROTOCOL_VERSIONS.contains(version)), || {
            format!("protocol {protocol:?}: this host agent speaks {PROTOCOL_VERSIONS:?}")
        });
        self.unless(manifest.config_version > 0, || "config_version 0: it counts from 1".to_owned());
        let program = &manifest.program.name;
        let is_file_name = is_component(program) && !program.starts_with('.');
        self.unless(is_file_name, || format!("program.name {program:?}: expected the name of a file"));
        let required = manifest.requires.iter().map(|requirement| ("requires.what", &requirement.what));
        let provided = manifest.provides.iter().map(|what| ("provides", what));
        let conflicts = manifest.conflicts.iter().map(|what| ("conflicts", what));
        for (key, what) in provided.chain(conflicts).chain(required) {
            self.unless(is_name(what), || format!("{key} {what:?}: expected {NAME}"));
        }
        let others = manifest.requires.iter().map(|requirement| &requirement.what).chain(&manifest.conflicts);
        for what in others.filter(|what| *what == name) {
            self.say(format!("requires or conflicts {what:?}: this is the plugin itself"));
        }
    }

    fn permissions(&mut self, manifest: &Manifest) {
        for permission in &manifest.permissions {
            let of = format!("permission of {}", permission.kind);
            for verb in permission.verbs.iter().filter(|verb| !VERBS.contains(&verb.as_str())) {
                self.say(format!("{of}: verb {verb:?}: expected get, create, patch or delete"));
            }
            self.unless(!permission.verbs.is_empty(), || format!("{of}: it has no verbs"));
            let is_kind =
                !permission.kind.is_empty() && permission.kind.chars().all(|c| c.is_ascii_alphanumeric());
            self.unless(is_kind && is_domain_or_empty(&permission.group), || {
                format!("{of}: kind {:?} and group {:?} are spelled out", permission.kind, permission.group)
            });
            for namespace in &permission.namespaces {
                self.unless(is_label(namespace), || {
                    format!("{of}: namespace {namespace:?}: expected the name of one, without *")
                });
            }
            for name in &permission.names {
                self.unless(is_object_name(name), || {
                    format!("{of}: name {name:?}: expected the name of an object, without *")
                });
            }
            self.unless(!permission.names.is_empty() || !permission.needs_names(), || {
                let system = SYSTEM_NAMESPACES.join(", ");
                format!("{of}: it needs names: this kind reaches the whole cluster, or a namespace is one of {system}")
            });
        }
    }

    fn grants(&mut self, manifest: &Manifest) {
        for (index, grant) in manifest.grants.iter().enumerate() {
            let of = format!("grant[{index}]");
            self.unless(!grant.verbs.is_empty(), || format!("{of}: it has no verbs"));
            let about_resources = !grant.groups.is_empty() && !grant.resources.is_empty();
            let about_urls = !grant.urls.is_empty()
                && grant.groups.is_empty()
                && grant.resources.is_empty()
                && grant.resource_names.is_empty()
                && grant.namespaces.is_empty();
            self.unless(about_resources && grant.urls.is_empty() || about_urls, || {
                format!("{of}: expected groups and resources, or urls and nothing else beside verbs")
            });
            for namespace in &grant.namespaces {
                self.unless(is_label(namespace), || {
                    format!("{of}: namespace {namespace:?}: expected the name of one; none means all")
                });
            }
        }
    }

    fn others(&mut self, manifest: &Manifest) {
        for bind in &manifest.binds {
            let is_role = bind
                .role
                .split_once(' ')
                .is_some_and(|(kind, name)| matches!(kind, "Role" | "ClusterRole") && is_object_name(name));
            let role = &bind.role;
            self.unless(is_role, || {
                format!("bind.role {role:?}: expected \"ClusterRole NAME\" or \"Role NAME\"")
            });
            let is_subject = |subject: &String| match subject.split_once(' ') {
                Some(("ServiceAccount", place)) => place
                    .split_once('/')
                    .is_some_and(|(namespace, name)| is_label(namespace) && is_object_name(name)),
                Some(("Group" | "User", name)) => !name.is_empty(),
                _ => false,
            };
            self.unless(bind.subject.as_ref().is_none_or(is_subject), || {
                let subject = bind.subject.as_deref().unwrap_or_default();
                format!(
                    "bind.subject {subject:?}: expected \"ServiceAccount NAMESPACE/NAME\", \"Group NAME\" or \
                     \"User NAME\""
                )
            });
        }
        for aggregate in &manifest.aggregates {
            self.unless(!aggregate.to.is_empty(), || "aggregate.to: expected view, edit or admin".to_owned());
            for to in aggregate.to.iter().filter(|to| !AGGREGATED.contains(&to.as_str())) {
                self.say(format!("aggregate.to {to:?}: expected view, edit or admin"));
            }
        }
        for webhook in &manifest.webhooks {
            self.unless(!webhook.groups.is_empty() && !webhook.resources.is_empty(), || {
                "webhook: expected groups and resources".to_owned()
            });
        }
        for image in &manifest.images {
            self.unless(!image.name.is_empty(), || "image.name: expected a reference".to_owned());
        }
    }

    fn remotes(&mut self, manifest: &Manifest) {
        for remote in &manifest.remotes {
            let prefix = &remote.prefix;
            if let Some(why) = url_mistake(prefix) {
                self.say(format!("remote.prefix {prefix:?}: {why}"));
            }
            self.unless(prefix.ends_with('/') && !prefix.contains('?'), || {
                format!("remote.prefix {prefix:?}: expected a URL that ends with /")
            });
        }
        for pinned in &manifest.manifests {
            let url = &pinned.url;
            self.unless(manifest.may_fetch(url), || {
                let why = url_mistake(url).unwrap_or("it is below no [[remote]]");
                format!("manifest.url {url:?}: {why}")
            });
            self.digest("manifest", url, &pinned.sha256);
            let bytes = pinned.bytes;
            self.unless((1..=REMOTE_BYTES).contains(&bytes), || {
                format!("manifest.bytes {bytes} of {url}: expected 1 to {REMOTE_BYTES}")
            });
        }
    }

    fn node(&mut self, manifest: &Manifest) {
        let node = &manifest.node;
        let lists =
            [("sysctls", &node.sysctls), ("modules", &node.modules), ("registries", &node.registries)];
        for (key, list) in lists {
            for text in list {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:[]".contains(c);
                self.unless(!text.is_empty() && text.chars().all(is_plain), || {
                    format!("node.{key} {text:?}: expected one exactly, without *")
                });
            }
        }
    }

    fn contents(&mut self, manifest: &Manifest) {
        let mut paths = BTreeSet::from([MANIFEST_FILE, SIGNATURE_FILE]);
        let mut platforms = BTreeSet::new();
        for binary in &manifest.binaries {
            let platform = &binary.platform;
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
            self.unless(!platform.is_empty() && platform.chars().all(is_plain), || {
                format!("binary.platform {platform:?}: expected one like x86_64-linux")
            });
            self.unless(platforms.insert(platform), || format!("binary: two for {platform}"));
        }
        let binaries = manifest.binaries.iter().map(|binary| ("binary", &binary.path, &binary.sha256));
        let files = manifest.files.iter().map(|file| ("file", &file.path, &file.sha256));
        for (table, path, sha256) in binaries.chain(files) {
            self.unless(is_path(path), || format!("{table}.path {path:?}: expected one within the package"));
            self.unless(paths.insert(path), || format!("{table}.path {path:?}: it is there already"));
            self.digest(table, path, sha256);
        }
        self.unless(paths.len() <= PACKAGE_FILES, || {
            format!("it lists {} files, expected at most {PACKAGE_FILES}", paths.len())
        });
        let files = manifest.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
        let all = manifest.binaries.iter().fold(files, |sum, binary| sum.saturating_add(binary.bytes));
        self.unless(files <= FILES_BYTES, || {
            format!("its files have {files} bytes together, expected at most {FILES_BYTES}")
        });
        self.unless(all <= PACKAGE_BYTES, || {
            format!("it has {all} bytes together, expected at most {PACKAGE_BYTES}")
        });
    }

    fn digest(&mut self, table: &str, of: &str, sha256: &str) {
        self.unless(is_digest(sha256), || {
            format!("{table}.sha256 {sha256:?} of {of}: expected 64 hex digits in lower case")
        });
    }
}

const NAME: &str = "at most 40 lower case letters, digits and dashes";

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 40 && text.chars().all(plain) && !text.starts_with('-')
}

fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(plain)
}

fn is_domain_or_empty(text: &str) -> bool {
    text.len() <= 253
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
}

/// Names of roles have colons in them.
fn is_object_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    !text.is_empty() && text.len() <= 253 && text.chars().all(plain) && !text.contains("..")
}

pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

/// One part of a path.
fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"/\\:*?\"<>|".contains(c);
    !text.is_empty() && text.len() <= 100 && text.chars().all(plain) && text != "." && text != ".."
}

/// A path within a package: relative, without dots and oddities.
pub(crate) fn is_path(text: &str) -> bool {
    text.len() <= 255 && text.split('/').count() <= 8 && text.split('/').all(is_component)
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;
    use super::super::tests::WHOLE;

    fn mistakes(of: &str, instead: &str) -> String {
        assert!(WHOLE.contains(of), "the manifest of the tests has no {of}");
        Manifest::parse(&WHOLE.replacen(of, instead, 1)).expect_err(instead).join("\n")
    }

    #[test]
    fn each_mistake_is_told_with_its_place_and_its_value() {
        for (of, instead, said) in [
            ("name = \"beispiel\"", "name = \"Beispiel\"", "name \"Beispiel\": expected at most 40"),
            ("protocol = [1]", "protocol = [7]", "protocol [7]: this host agent speaks [1]"),
            ("config_version = 2", "config_version = 0", "it counts from 1"),
            ("summary = \"An", "summary = \"\\u001b[2J", "summary: it has a line break or another control"),
            ("[program]\nname = \"beispiel\"", "[program]\nname = \"../sh\"", "program.name \"../sh\""),
            ("what = \"cni\"", "what = \"C N I\"", "requires.what \"C N I\""),
            ("what = \"cni\"", "what = \"beispiel\"", "this is the plugin itself"),
            ("verbs = [\"get\", \"create\"", "verbs = [\"watch\", \"create\"", "verb \"watch\": expected"),
            ("kind = \"Deployment\"", "kind = \"*\"", "kind \"*\" and group \"apps\" are spelled out"),
            ("namespaces = [\"beispiel\"]", "namespaces = [\"*\"]", "namespace \"*\": expected the name"),
            ("names = [\"controller\"]", "names = [\"*\"]", "name \"*\": expected the name of an object"),
            ("kind = \"ClusterRole\"\nnames = [\"beispiel\"]", "kind = \"ClusterRole\"", "it needs names"),
            (
                "namespaces = [\"kube-system\"]\nnames = [\"beispiel\"]",
                "namespaces = [\"kube-system\"]",
                "permission of RoleBinding: it needs names",
            ),
            ("urls = [\"/metrics\"]", "", "grant[2]: expected groups and resources, or urls"),
            ("role = \"Role ext", "role = \"Roll ext", "bind.role \"Roll extension"),
            ("subject = \"ServiceAccount kube-system/", "subject = \"ServiceAccount ", "bind.subject"),
            ("to = [\"view\", \"admin\"]", "to = [\"cluster-admin\"]", "aggregate.to \"cluster-admin\""),
            ("prefix = \"https:", "prefix = \"http:", "it is not https"),
            ("beispiel/beispiel/\"", "beispiel/beispiel\"", "expected a URL that ends with /"),
            ("beispiel/beispiel/v1.2.3/", "anderes/beispiel/v1.2.3/", "it is below no [[remote]]"),
            ("bytes = 1234", "bytes = 0", "manifest.bytes 0"),
            ("modules = [\"vxlan\"]", "modules = [\"*\"]", "node.modules \"*\""),
            ("path = \"bin/", "path = \"../bin/", "binary.path"),
            ("path = \"schema.json\"", "path = \"/etc/passwd\"", "file.path \"/etc/passwd\""),
            ("path = \"schema.json\"", "path = \"plugin.toml\"", "it is there already"),
            ("bytes = 321", "bytes = 3000000", "its files have 3000000 bytes together"),
            ("bytes = 4194304", "bytes = 400000000", "bytes together, expected at most"),
            ("sha256 = \"01", "sha256 = \"0Z", "expected 64 hex digits in lower case"),
        ] {
            let found = mistakes(of, instead);
            assert!(found.contains(said), "{instead}: {found}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text =
            WHOLE.replace("name = \"beispiel\"", "name = \"-\"").replace("protocol = [1]", "protocol = []");
        let found = Manifest::parse(&text).expect_err("two mistakes");
        assert!(found.len() >= 2, "{found:?}");
    }

    #[test]
    fn a_path_stays_within_its_package() {
        for path in ["schema.json", "objects/pool.yaml", "bin/x86_64-linux/plugin", ".hidden"] {
            assert!(super::is_path(path), "{path}");
        }
        for path in ["", "/a", "a//b", "a/", "../a", "a/../b", "./a", "a\\b", "a b", "a\nb", "a:b", "ä"] {
            assert!(!super::is_path(path), "{path:?}");
        }
        assert!(!super::is_path(&["a"; 9].join("/")) && !super::is_path(&"a".repeat(101)));
    }
}
