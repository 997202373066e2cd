//! Files that are small and want much: each is refused within a moment, in a report that a person can read.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use k8sctl_types::spec::{self, Diagnostic};

use crate::{HOME, diagnostics, id_of};

/// Far more than a debug build needs for a file of 1 MiB on a slow machine, far less than anything quadratic takes.
const MOMENT: Duration = Duration::from_secs(60);

fn refused(text: &str) -> Vec<Diagnostic> {
    assert!(text.len() <= spec::MAX_TEXT_BYTES, "{}", text.len());
    let begun = Instant::now();
    let found = spec::parse(text).expect_err("it is no cluster file");
    assert!(begun.elapsed() < MOMENT, "{:?}", begun.elapsed());
    assert!(found.len() <= 101, "{}", found.len());
    assert!(found.iter().map(|one| one.message.len() + one.field.len()).sum::<usize>() < 100_000);
    found
}

/// As many of these as go into a file, behind a beginning.
fn filled(beginning: &str, one: impl Fn(usize) -> String, end: &str) -> String {
    let mut text = beginning.to_owned();
    for number in 0.. {
        let next = one(number);
        if text.len() + next.len() + end.len() > spec::MAX_TEXT_BYTES {
            break;
        }
        text.push_str(&next);
    }
    text + end
}

fn pools(count: usize, of: usize) -> String {
    (0..count).fold(HOME.to_owned(), |mut text, number| {
        let _ = write!(
            text,
            "[[worker_pool]]\nname = \"p{number}\"\ncount = {of}\nfirst_ip = \"192.168.122.20\"\n"
        );
        text
    })
}

#[test]
fn more_nodes_than_a_cluster_can_have_are_one_mistake_at_its_line() {
    let wide = |text: &str| {
        text.replace("192.168.122.0/24", "192.168.0.0/16")
            .replace("\"10.244.0.0/16\"", "\"10.0.0.0/9\"")
            .replace("10.96.0.0", "10.192.0.0")
    };
    let ids =
        |text: &str| diagnostics(&wide(text)).iter().map(|one| (id_of(one), one.line)).collect::<Vec<_>>();
    let line =
        |text: &str, needle: &str| text.lines().position(|line| line == needle).expect("there") as u32 + 1;
    let many = pools(1, 997).replace("first_ip = \"192.168.122.20\"", "first_ip = \"192.168.130.0\"");
    assert_eq!(ids(&many), [], "1000 are no mistake");
    let many = pools(1, 998);
    assert_eq!(ids(&many), [("SPEC-NODES", line(&many, "count = 998"))]);
    // No node of the other pools, so no mistake of theirs.
    let many = pools(9000, 1000);
    assert_eq!(refused(&wide(&many)).iter().map(id_of).collect::<Vec<_>>(), ["SPEC-NODES"]);
    let nodes = filled(HOME, |_| "[[node]]\n".to_owned(), "");
    let found = refused(&nodes);
    assert!(found.iter().all(|one| matches!(id_of(one), "SPEC-MISSING" | "SPEC-MORE")), "{found:#?}");
}

#[test]
fn a_hundred_mistakes_are_told_and_the_others_counted() {
    let found = refused(
        &(HOME.replace("[network]", "[network]\n#")
            + &(0..150).map(|n| format!("k{n} = 1\n")).collect::<String>()),
    );
    assert_eq!(found.len(), 101);
    let last = &found[100];
    assert_eq!(
        (id_of(last), last.message.as_str(), last.line, last.warning),
        ("SPEC-MORE", "and 50 more", 0, false)
    );
    assert!(found[..100].is_sorted_by_key(|one| one.line), "{found:#?}");
    assert!(found[99].field.ends_with("k99"), "the first ones in the file: {:?}", found[99]);
}

#[test]
fn an_error_behind_a_hundred_warnings_is_one() {
    let pools: String = (0..120)
        .map(|n| format!("[[worker_pool]]\nname = \"p{n}\"\ncount = 1\nfirst_ip = \"192.168.122.{}\"\nmemory = \"700MiB\"\n", n + 13))
        .collect();
    let text = HOME.replace("load_balancer = ", "# ").replace("dhcp = ", "# ") + &pools;
    let warned = spec::parse(&text).expect("only warnings").warnings;
    assert!(warned.len() == 101 && warned.iter().all(|one| one.warning), "{warned:#?}");
    let failed = refused(&text.replace("192.168.122.132", "192.168.122.12"));
    assert!(failed.iter().any(|one| !one.warning), "{failed:#?}");
}

