use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use serde_yaml_ng::Value;

use super::merge::{Own, UserFile};
use super::*;

const OURS: &str = "k8s-myhome-home";
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

/// Adds our entries to files with these texts; `-` stands for one that is not there.
fn added(texts: &[&str], force: bool) -> (Vec<Value>, bool) {
    let mut files: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let text = Some(*text).filter(|text| *text != "-");
            UserFile::parse(PathBuf::from(index.to_string()), text).expect("a kubeconfig")
        })
        .collect();
    let own = Own::parse(OWN).expect("a kubeconfig");
    let added = merge::add(&mut files, &own, OURS, force).expect("merges");
    let texts = files.iter().map(|file| value(&file.text().expect("YAML"))).collect();
    (texts, added.current)
}

fn add_one(text: &str, force: bool) -> (Value, bool) {
    let (mut files, current) = added(&[text], force);
    (files.remove(0), current)
}

#[test]
fn others_stay_and_so_does_the_current_context() {
    let (merged, current) = add_one(THEIRS, false);
    let theirs = value(THEIRS);
    assert!(!current);
    assert_eq!(merged["current-context"], "work");
    for key in ["clusters", "contexts", "users"] {
        assert_eq!(merged[key][0], theirs[key][0]);
    }
    assert_eq!(merged["preferences"], theirs["preferences"]);
    assert_eq!(merged["contexts"][1]["context"]["cluster"], OURS);
    assert_eq!(merged["clusters"][1]["cluster"]["server"], "https://192.168.122.10:6443");
}

