//! The containers of pods, found by their directories below `/var/log/pods`: `NAMESPACE_POD_UID/CONTAINER`. So they are
//! read when neither the kubelet nor the Kubernetes API answers, and of pods that are gone as long as their files are.
//!
//! Everything here blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::LogError;
use super::container::{Container, Pass, Read};
use super::cursor::FilePosition;
use super::wanted::{Containers, PodName};

/// Where to begin.
#[derive(Clone, Copy, Debug)]
pub enum Begin<'a> {
    /// With everything.
    First,
    /// With at least so many lines that pass, before the end.
    Last(u64),
    /// Behind these places; what is not among them was not there.
    Behind(&'a BTreeMap<String, FilePosition>),
}

/// A directory of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    /// `NAMESPACE_POD_UID/CONTAINER`.
    key: String,
    /// What its lines are said to be from.
    source: String,
}

/// One container of those that are read.
#[derive(Debug)]
pub struct Member {
    /// `NAMESPACE_POD_UID/CONTAINER`.
    pub key: String,
    /// What its lines are said to be from.
    pub source: String,
    /// Its files.
    pub container: Container,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Pods {
    dir: PathBuf,
    wanted: Vec<Containers>,
    /// In the order in which they were found.
    pub members: Vec<Member>,
    known: BTreeSet<String>,
}

impl Pods {
    /// Nothing is looked at yet.
    pub fn new(dir: PathBuf, wanted: Vec<Containers>) -> Self {
        Self { dir, wanted, members: Vec::new(), known: BTreeSet::new() }
    }

    /// Opens the containers that are there; with [`Begin::Last`] it says how many lines they have that pass.
    pub fn open(&mut self, begin: Begin<'_>, passes: impl Fn(&Read) -> bool) -> Result<u64, LogError> {
        let mut count = 0;
        for found in self.find()? {
            let dir = self.dir.join(&found.key);
            let opened = match begin {
                Begin::First => Ok(Container::new(dir)),
                Begin::Last(lines) => Container::tail(dir, lines, &passes).map(|(container, lines)| {
                    count += lines;
                    container
                }),
                Begin::Behind(places) => match places.get(&found.key) {
                    Some(position) => Container::resume(dir, *position),
                    None => Ok(Container::new(dir)),
                },
            };
            let opened = match opened {
                // The kubelet has just removed it, or its runtime is about to open another file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Ok(Container::new(self.dir.join(&found.key)))
                }
                opened => opened,
            };
            let container = opened.map_err(failed(&self.dir.join(&found.key)))?;
            self.add(found, container);
        }
        Ok(count)
    }

    /// Adds the containers that came since the last look; they are read from their first line.
    pub fn look(&mut self) -> Result<(), LogError> {
        for found in self.find()? {
            if !self.known.contains(&found.key) {
                let container = Container::new(self.dir.join(&found.key));
                self.add(found, container);
            }
        }
        Ok(())
    }

    fn add(&mut self, found: Found, container: Container) {
        self.known.insert(found.key.clone());
        self.members.push(Member { key: found.key, source: found.source, container });
    }

    /// Adds the next lines of one; `false` means: nothing more for now.
    pub fn read(&mut self, member: usize, pass: Pass, lines: &mut Vec<Read>) -> Result<bool, LogError> {
        let it = &mut self.members[member];
        match it.container.read(pass, lines) {
            // The kubelet has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.map_err(failed(&self.dir.join(&it.key))),
        }
    }

    /// What of the wanted is not there, in one line: the pod, or the container of a pod that is.
    pub fn unknown(&self, wanted: &Containers) -> Result<Option<String>, LogError> {
        let PodName::Whole(name) = &wanted.pod else { return Ok(None) };
        let mut containers = BTreeSet::new();
        let mut has_pod = false;
        for pod in pods(&self.dir)?.iter().filter(|pod| wanted.has_pod(&pod.namespace, &pod.name)) {
            has_pod = true;
            containers.extend(names(&self.dir.join(&pod.dir))?);
        }
        let pod = format!("pod {}/{name}", wanted.namespace);
        if !has_pod {
            return Ok(Some(format!("no {pod} has logs here")));
        }
        let Some(container) = wanted.container.as_ref().filter(|it| !containers.contains(*it)) else {
            return Ok(None);
        };
        let others = containers.into_iter().collect::<Vec<_>>().join(", ");
        Ok(Some(format!("{pod} has no container {container}; it has: {others}")))
    }

    fn find(&self) -> Result<Vec<Found>, LogError> {
        let mut all = BTreeMap::new();
        for pod in pods(&self.dir)? {
            let wanted: Vec<_> =
                self.wanted.iter().filter(|it| it.has_pod(&pod.namespace, &pod.name)).collect();
            if wanted.is_empty() {
                continue;
            }
            for container in names(&self.dir.join(&pod.dir))? {
                let Some(wanted) = wanted.iter().find(|it| it.has_container(&container)) else { continue };
                let source = wanted
                    .source
                    .map_or_else(|| format!("{}/{}/{container}", pod.namespace, pod.name), str::to_owned);
                all.insert(format!("{}/{container}", pod.dir), source);
            }
        }
        Ok(all.into_iter().map(|(key, source)| Found { key, source }).collect())
    }
}

