//! The papers say what the programs do: every error id of the code stands in `docs/troubleshooting.md` and the other
//! way round, and every `k8sctl` command in a paper or in an error's next step is one that the command line takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use ctl::cli::Cli;

/// First words of the ids of all rooms.
const FAMILIES: [&str; 15] = [
    "AUTH",
    "BUNDLE",
    "CLUSTER",
    "EVENT",
    "HOST",
    "IMAGE",
    "JOIN",
    "KUBEADM",
    "KUBERNETES",
    "LIBVIRT",
    "NODE",
    "OPERATION",
    "PLAN",
    "PLUGIN",
    "SPEC",
];

fn root() -> PathBuf {
    let ours = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests"));
    ours.parent().expect("the workspace").to_owned()
}

fn files(dir: &Path, suffix: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            // Tests, examples and what cargo or git keep are no part of the programs.
            let skipped = ["tests", "examples", "benches", "target", ".git"];
            if !skipped.iter().any(|skip| name == *skip) {
                files(&path, suffix, found);
            }
        } else if name.to_string_lossy().ends_with(suffix)
            && !["tests.rs", "fake.rs"].iter().any(|t| name == *t)
        {
            found.push(path);
        }
    }
}

/// The code of all programs, without the tests in it, by file.
fn sources() -> BTreeMap<PathBuf, String> {
    let mut paths = Vec::new();
    for room in ["proto", "host-agent", "node-agent", "ctl", "plugins"] {
        files(&root().join(room), ".rs", &mut paths);
    }
    let text = |path: &PathBuf| fs::read_to_string(path).expect("a source");
    paths.iter().map(|path| (path.clone(), program_part(&text(path)).to_owned())).collect()
}