/// kubectl reads YAML 1.1, in which these texts are none without their quotes, and `yes` is no text.
#[test]
fn what_is_a_text_for_kubectl_stays_one() {
    let theirs = "contexts: [{name: 'no', context: {cluster: '1:20', user: \"on\", namespace: \"y\"}}]
users: [{name: \"on\", user: {token: \"1_000\", password: 0o7}}]
clusters: [{name: '1:20', cluster: {server: https://work.example, insecure-skip-tls-verify: yes}}]
";
    let mut file = UserFile::parse(PathBuf::from("config"), Some(theirs)).expect("a kubeconfig");
    let own = Own::parse(OWN).expect("a kubeconfig");
    merge::add(std::slice::from_mut(&mut file), &own, OURS, false).expect("merges");
    let text = file.text().expect("YAML");
    for line in [
        "name: \"no\"",
        "cluster: \"1:20\"",
        "user: \"on\"",
        "namespace: \"y\"",
        "token: \"1_000\"",
        "password: 7",
        "server: https://work.example",
        "insecure-skip-tls-verify: true",
        "name: k8s-myhome-home",
    ] {
        let has = text.lines().any(|one| one.trim_start_matches(['-', ' ']) == line);
        assert!(has, "{line} is not in:\n{text}");
    }
}

#[test]
fn merging_twice_is_merging_once() {
    let (once, _) = add_one(THEIRS, false);
    let text = serde_yaml_ng::to_string(&once).expect("YAML");
    assert_eq!(add_one(&text, false).0, once);
}

#[test]
fn an_empty_or_dead_current_context_is_replaced() {
    assert!(add_one("", false).1);
    assert!(add_one("current-context: ''", false).1);
    assert!(add_one("current-context: gone\ncontexts: null", false).1);
    assert!(add_one(THEIRS, true).1);
}

#[test]
fn what_is_current_is_judged_over_all_files() {
    // The context is in another file than the choice of it.
    for texts in [["current-context: work", THEIRS], [&THEIRS.replace("current-context: work", ""), ""]] {
        let (files, current) = added(&[texts[0], &format!("{}\n", texts[1])], false);
        let is_theirs = texts[1] == THEIRS;
        assert_eq!((files[0]["current-context"] == *OURS, current), (!is_theirs, !is_theirs));
    }
    // A file that does not say is passed over, and so is one that is not there.
    let (files, current) = added(&["-", "kind: Config", THEIRS], false);
    assert!(!current && files[1]["current-context"].is_null(), "{files:?}");
    assert_eq!(files[1]["contexts"][0]["name"], OURS);
    // The first that says counts; a dead one is replaced where it counts.
    let (files, current) = added(&["current-context: gone", THEIRS], false);
    assert!(current && files[0]["current-context"] == OURS, "{files:?}");
    assert_eq!(files[1], value(THEIRS));
}

#[test]
fn entries_are_replaced_where_they_are_and_the_users_own_keys_stay() {
    let mut before = add_one("", false).0;
    before["contexts"][0]["context"]["namespace"] = "dev".into();
    before["contexts"][0]["context"]["cluster"] = "else".into();
    before["users"][0]["user"] = value("{token: old}");
    let before = serde_yaml_ng::to_string(&before).expect("YAML");
    let (files, current) = added(&[THEIRS, &before], false);
    assert!(!current);
    assert_eq!(files[0], value(THEIRS));
    let context = &files[1]["contexts"][0]["context"];
    let expected = value("{cluster: k8s-myhome-home, user: k8s-myhome-home, namespace: dev}");
    assert_eq!(*context, expected);
    assert_eq!(files[1]["users"][0]["user"], value("{token: t}"));
}

#[test]
fn what_is_no_kubeconfig_is_refused_without_quoting_it() {
    let parse = |text| UserFile::parse(PathBuf::from("config"), Some(text));
    let error = parse("users: [{token: SECRET").expect_err("broken").to_string();
    assert!(!error.contains("SECRET"), "{error}");
    assert!(parse("- a list").is_err());
}

fn config(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("writes");
    path
}

#[tokio::test]
async fn the_file_is_private_and_a_link_stays_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let (real, link) = (config(dir.path(), "real", THEIRS), dir.path().join("link"));
    std::os::unix::fs::symlink(&real, &link).expect("links");
    let installed = install_in(std::slice::from_ref(&link), OWN, OURS, false).await.expect("merges");
    assert_eq!((installed.path, installed.current), (link.clone(), false));
    assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
    assert_eq!(fs::metadata(&real).expect("is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 2);
}

/// Such as of dotfiles that are not checked out in full.
#[tokio::test]
async fn a_link_to_what_is_not_there_yet_stays_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let (link, second) = (dir.path().join("link"), dir.path().join("second"));
    // Each from where it is itself.
    std::os::unix::fs::symlink("dots/second", &link).expect("links");
    fs::create_dir(dir.path().join("dots")).expect("makes");
    std::os::unix::fs::symlink("../kube/config", dir.path().join("dots/second")).expect("links");
    std::os::unix::fs::symlink("second", &second).expect("links");
    install_in(std::slice::from_ref(&link), OWN, OURS, false).await.expect("merges");
    assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
    let made = fs::symlink_metadata(dir.path().join("kube/config")).expect("is there");
    assert!(made.is_file() && made.permissions().mode() & 0o777 == 0o600, "{made:?}");
    assert!(fs::read_to_string(&link).expect("reads").contains(OURS));
    let error = install_in(&[second], OWN, OURS, false).await.expect_err("it leads to itself");
    assert!(error.to_string().starts_with("cannot read "), "{error}");
}

#[tokio::test]
async fn a_file_that_is_read_only_is_not_replaced_and_no_other_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let ours = crate::yaml::to_string(&add_one(THEIRS, false).0).expect("YAML");
    let paths = ["first", "second"].map(|name| config(dir.path(), name, &ours));
    fs::set_permissions(&paths[1], fs::Permissions::from_mode(0o444)).expect("its owner may");
    let removed = remove_in(&paths, OURS).await;
    if rustix::process::geteuid().is_root() {
        assert_eq!(removed.expect("root may write everything"), paths);
        return;
    }
    let error = removed.expect_err("it is read-only");
    assert_eq!(error.to_string(), format!("cannot write {}", paths[1].display()));
    let next = error.into_failure(&Source::default(), "k8sctl down").next_step;
    assert_eq!(
        next,
        "make it yours to read and write, or name another file in KUBECONFIG, then run: k8sctl down"
    );
    for path in paths {
        assert_eq!(fs::read_to_string(path).expect("reads"), ours);
    }
}

/// `KUBECONFIG=/dev/null` is how people keep a program's hands off their own.
#[tokio::test]
async fn what_is_no_file_is_not_replaced_by_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let device = dir.path().join("null");
    std::os::unix::fs::symlink("/dev/null", &device).expect("links");
    for path in [device, dir.path().to_owned()] {
        let error = install_in(&[path], OWN, OURS, false).await.expect_err("is refused");
        assert!(k8sctl_rpc::chain(&error).to_string().contains("no regular file"), "{error:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 1);
}

#[tokio::test]
async fn a_file_keeps_its_owner_and_a_new_one_has_that_of_its_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = dir.path().join("home");
    fs::create_dir(&home).expect("makes");
    let old = config(&home, "old", THEIRS);
    let new = home.join("new/kube/config");
    let mut expected = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if expected.0 == 0 {
        // Only root can make another's home, and only root can lock its owner out.
        expected = (4711, 4712);
        chown(&home, Some(expected.0), Some(expected.1)).expect("root may");
        chown(&old, Some(expected.0), Some(expected.1)).expect("root may");
    }
    for path in [&old, &new] {
        install_in(std::slice::from_ref(path), OWN, OURS, false).await.expect("merges");
    }
    for path in [old.as_path(), new.as_path(), &home.join("new"), &home.join("new/kube")] {
        let data = fs::metadata(path).expect("is there");
        assert_eq!((data.uid(), data.gid()), expected, "{}", path.display());
    }
    assert_eq!(fs::metadata(&new).expect("is there").permissions().mode() & 0o777, 0o600);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_left_behind_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), "config", THEIRS);
    let lock = config(dir.path(), "config.lock", "");
    let error = install_in(std::slice::from_ref(&path), OWN, OURS, false).await.expect_err("it is locked");
    let failure = error.into_failure(&Source::default(), "k8sctl kubeconfig");
    let next = format!("when no kubectl runs, remove {}, then run: k8sctl kubeconfig", lock.display());
    assert_eq!((failure.id.as_str(), failure.next_step), ("HOST-KUBECONFIG", next));
    assert_eq!(fs::read_to_string(&path).expect("reads"), THEIRS);
    assert!(lock.exists(), "it is not ours to remove");
}

#[tokio::test]
async fn our_entries_are_removed_from_every_file_and_nothing_else_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second) = (config(dir.path(), "first", THEIRS), config(dir.path(), "second", ""));
    let missing = dir.path().join("missing");
    install_in(std::slice::from_ref(&first), OWN, OURS, true).await.expect("merges");
    install_in(std::slice::from_ref(&second), OWN, OURS, true).await.expect("merges");
    let files = [missing.clone(), first.clone(), second.clone()];
    assert_eq!(remove_in(&files, OURS).await.expect("removes"), [first.clone(), second.clone()]);
    let mut theirs = value(THEIRS);
    theirs.as_mapping_mut().expect("a mapping").remove("current-context");
    assert_eq!(value(&fs::read_to_string(&first).expect("reads")), theirs);
    assert!(!fs::read_to_string(&second).expect("reads").contains(OURS));
    assert!(!missing.exists());
    // Again, there is nothing.
    assert_eq!(remove_in(&files, OURS).await.expect("removes"), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn another_current_context_survives_the_removal() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = config(dir.path(), "config", THEIRS);
    install_in(std::slice::from_ref(&path), OWN, OURS, false).await.expect("merges");
    remove_in(std::slice::from_ref(&path), OURS).await.expect("removes");
    assert_eq!(value(&fs::read_to_string(&path).expect("reads")), value(THEIRS));
}