struct Pod {
    dir: String,
    namespace: String,
    name: String,
}

/// Neither of the three words has an underscore.
fn pods(dir: &Path) -> Result<Vec<Pod>, LogError> {
    let pod = |dir: String| {
        let mut words = dir.splitn(3, '_');
        let (namespace, name) = (words.next()?.to_owned(), words.next()?.to_owned());
        words.next()?;
        Some(Pod { dir, namespace, name })
    };
    Ok(names(dir)?.into_iter().filter_map(pod).collect())
}

/// Names of the directories in a directory; of none where it is not there.
fn names(dir: &Path) -> Result<Vec<String>, LogError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed(dir))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

fn failed(dir: &Path) -> impl FnOnce(io::Error) -> LogError + use<> {
    let what = dir.display().to_string();
    move |source| LogError::Read { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for name in names {
            write(dir.path(), name);
        }
        dir
    }

    fn write(dir: &Path, name: &str) {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).expect("made");
        std::fs::write(path.join("0.log"), "2026-11-24T10:00:00Z stdout F x\n").expect("written");
    }

    fn containers(namespace: &str, pod: &str, container: Option<&str>) -> Containers {
        Containers {
            namespace: namespace.to_owned(),
            pod: PodName::Whole(pod.to_owned()),
            container: container.map(str::to_owned),
            source: None,
        }
    }

    fn sources(pods: &Pods) -> Vec<&str> {
        pods.members.iter().map(|member| member.source.as_str()).collect()
    }

    #[test]
    fn containers_are_found_by_pod_and_name_and_those_that_come_later_too() {
        let dir =
            written(&["default_web_1/app", "default_web_1/proxy", "default_web-2_2/app", "other_web_3/app"]);
        std::fs::write(dir.path().join("file"), "").expect("written");
        let mut pods = Pods::new(dir.path().to_owned(), vec![containers("default", "web", None)]);
        pods.open(Begin::First, |_| true).expect("opened");
        assert_eq!(sources(&pods), ["default/web/app", "default/web/proxy"]);
        // The same pod, made anew.
        write(dir.path(), "default_web_4/app");
        pods.look().expect("looked");
        pods.look().expect("looked");
        assert_eq!(sources(&pods), ["default/web/app", "default/web/proxy", "default/web/app"]);
        let mut lines = Vec::new();
        while pods.read(2, Pass::Whole, &mut lines).expect("read") {}
        assert_eq!(lines.len(), 1);
        std::fs::remove_dir_all(dir.path().join("default_web_4")).expect("removed");
        assert!(!pods.read(2, Pass::Whole, &mut lines).expect("it is gone"));
    }

    #[test]
    fn static_pods_have_their_own_source() {
        let dir = written(&[
            "kube-system_etcd-node-1_1/etcd",
            "kube-system_etcd-node-1_1/other",
            "a_etcd-x_2/etcd",
        ]);
        let wanted = Containers {
            namespace: "kube-system".to_owned(),
            pod: PodName::Beginning("etcd-"),
            container: Some("etcd".to_owned()),
            source: Some("etcd"),
        };
        let mut pods = Pods::new(dir.path().to_owned(), vec![wanted.clone()]);
        pods.open(Begin::First, |_| true).expect("opened");
        assert_eq!(sources(&pods), ["etcd"]);
        // On a worker it is no mistake to ask for it.
        let empty = Pods::new(PathBuf::from("/nonexistent"), vec![wanted.clone()]);
        assert_eq!(empty.unknown(&wanted).expect("looked"), None);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = written(&["default_web_1/app", "default_web_2/proxy"]);
        let pods = Pods::new(dir.path().to_owned(), Vec::new());
        let unknown = |pod: &str, container| {
            pods.unknown(&containers("default", pod, container)).expect("looked").unwrap_or_default()
        };
        assert_eq!(unknown("nosuch", Some("app")), "no pod default/nosuch has logs here");
        assert_eq!(unknown("web", Some("x")), "pod default/web has no container x; it has: app, proxy");
        assert_eq!((unknown("web", Some("app")), unknown("web", None)), (String::new(), String::new()));
    }

    #[test]
    fn the_last_lines_of_all_are_counted() {
        let dir = written(&["default_web_1/app", "default_web_1/proxy"]);
        let mut pods = Pods::new(dir.path().to_owned(), vec![containers("default", "web", None)]);
        assert_eq!(pods.open(Begin::Last(5), |_| true).expect("opened"), 2);
        let places = pods.members.iter().map(|it| (it.key.clone(), it.container.position())).collect();
        write(dir.path(), "default_web_9/app");
        let mut again = Pods::new(dir.path().to_owned(), vec![containers("default", "web", None)]);
        again.open(Begin::Behind(&places), |_| true).expect("opened");
        assert_eq!(again.members.len(), 3);
    }
}