/// What stands before the tests of a file; tests in a file of their own are not in it.
fn program_part(text: &str) -> &str {
    let opens_tests = |at: &(usize, &str)| {
        let item = text[at.0..].lines().nth(1).unwrap_or_default();
        item.ends_with("mod tests {")
    };
    let end = text.match_indices("#[cfg(test)]").find(opens_tests).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

fn papers() -> BTreeMap<PathBuf, String> {
    let here = fs::read_dir(root()).expect("a directory").flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = here.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    assert!(paths.len() > 4, "the papers at the root were not found: {paths:?}");
    files(&root().join("docs"), ".md", &mut paths);
    paths.iter().map(|path| (path.clone(), fs::read_to_string(path).expect("a paper"))).collect()
}

/// Whether this is an id and nothing else.
fn is_id(text: &str) -> bool {
    let words: Vec<&str> = text.split('-').collect();
    let is_word =
        |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    words.len() > 1 && FAMILIES.contains(&words[0]) && words.iter().all(is_word)
}

/// Every id that the programs can print: a string that is one, or one that is printed behind `error `.
fn ids_of_the_code() -> BTreeMap<String, PathBuf> {
    let mut ids = BTreeMap::new();
    for (path, text) in sources() {
        let quoted = text.split('"').filter(|part| is_id(part));
        let printed =
            text.split("\"error ").skip(1).filter_map(|rest| rest.split(':').next()).filter(|id| is_id(id));
        for id in quoted.chain(printed) {
            ids.insert(id.to_owned(), path.clone());
        }
    }
    ids
}

/// Ids in the first cells of a page's tables.
fn ids_of_the_page(text: &str) -> BTreeSet<String> {
    rows_of_the_page(text).into_iter().collect()
}

/// The same, as often as they stand there.
fn rows_of_the_page(text: &str) -> Vec<String> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    cells
        .flat_map(|cell| cell.split(", "))
        .map(|id| id.trim_matches('`'))
        .filter(|id| is_id(id))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_error_id_is_explained_and_every_explained_one_exists() {
    let code = ids_of_the_code();
    // Mistakes in the cluster file have a page of their own, with a test of its own.
    let elsewhere: BTreeSet<&str> = k8sctl_types::spec::IDS.iter().map(|(id, _)| *id).collect();
    let page = papers().remove(&root().join("docs/troubleshooting.md")).expect("the page");
    let explained = ids_of_the_page(&page);
    assert!(code.len() > 80, "the sources were not found: {code:?}");
    let missing: Vec<_> =
        code.iter().filter(|(id, _)| !explained.contains(*id) && !elsewhere.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "not in docs/troubleshooting.md: {missing:#?}");
    let invented: Vec<_> = explained.iter().filter(|id| !code.contains_key(*id)).collect();
    assert!(invented.is_empty(), "in docs/troubleshooting.md, but in no program: {invented:?}");
}

#[test]
fn other_pages_name_only_ids_that_exist() {
    let code = ids_of_the_code();
    let known =
        |id: &String| code.contains_key(id) || k8sctl_types::spec::IDS.iter().any(|(known, _)| known == id);
    for (path, text) in papers() {
        let strange: Vec<_> = ids_of_the_page(&text).into_iter().filter(|id| !known(id)).collect();
        assert!(strange.is_empty(), "{}: {strange:?}", path.display());
    }
}

#[test]
fn a_rooms_own_page_has_all_of_its_ids_and_no_page_has_one_twice() {
    let (code, pages) = (ids_of_the_code(), papers());
    for (page, families) in
        [("bundles-and-images", &["BUNDLE-", "IMAGE-"][..]), ("configuration", &["SPEC-"])]
    {
        let text = &pages[&root().join(format!("docs/{page}.md"))];
        let there = ids_of_the_page(text);
        let of_room = |id: &&String| families.iter().any(|family| id.starts_with(family));
        let missing: Vec<_> = code.keys().filter(of_room).filter(|id| !there.contains(*id)).collect();
        assert!(missing.is_empty(), "not in docs/{page}.md: {missing:?}");
    }
    for (path, text) in pages {
        let mut rows = rows_of_the_page(&text);
        rows.sort();
        let twice: Vec<_> = rows.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
        assert!(twice.is_empty(), "{}: {twice:?}", path.display());
    }
}

/// A command in a text: the words, and whether they must be complete.
struct Command {
    words: String,
    complete: bool,
}

/// Commands of a paper: lines of code blocks, and code in the text. In a table or a block a command is there to be
/// typed; in a sentence it may only be named.
fn commands(paper: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    for (number, block) in paper.split("```").enumerate() {
        if number % 2 == 1 {
            let lines = block.lines().map(|line| line.strip_prefix("$ ").unwrap_or(line));
            let typed = lines.filter(|line| line.starts_with("k8sctl "));
            commands.extend(typed.map(|line| Command { words: line.to_owned(), complete: true }));
            continue;
        }
        // A sentence may break within code; a row of a table may not.
        let (rows, prose): (Vec<&str>, Vec<&str>) = block.lines().partition(|line| line.starts_with('|'));
        let spans = |text: &str, complete: bool| -> Vec<Command> {
            let code = text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("k8sctl "));
            code.map(|code| Command { words: code.replace("\\|", "|"), complete }).collect()
        };
        commands.extend(rows.iter().flat_map(|row| spans(row, true)));
        for paragraph in prose.join("\n").split("\n\n") {
            commands.extend(spans(&paragraph.replace('\n', " "), false));
        }
    }
    commands
}

/// Next steps in the code: `{…}` stands for one word.
fn commands_of_the_code(source: &str) -> Vec<Command> {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let spans = lines.clone().flat_map(|line| line.split('`').skip(1).step_by(2));
    let spans = spans.filter(|code| code.starts_with("k8sctl "));
    let code = spans.chain(lines.flat_map(plain_commands)).filter(|code| !code.contains('…'));
    code.map(|code| Command { words: with_words_for_braces(code), complete: false }).collect()
}

