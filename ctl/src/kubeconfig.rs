//! Merging a cluster's kubeconfig into the user's: under a name of our own, leaving all others alone, atomically and
//! readable by the owner only. [`merge`] decides, [`install`] writes.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_types::failure::Failure;
use serde_yaml_ng::{Mapping, Value};
use tokio::time::{Instant, sleep};

/// How long another program may hold the file.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// Name of the context, the cluster and the user of a cluster.
pub fn context_name(cluster: &str) -> String {
    format!("k8s-myhome-{cluster}")
}

/// A kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// No kubeconfig.
    #[error("it is no kubeconfig: {0}")]
    Parse(String),
    /// Another program holds its lock.
    #[error("{} is there: another program holds it, or left it behind", .0.display())]
    Locked(PathBuf),
    /// It cannot be read or written.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// Read, write, …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Installed {
    /// The file.
    pub path: PathBuf,
    /// Name of the context.
    pub context: String,
    /// It is the current context.
    pub current: bool,
}

/// The host agent's kubeconfig with our names, for itself.
pub fn renamed(own: &str, context: &str) -> Result<String, KubeconfigError> {
    merge("", own, context, true).map(|(text, _)| text)
}

/// The user's kubeconfig with the cluster's entries added or replaced; whether it is the current context then.
/// Another current context stays, unless `force_context`.
pub fn merge(
    theirs: &str,
    own: &str,
    context: &str,
    force_context: bool,
) -> Result<(String, bool), KubeconfigError> {
    let own = parse(own)?;
    let cluster = first(&own, "clusters", "cluster")?;
    let user = first(&own, "users", "user")?;
    let mut whole = if theirs.trim().is_empty() { Mapping::new() } else { parse(theirs)? };
    for (key, word) in [("apiVersion", "v1"), ("kind", "Config")] {
        whole.entry(key.into()).or_insert_with(|| word.into());
    }
    let reference: Mapping =
        [("cluster", context), ("user", context)].map(|(k, v)| (k.into(), v.into())).into_iter().collect();
    put(&mut whole, "clusters", context, "cluster", cluster)?;
    put(&mut whole, "contexts", context, "context", Value::Mapping(reference))?;
    put(&mut whole, "users", context, "user", user)?;
    let current = whole.get("current-context").and_then(Value::as_str).unwrap_or_default();
    let is_dead = !list(&whole, "contexts").iter().any(|entry| name(entry) == Some(current));
    if force_context || is_dead {
        whole.insert("current-context".into(), context.into());
    }
    let is_current = whole.get("current-context").and_then(Value::as_str) == Some(context);
    let text = serde_yaml_ng::to_string(&whole).map_err(|error| KubeconfigError::Parse(error.to_string()))?;
    Ok((text, is_current))
}

fn parse(text: &str) -> Result<Mapping, KubeconfigError> {
    // The parser's message would quote the text, which holds keys.
    let place = |error: &serde_yaml_ng::Error| {
        error.location().map_or_else(String::new, |at| format!(" (line {})", at.line()))
    };
    match serde_yaml_ng::from_str(text) {
        Ok(Value::Mapping(mapping)) => Ok(mapping),
        Ok(Value::Null) => Ok(Mapping::new()),
        Ok(_) => Err(KubeconfigError::Parse("it is no mapping".to_owned())),
        Err(error) => Err(KubeconfigError::Parse(format!("it is no YAML{}", place(&error)))),
    }
}

fn list<'a>(whole: &'a Mapping, key: &str) -> &'a [Value] {
    whole.get(key).and_then(Value::as_sequence).map_or(&[], Vec::as_slice)
}

fn name(entry: &Value) -> Option<&str> {
    entry.get("name")?.as_str()
}

fn first(whole: &Mapping, key: &str, inner: &str) -> Result<Value, KubeconfigError> {
    let entry = list(whole, key).first().and_then(|entry| entry.get(inner)).cloned();
    entry.ok_or_else(|| KubeconfigError::Parse(format!("it has no {key}")))
}

fn put(
    whole: &mut Mapping,
    key: &str,
    named: &str,
    inner: &str,
    value: Value,
) -> Result<(), KubeconfigError> {
    let entry: Mapping =
        [(Value::from("name"), Value::from(named)), (inner.into(), value)].into_iter().collect();
    let slot = whole.entry(key.into()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Sequence(Vec::new());
    }
    let entries =
        slot.as_sequence_mut().ok_or_else(|| KubeconfigError::Parse(format!("{key} is no list")))?;
    match entries.iter_mut().find(|entry| name(entry) == Some(named)) {
        Some(old) => *old = Value::Mapping(entry),
        None => entries.push(Value::Mapping(entry)),
    }
    Ok(())
}