#[test]
fn small_files_do_not_take_long() {
    let number = |n: usize| format!("k{n}=1\n");
    let texts = [
        filled("", |_| "x\n".to_owned(), ""),
        filled("", number, ""),
        filled("[[node]]\nlabels = {", |n| format!("k{n}=1,"), "}\n"),
        filled("[[node]]\ntaints = [", |_| "1,".to_owned(), "]\n"),
        filled("[plugins]\nx = {", |n| format!("k{n}=inf,"), "}\n"),
        filled(&format!("[plugins.{}]\nx = [", "a".repeat(500_000)), |_| "inf,".to_owned(), "]\n"),
        filled("[plugins.x]\ny = [", |_| "1,".to_owned(), "]\n"),
        filled(&format!("[plugins.x.{}a]\ny = [", "abcdefgh.".repeat(20)), |_| "[1],".to_owned(), "]\n"),
        filled("[plugins]\n", |n| format!("p{n} = {{}}\n"), ""),
        filled("[plugin_packages]\n", |n| format!("p{n} = \"/x\"\n"), ""),
        filled("name = \"", |_| "x".to_owned(), "\"\n"),
        filled("", |_| "x".to_owned(), " = 1\n"),
        filled("[image]\nsuite = \"", |_| "x".to_owned(), "\"\n"),
        filled("", |n| format!("[{n}\n"), ""),
        filled("", |_| "[[node]]\n".to_owned(), ""),
        filled("", |_| "[[worker_pool]]\n".to_owned(), ""),
        filled("", |_| "x = 1\n".to_owned(), ""),
        filled("x = ", |_| "[".to_owned(), ""),
        filled("", |_| "a.".to_owned(), "a = 1\n"),
        filled("[", |_| "a.".to_owned(), "a]\n"),
        filled("x = \"", |_| "\n".to_owned(), ""),
        filled("", |_| "x = [\n".to_owned(), ""),
        filled("", |_| "x = {\n".to_owned(), ""),
        filled("", |_| "x = [\n[a]\n".to_owned(), ""),
        filled("x = ", |_| "[{".to_owned(), ""),
        format!("x = {}{}", "[".repeat(500_000), "}".repeat(500_000)),
        filled("", |_| "x = \"\"\"\n".to_owned(), "x = \"\"\"\n"),
        filled("", |n| format!("x = {}\n", ["\"\"\"", "'''"][n % 2]), ""),
        filled("", |_| "[node]\n".to_owned(), ""),
        filled("", |_| "[node.x]\n".to_owned(), ""),
        filled("", |_| "[[node\n".to_owned(), ""),
        filled("", |_| "[network]\nx = 1\n".to_owned(), ""),
        filled("", |_| "node = []\n".to_owned(), "[[node]]\n"),
        filled("[network]\n[network]\n", |_| "cidr = 1\n".to_owned(), ""),
    ];
    for text in texts {
        refused(&text);
    }
}

#[test]
fn marks_of_a_node_are_limited() {
    let labels = |count: usize| {
        format!(
            "labels = {{ {} }}",
            (0..count).map(|n| format!("k{n} = \"\"")).collect::<Vec<_>>().join(", ")
        )
    };
    let taints = |count: usize| {
        format!(
            "taints = [{}]",
            (0..count).map(|n| format!("\"k{n}:NoSchedule\"")).collect::<Vec<_>>().join(", ")
        )
    };
    let found = |to: &str| {
        diagnostics(&HOME.replace("# labels = { zone = \"a\" }", to))
            .into_iter()
            .map(|one| (id_of(&one), one.field))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&labels(64)), []);
    assert_eq!(found(&labels(65)), [("SPEC-LABEL", "node[1].labels".to_owned())]);
    assert_eq!(found(&taints(64)), []);
    assert_eq!(found(&taints(65)), [("SPEC-TAINT", "node[1].taints".to_owned())]);
}

#[test]
fn a_key_of_too_many_parts_is_told_at_its_line() {
    for deep in [
        format!("name = home\n# {0}\n{0}a = 1\n", "a.".repeat(500)),
        format!("name = home\n# {0}\n[{0}a]\n", "a.".repeat(500)),
    ] {
        let found = refused(&deep);
        let told: Vec<_> = found.iter().filter(|one| one.id == "SPEC-TOML").map(|one| one.line).collect();
        assert_eq!(told, [1, 3], "{found:#?}");
        assert!(found.iter().any(|one| one.line == 3 && one.hint.contains("dotted keys")), "{found:#?}");
    }
}

#[test]
fn a_file_that_is_too_long_is_not_said_to_have_the_length_that_was_read() {
    let found = diagnostics(&"#".repeat(spec::MAX_TEXT_BYTES + 1));
    assert_eq!(found[0].message, "got more than 1048576 bytes, expected at most those");
}
