use std::path::PathBuf;

use plugin_package::Manifest;
use serde_json::json;

use super::*;

fn package(version: &str, sha256: &str) -> Package {
    let text = format!(
        "format = 1\nname = \"hello\"\nversion = \"{version}\"\nsummary = \"Nothing\"\nprotocol = [1]\n\
         [program]\nname = \"nothing\"\n"
    );
    let manifest = Manifest::parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let folder = PathBuf::from("/nowhere");
    Package { manifest, sha256: sha256.to_owned(), folder, trust: Trust::BuiltIn }
}

fn wanted(name: &str) -> PluginSpec {
    PluginSpec { name: name.to_owned(), config: json!({}), source: None }
}

fn of_spec(plugin: &str) -> Install {
    Install { origin: Origin::Spec, ..Install::ready(plugin, 1) }
}

#[test]
fn what_the_file_has_no_more_goes_and_what_a_command_added_stays() {
    let installs = [of_spec("gone"), of_spec("kept"), Install::ready("added", 1)];
    let mut proposal = SpecProposal::default();
    leave_or_delete(&[wanted("kept")], &installs, &mut proposal);
    let [change] = &proposal.changes[..] else { panic!("{:?}", proposal.changes) };
    assert_eq!((change.plugin.as_str(), change.action), ("gone", ProposedAction::Delete));
    assert!(change.destructive);
    assert_eq!(change.reason, "the file has it no more: 1.0.0, 1 object");
    assert_eq!(proposal.notices, ["added was added by a command and is not in the file; it stays"]);
}

#[test]
fn a_package_that_the_lock_does_not_have_is_told_with_both_digests() {
    let (old, new) = ("a".repeat(64), "b".repeat(64));
    let lock = LockFile { plugins: vec![LockedPlugin::of_package(&package("0.1.0", &old), "path")] };
    assert_eq!(lock_mismatch(&lock, &package("0.1.0", &old)), None);
    assert_eq!(lock_mismatch(&LockFile::default(), &package("0.1.0", &new)), None);
    let failure = lock_mismatch(&lock, &package("0.2.0", &new)).expect("they differ");
    assert_eq!(failure.id, "PLUGIN-LOCK");
    assert!(failure.reason.contains(&old) && failure.reason.contains(&new), "{failure}");
    assert!(failure.next_step.contains("plugin upgrade -f FILE hello"), "{failure:?}");
}

#[test]
fn a_change_says_from_what_to_what() {
    let package = package("0.2.0", &"b".repeat(64));
    let told = |install: Option<&Install>| describe(&package, install);
    assert_eq!(told(None), (ProposedAction::Create, "0.2.0 (in tree)".to_owned()));
    let (action, upgrade) = told(Some(&of_spec("hello")));
    assert_eq!((action, upgrade.as_str()), (ProposedAction::Update, "1.0.0 → 0.2.0 (in tree)"));
    let same = Install { package_sha256: "b".repeat(64), ..of_spec("hello") };
    assert!(told(Some(&same)).1.ends_with("with another config or other facts"));
    let failure = Some(Failure::new("PLUGIN-NOT-READY", "plugin hello", "why", "next"));
    let failed = Install { failure, ..same };
    assert!(told(Some(&failed)).1.ends_with("the last try failed with PLUGIN-NOT-READY"));
    // One of which nothing was ever applied is not there.
    let begun = Install { revision: 0, ..failed };
    assert_eq!(told(Some(&begun)).0, ProposedAction::Create);
}

#[test]
fn what_a_command_added_and_the_file_names_comes_to_be_the_files() {
    assert_eq!(owned(&of_spec("hello")), None);
    let (action, _, destructive) = owned(&Install::ready("hello", 1)).expect("it changes hands");
    assert_eq!((action, destructive), (ProposedAction::Update, false));
}
