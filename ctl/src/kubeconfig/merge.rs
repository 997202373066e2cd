//! What of the user's kubeconfig files changes. kubectl reads several files as one configuration: of a value that
//! several set, the first file's counts; a context may be in any of them. Pure.

use std::path::PathBuf;

use serde_yaml_ng::{Mapping, Value};

use super::KubeconfigError;
use crate::yaml;

/// The lists of a kubeconfig.
const LISTS: [&str; 3] = ["clusters", "contexts", "users"];
const CURRENT: &str = "current-context";

/// One of the user's files.
#[derive(Clone, Debug)]
pub(super) struct UserFile {
    /// As the user named it.
    pub(super) path: PathBuf,
    /// It is there.
    pub(super) exists: bool,
    whole: Mapping,
    before: Mapping,
}

/// The host agent's kubeconfig.
#[derive(Debug)]
pub(super) struct Own {
    cluster: Value,
    user: Value,
}

/// Where the entries went.
#[derive(Debug)]
pub(super) struct Added {
    /// The file with the context.
    pub(super) path: PathBuf,
    /// It is the current context now.
    pub(super) current: bool,
}

impl Own {
    pub(super) fn parse(text: &str) -> Result<Self, KubeconfigError> {
        let whole = parse(text).map_err(KubeconfigError::Own)?;
        let first = |list: &str, key: &str| {
            let entry = entries(&whole, list).first().and_then(|entry| entry.get(key)).cloned();
            entry.ok_or_else(|| KubeconfigError::Own(format!("it has no {list}")))
        };
        Ok(Self { cluster: first("clusters", "cluster")?, user: first("users", "user")? })
    }
}

impl UserFile {
    /// `None` where there is no such file.
    pub(super) fn parse(path: PathBuf, text: Option<&str>) -> Result<Self, KubeconfigError> {
        match parse(text.unwrap_or_default()) {
            Ok(whole) => Ok(Self { path, exists: text.is_some(), before: whole.clone(), whole }),
            Err(reason) => Err(KubeconfigError::Parse { path, reason }),
        }
    }

    /// It is to be written.
    pub(super) fn is_changed(&self) -> bool {
        self.whole != self.before
    }

    pub(super) fn text(&self) -> Result<String, KubeconfigError> {
        yaml::to_string(&self.whole).map_err(|error| {
            let reason = error.to_string();
            KubeconfigError::Parse { path: self.path.clone(), reason }
        })
    }

    fn current(&self) -> Option<&str> {
        self.whole.get(CURRENT).and_then(Value::as_str).filter(|current| !current.is_empty())
    }

    fn set_current(&mut self, context: &str) {
        self.whole.insert(CURRENT.into(), context.into());
        self.head();
    }

    /// kubectl wants to know what kind of file it is.
    fn head(&mut self) {
        for (key, word) in [("apiVersion", "v1"), ("kind", "Config")] {
            self.whole.entry(key.into()).or_insert_with(|| word.into());
        }
    }

    fn has(&self, list: &str, named: &str) -> bool {
        entries(&self.whole, list).iter().any(|entry| name(entry) == Some(named))
    }

    /// The entry of that name, made where there is none.
    fn entry(&mut self, list: &str, named: &str) -> Result<&mut Mapping, KubeconfigError> {
        let bad = |what: &str| {
            let (path, reason) = (self.path.clone(), format!("{list} {what}"));
            KubeconfigError::Parse { path, reason }
        };
        let (no_list, no_table) = (bad("is no list"), bad("has an entry that is no mapping"));
        self.head();
        let slot = self.whole.entry(list.into()).or_insert(Value::Null);
        if slot.is_null() {
            *slot = Value::Sequence(Vec::new());
        }
        let entries = slot.as_sequence_mut().ok_or(no_list)?;
        let index = entries.iter().position(|entry| name(entry) == Some(named)).unwrap_or_else(|| {
            let entry: Mapping = [(Value::from("name"), Value::from(named))].into_iter().collect();
            entries.push(Value::Mapping(entry));
            entries.len() - 1
        });
        entries[index].as_mapping_mut().ok_or(no_table)
    }
}

/// Adds or replaces the entries: each where it is, else in the file that kubectl would write to. There is at least
/// one file.
pub(super) fn add(
    files: &mut [UserFile],
    own: &Own,
    context: &str,
    force: bool,
) -> Result<Added, KubeconfigError> {
    // The first that exists, so what it sets counts.
    let default = files.iter().position(|file| file.exists).unwrap_or(files.len() - 1);
    let place =
        |files: &[UserFile], list| files.iter().position(|file| file.has(list, context)).unwrap_or(default);
    for (list, key, value) in [("clusters", "cluster", &own.cluster), ("users", "user", &own.user)] {
        let at = place(files, list);
        files[at].entry(list, context)?.insert(key.into(), value.clone());
    }
    let at = place(files, "contexts");
    let entry = files[at].entry("contexts", context)?;
    // Its namespace and extensions are the user's.
    let mut reference = entry.get("context").and_then(Value::as_mapping).cloned().unwrap_or_default();
    for key in ["cluster", "user"] {
        reference.insert(key.into(), context.into());
    }
    entry.insert("context".into(), Value::Mapping(reference));

    let lives = current(files).is_some_and(|current| files.iter().any(|file| file.has("contexts", current)));
    if force || !lives {
        files[default].set_current(context);
    }
    Ok(Added { path: files[at].path.clone(), current: current(files) == Some(context) })
}

/// Removes the entries from every file, and the current context where it is this one.
pub(super) fn remove(files: &mut [UserFile], context: &str) {
    for file in files {
        for list in LISTS {
            if let Some(entries) = file.whole.get_mut(list).and_then(Value::as_sequence_mut) {
                entries.retain(|entry| name(entry) != Some(context));
            }
        }
        if file.current() == Some(context) {
            file.whole.remove(CURRENT);
        }
    }
}

/// The host agent's kubeconfig with our names, for itself.
pub(super) fn renamed(own: &str, context: &str) -> Result<String, KubeconfigError> {
    let mut files = [UserFile::parse(PathBuf::new(), None)?];
    add(&mut files, &Own::parse(own)?, context, true)?;
    files[0].text()
}

fn current(files: &[UserFile]) -> Option<&str> {
    files.iter().find_map(UserFile::current)
}

/// Read as kubectl does, in YAML 1.1, so that the user's own `yes` is written back as what it meant. The parser's own
/// message would quote the text, which holds keys.
fn parse(text: &str) -> Result<Mapping, String> {
    match serde_saphyr::from_str(text) {
        Ok(Value::Mapping(mapping)) => Ok(mapping),
        Ok(Value::Null) => Ok(Mapping::new()),
        Ok(_) => Err("it is no mapping".to_owned()),
        Err(error) => {
            let place = error.location().map_or_else(String::new, |at| format!(" (line {})", at.line()));
            Err(format!("it is no YAML{place}"))
        }
    }
}

fn entries<'a>(whole: &'a Mapping, list: &str) -> &'a [Value] {
    whole.get(list).and_then(Value::as_sequence).map_or(&[], Vec::as_slice)
}

fn name(entry: &Value) -> Option<&str> {
    entry.get("name")?.as_str()
}
