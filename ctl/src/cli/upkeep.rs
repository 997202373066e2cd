//! What keeps an installation well: what `upgrade` and `support-bundle` take.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum as _, ValueHint};

use super::{named, parse_deadline};
use crate::output::Format;

/// `upgrade …`.
#[derive(Debug, Subcommand)]
pub enum UpgradeVerb {
    /// Give nodes the node agent that this host has, one after the other; one that gets no session goes back by itself
    Agents(UpgradeAgentsArgs),
}

/// `upgrade agents`.
#[derive(Args, Debug)]
pub struct UpgradeAgentsArgs {
    /// Names of nodes [default: all of the cluster]
    #[arg(value_name = "NODE", value_parser = named())]
    pub nodes: Vec<String>,
    /// Name of the cluster [default: the only one]
    #[arg(long, value_name = "NAME", value_parser = named())]
    pub cluster: Option<String>,
    /// Longest that a new agent may take until it has a session, like 90s
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = parse_deadline)]
    pub session_deadline: Duration,
}

/// `support-bundle`.
#[derive(Args, Debug)]
pub struct SupportBundleArgs {
    /// Name of the cluster [default: all of them]
    #[arg(value_parser = named())]
    pub name: Option<String>,
    /// The file to be made, also with -o; gzip where it ends in .gz or .tgz [default: k8sctl-support-TIME.tar.zst, here]
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Longest that it may take; what is missing by then is named in it
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = parse_deadline)]
    pub deadline: Duration,
    /// Lines of the logs of each node
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub lines: u64,
}

/// A command line on which `support-bundle -o FILE` and `plugin package -o FILE` are `--file FILE`: with other programs
/// `-o` names the file, and what is no format cannot be meant as one.
pub(super) fn with_file_for_output(
    arguments: Vec<OsString>,
    is_verb: impl Fn(&OsStr) -> bool,
) -> Vec<OsString> {
    // The first is the program.
    let verb = arguments.iter().skip(1).position(|word| is_verb(word)).map(|at| at + 1);
    let Some(end) = verb.and_then(|at| Some(at + makes_a_file(&arguments[at..])?)) else { return arguments };
    let mut words = arguments.into_iter();
    let mut meant: Vec<OsString> = words.by_ref().take(end).collect();
    while let Some(word) = words.next() {
        if word == "--" {
            meant.push(word);
            break;
        }
        let is_apart = word == "-o" || word == "--output";
        let value = if is_apart { words.next() } else { joined(&word) };
        match value {
            Some(file) if is_file(&file) => meant.extend([OsString::from("--file"), file]),
            Some(value) if is_apart => meant.extend([word, value]),
            _ => meant.push(word),
        }
    }
    meant.extend(words);
    meant
}

/// Of how many words a verb is that makes a file.
fn makes_a_file(words: &[OsString]) -> Option<usize> {
    match words {
        [verb, ..] if verb == "support-bundle" => Some(1),
        [verb, of, ..] if verb == "plugin" && of == "package" => Some(2),
        _ => None,
    }
}

/// The value in `-oVALUE`, `-o=VALUE` and `--output=VALUE`.
fn joined(word: &OsStr) -> Option<OsString> {
    let word = word.to_str()?;
    let value = word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o"))?;
    Some(value.strip_prefix('=').unwrap_or(value).into())
}

/// Neither a format, however it is written, nor the next flag. A file may have any name.
fn is_file(value: &OsStr) -> bool {
    let is_one = |text: &str| !text.starts_with('-') && Format::from_str(text, true).is_err();
    !value.is_empty() && value.to_str().is_none_or(is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_bundle_may_be_named_as_with_other_programs() {
        let meant = |line: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            let verbs = ["support-bundle", "logs", "plugin"];
            let words = with_file_for_output(words, |word| verbs.iter().any(|verb| word == *verb));
            words.join(OsStr::new(" ")).into_string().expect("text")
        };
        for file in ["-o b.tar.gz", "-ob.tar.gz", "-o=b.tar.gz", "--output b.tar.gz", "--output=b.tar.gz"] {
            let line = meant(&format!("k8sctl --socket s support-bundle home {file} --lines 5"));
            assert_eq!(line, "k8sctl --socket s support-bundle home --file b.tar.gz --lines 5");
        }
        let line = meant("k8sctl plugin package hello -o hello.tar.zst");
        assert_eq!(line, "k8sctl plugin package hello --file hello.tar.zst");
        for line in [
            "k8sctl plugin package hello -o json",
            "k8sctl plugin show hello -o x",
            "k8sctl support-bundle -o json -f x",
            "k8sctl support-bundle -oyaml",
            "k8sctl support-bundle --output=JSON",
            "k8sctl support-bundle -o",
            "k8sctl support-bundle -o --lines 5",
            "k8sctl support-bundle -- -o x",
            "k8sctl -o x support-bundle",
            "k8sctl logs --grep support-bundle -o x",
            "k8sctl -o x",
        ] {
            assert_eq!(meant(line), line);
        }
    }
}