/// The file that `kubectl` would write to: of `KUBECONFIG` the first that exists, else the last; else
/// `~/.kube/config`.
pub fn user_file() -> Result<PathBuf, Failure> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let listed: Vec<_> = std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    if let Some(path) = listed.iter().find(|path| path.exists()).or_else(|| listed.last()) {
        return Ok(path.clone());
    }
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    home.map(|home| home.join(".kube").join("config")).ok_or_else(|| {
        let reason = "neither KUBECONFIG nor HOME is set";
        Failure::new(
            "HOST-KUBECONFIG",
            "kubeconfig",
            reason,
            "set KUBECONFIG, or print it with: k8sctl kubeconfig --print",
        )
    })
}

/// Merges the cluster's kubeconfig into the user's file.
pub async fn install(own: &str, cluster: &str, force_context: bool) -> Result<Installed, Failure> {
    let path = user_file()?;
    install_at(&path, own, cluster, force_context).await.map_err(|error| {
        let next = "mend or move the file, then run: k8sctl kubeconfig";
        Failure::new(
            "HOST-KUBECONFIG",
            format!("file {}", path.display()),
            k8sctl_rpc::chain(&error).to_string(),
            next,
        )
    })
}

async fn install_at(
    path: &Path,
    own: &str,
    cluster: &str,
    force: bool,
) -> Result<Installed, KubeconfigError> {
    // A link stays a link.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let io_error = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| KubeconfigError::Io { doing, path, source }
    };
    let parent = real.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(io_error("make", parent))?;
    let _lock = Lock::take(&real).await?;
    let theirs = match fs::read_to_string(&real) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(io_error("read", &real)(error)),
    };
    let context = context_name(cluster);
    let (text, current) = merge(&theirs, own, &context, force)?;
    write(&real, parent, text.as_bytes()).map_err(io_error("write", &real))?;
    Ok(Installed { path: path.to_owned(), context, current })
}

/// All or nothing; the file holds a key, so it is never readable by others.
fn write(path: &Path, parent: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".kubeconfig-").tempfile_in(parent)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// `kubectl`'s own way to lock the file: a second one named `….lock`.
#[derive(Debug)]
struct Lock(PathBuf);

impl Lock {
    async fn take(path: &Path) -> Result<Self, KubeconfigError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        let end = Instant::now() + LOCK_DEADLINE;
        loop {
            match fs::File::options().write(true).create_new(true).mode(0o600).open(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(KubeconfigError::Io { doing: "lock", path: lock, source: error });
                }
                Err(_) if Instant::now() >= end => return Err(KubeconfigError::Locked(lock)),
                Err(_) => sleep(LOCK_INTERVAL).await,
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What cannot be removed is reported to the next one that wants it.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "{apiVersion: v1, kind: Config, current-context: a,
        clusters: [{name: c, cluster: {server: 'https://192.168.122.10:6443'}}],
        contexts: [{name: a, context: {cluster: c, user: u}}], users: [{name: u, user: {token: t}}]}";
    const THEIRS: &str = "apiVersion: v1
kind: Config
current-context: work
preferences: {colors: true}
clusters: [{name: work, cluster: {server: https://work.example}}]
contexts: [{name: work, context: {cluster: work, user: me, namespace: x}}]
users: [{name: me, user: {exec: {command: login}}}]
";

    fn value(text: &str) -> Value {
        serde_yaml_ng::from_str(text).expect("YAML")
    }

    #[test]
    fn others_stay_and_so_does_the_current_context() {
        let (text, current) = merge(THEIRS, OWN, "k8s-myhome-home", false).expect("merges");
        let (merged, theirs) = (value(&text), value(THEIRS));
        assert!(!current);
        assert_eq!(merged["current-context"], "work");
        for key in ["clusters", "contexts", "users"] {
            assert_eq!(merged[key][0], theirs[key][0]);
        }
        assert_eq!(merged["preferences"], theirs["preferences"]);
        assert_eq!(merged["contexts"][1]["context"]["cluster"], "k8s-myhome-home");
        assert_eq!(merged["clusters"][1]["cluster"]["server"], "https://192.168.122.10:6443");
    }

    #[test]
    fn merging_twice_is_merging_once() {
        let (once, _) = merge(THEIRS, OWN, "k8s-myhome-home", false).expect("merges");
        assert_eq!(merge(&once, OWN, "k8s-myhome-home", false).expect("merges").0, once);
    }

    #[test]
    fn an_empty_or_dead_current_context_is_replaced() {
        assert!(merge("", OWN, "k", false).expect("merges").1);
        assert!(merge("current-context: gone\ncontexts: null", OWN, "k", false).expect("merges").1);
        assert!(merge(THEIRS, OWN, "k", true).expect("merges").1);
    }

    #[test]
    fn what_is_no_kubeconfig_is_refused_without_quoting_it() {
        let error = merge("users: [{token: SECRET", OWN, "k", false).expect_err("broken").to_string();
        assert!(!error.contains("SECRET"), "{error}");
        assert!(merge("- a list", OWN, "k", false).is_err());
    }

    #[tokio::test]
    async fn the_file_is_private_and_a_link_stays_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, THEIRS).expect("writes");
        std::os::unix::fs::symlink(&real, &link).expect("links");
        install_at(&link, OWN, "home", false).await.expect("merges");
        assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
        assert_eq!(fs::metadata(&real).expect("is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 2);
    }
}