/// Commands without backticks: behind a colon, a comma or an "or"; or a string that begins as one.
fn plain_commands(line: &str) -> Vec<&str> {
    let command = Cli::full_command();
    let verbs = command.get_subcommands().map(|verb| (format!("k8sctl {}", verb.get_name()), verb));
    let verbs: Vec<_> = verbs.map(|(words, verb)| (words, verb.has_subcommands())).collect();
    // A verb with verbs of its own has one behind it: else it is a name that begins like a command.
    let begins = |command: &str, (words, has_more): &(String, bool)| {
        let rest = command.strip_prefix(words.as_str()).map(str::trim_start);
        rest.is_some_and(|rest| !has_more || !rest.starts_with(char::is_uppercase))
    };
    let found = line.match_indices("k8sctl ").filter_map(|(at, _)| {
        let (before, command) = (line[..at].trim_end(), &line[at..]);
        let is_behind =
            [":", ",", " or"].iter().any(|end| before.ends_with(end)) && line[..at].ends_with(' ');
        // Other strings begin with our name, too.
        let is_string = before.ends_with('"') && verbs.iter().any(|verb| begins(command, verb));
        let end = command.find(['"', ',', ';', '`', '\\']).unwrap_or(command.len());
        (is_behind || is_string).then(|| command[..end].trim_end().trim_end_matches('.'))
    });
    found.collect()
}

fn with_words_for_braces(text: &str) -> String {
    let mut parts = text.split('{');
    let first = parts.next().unwrap_or_default().to_owned();
    // A source is one that the parser knows; for every other argument any word will do.
    parts.fold(first, |all, part| all + "kubelet" + part.split_once('}').map_or("", |(_, rest)| rest))
}

fn parse(command: &Command) -> Result<(), String> {
    let words = command.words.split(" #").next().unwrap_or_default().split_whitespace();
    match Cli::full_command().try_get_matches_from(words) {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                if !command.complete =>
            {
                Ok(())
            }
            _ => Err(format!("{}: {error}", command.words)),
        },
    }
}

/// Parses all of them and tells of each that is refused.
fn all_are_taken(texts: BTreeMap<PathBuf, String>, commands: fn(&str) -> Vec<Command>) {
    let found: Vec<_> = texts
        .iter()
        .flat_map(|(path, text)| commands(text).into_iter().map(move |one| (path, one)))
        .collect();
    assert!(found.len() > 30, "only {} commands were found", found.len());
    let refused: Vec<_> = found
        .iter()
        .filter_map(|(path, command)| Some(format!("{}: {}", path.display(), parse(command).err()?)))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn every_command_in_the_papers_is_taken() {
    all_are_taken(papers(), commands);
}

#[test]
fn every_next_step_is_taken() {
    all_are_taken(sources(), commands_of_the_code);
}

#[test]
fn commands_are_found_and_wrong_ones_noticed() {
    let paper = "See `k8sctl\nevents -f`, `k8sctl bundle verify`.\n\n```\n$ k8sctl status -w\n k8sctl ──gRPC\n```\n| x | `k8sctl bundle verify` |\n";
    let found = commands(paper);
    let words: Vec<_> = found.iter().map(|command| command.words.as_str()).collect();
    let verify = "k8sctl bundle verify";
    assert_eq!(words, ["k8sctl events -f", verify, "k8sctl status -w", verify]);
    let taken: Vec<_> = found.iter().map(|command| parse(command).is_ok()).collect();
    // Naming a verb in a sentence is well; a table must say all of it.
    assert_eq!(taken, [true, true, true, false]);
    let wrong = Command { words: "k8sctl status --wach".to_owned(), complete: false };
    assert!(parse(&wrong).is_err());

    for (line, found) in [
        (r#"let next = "get one with: k8sctl bundle fetch";"#, &["k8sctl bundle fetch"][..]),
        (
            r#""watch it with: k8sctl status -w, or k8sctl events -f""#,
            &["k8sctl status -w", "k8sctl events -f"],
        ),
        (r#"format!("k8sctl down {name}")"#, &["k8sctl down {name}"]),
        (r#"format!("k8sctl node describe {name}")"#, &["k8sctl node describe {name}"]),
        (r#"format!("k8sctl node CA {cluster_id}")"#, &[]),
        (r#""it is neither beside k8sctl nor on the PATH""#, &[]),
        (r#""a daemon: `k8sctl status` shows it""#, &[]),
    ] {
        assert_eq!(plain_commands(line), found, "{line}");
    }
}
