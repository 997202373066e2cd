//! Beside a line that cannot be read all else is judged, and nothing is missed that it may hold.

use k8sctl_types::spec;

use crate::{HOME, diagnostics, edit, id_of, line_of, told};

#[test]
fn a_syntax_error_hides_no_other_mistake() {
    let text = HOME
        .replacen("vcpus = 4", "vcpus four", 1)
        .replacen("role = \"worker\"", "role = worker", 1)
        .replacen("192.168.122.12", "192.168.123.12", 1);
    let found = diagnostics(&text);
    let ids: Vec<_> = found.iter().map(id_of).collect();
    assert_eq!(ids, ["SPEC-TOML", "SPEC-TOML", "SPEC-IP-OUTSIDE"], "{found:#?}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[found[0].line as usize - 1], "vcpus four");
    assert_eq!(lines[found[1].line as usize - 1], "role = worker");
    assert_eq!(found[1].hint, "text stands in double quotes: role = \"worker\"");
}

#[test]
fn what_is_missing_elsewhere_is_told_beside_a_syntax_error() {
    let text = edit(HOME, "ip = \"192.168.122.11\"\n", "");
    let missing = ("SPEC-MISSING", line_of(&text, "k8s-worker-1") - 1);
    assert_eq!(told(&text), [missing]);
    for (from, to) in [
        ("services = \"10.96.0.0/12\"", "services = 10.96.0.0/12"),
        ("# kubernetes = \"v1.29.0\"", "what is this"),
        ("vcpus = 4", "vcpus four"),
        ("# [image]", "[image"),
    ] {
        let text = edit(&text, from, to);
        let mut expected = vec![("SPEC-TOML", line_of(&text, to)), missing];
        expected.sort_by_key(|(_, line)| *line);
        assert_eq!(told(&text), expected, "{to}");
    }
    let nameless = edit(&edit(HOME, "name = \"home\"\n", ""), "vcpus = 4", "vcpus four");
    assert_eq!(told(&nameless), [("SPEC-MISSING", 1), ("SPEC-TOML", line_of(&nameless, "vcpus four"))]);
}

#[test]
fn what_a_broken_line_may_hold_is_not_missed() {
    for (from, to) in [
        ("name = \"home\"", "name = home"),
        ("name = \"home\"", "naem = home"),
        ("name = \"home\"", "what is this"),
        ("ip = \"192.168.122.11\"", "ip = 192.168.122.11"),
        ("ip = \"192.168.122.11\"", "192.168.122.11"),
        ("role = \"control-plane\"", "role: control-plane"),
        ("role = \"control-plane\"", "role = control-plane"),
    ] {
        let text = edit(HOME, from, to);
        assert_eq!(told(&text), [("SPEC-TOML", line_of(&text, to))], "{to}");
    }
    // A line that is meant as another key holds none of these.
    let text = edit(&edit(HOME, "ip = \"192.168.122.11\"\n", ""), "vcpus = 2", "vcpus = two");
    let line = line_of(&text, "vcpus = two");
    assert_eq!(told(&text), [("SPEC-MISSING", line - 3), ("SPEC-TOML", line)]);
    // Nor is its default what the addresses are judged by.
    let moved = HOME.replace("192.168.122.", "10.9.0.");
    for to in ["cidr = 10.9.0.0/24", "cidr 10.9.0.0/24", "10.9.0.0/24"] {
        let text = edit(&moved, "cidr = \"10.9.0.0/24\"", to);
        assert_eq!(told(&text), [("SPEC-TOML", line_of(&text, to))], "{to}");
    }
}

#[test]
fn what_the_whole_file_lacks_is_told_beside_lines_that_cannot_hold_it() {
    let workers = edit(HOME, "role = \"control-plane\"", "role = \"worker\"");
    let none = ("SPEC-CONTROL-PLANE-NONE", line_of(&workers, "role ="));
    for (from, to, is_told) in [
        ("services = \"10.96.0.0/12\"", "services = 10.96.0.0/12", true),
        ("vcpus = 4", "vcpus four", true),
        ("name = \"home\"", "name = home", true),
        ("name = \"home\"", "name = \"home\"\nnode = [{ name = x }]", false),
        ("role = \"worker\"", "role = worker", false),
        ("# [image]", "[???]", false),
        ("# [image]", "???", false),
    ] {
        let text = edit(&workers, from, to);
        let told = told(&text);
        assert_eq!(told.iter().any(|(id, _)| *id == none.0), is_told, "{to}: {told:?}");
        assert!(told.iter().any(|(id, _)| *id == "SPEC-TOML" || *id == "SPEC-DUPLICATE-KEY"), "{to}");
        assert_eq!(told.len(), 1 + usize::from(is_told), "{to}: {told:?}");
    }
    let network = "name = \"home\"\n[network]\ncidr = 10.0.0.0/24\n";
    assert_eq!(told(network), [("SPEC-NO-NODES", 1), ("SPEC-TOML", 3)]);
}

#[test]
fn what_is_not_there_is_told_in_a_line() {
    assert_eq!(told(""), [("SPEC-MISSING", 1), ("SPEC-NO-NODES", 1)]);
    assert_eq!(told(&edit(HOME, "name = \"home\"", "")), [("SPEC-MISSING", 1)]);
    let workers = edit(HOME, "role = \"control-plane\"", "role = \"worker\"");
    assert_eq!(told(&workers), [("SPEC-CONTROL-PLANE-NONE", line_of(&workers, "role ="))]);
    let pool = "name = \"home\"\n[[worker_pool]]\nname = \"p\"\ncount = 1\nfirst_ip = \"192.168.122.9\"\n";
    assert_eq!(told(pool), [("SPEC-CONTROL-PLANE-NONE", 2)]);
    let alone = &HOME[..HOME.find("[[node]]\nname = \"k8s-worker-1\"").expect("a worker")];
    assert_eq!(told(alone), [("SPEC-NO-WORKERS", line_of(HOME, "role ="))]);
    let wide = "name = \"home\"\n[[node]]\nname = \"a\"\nrole = \"control-plane\"\nip = \"192.168.122.2\"\n\
                [[worker_pool]]\nname = \"p\"\ncount = 256\nfirst_ip = \"192.168.122.3\"\n";
    assert_eq!(told(wide), [("SPEC-PODS-TOO-SMALL", 1), ("SPEC-POOL-OVERFLOW", 9)]);
}

#[test]
fn two_mistakes_of_one_kind_at_one_key_are_both_told() {
    let all = |from: &str, to: &str| {
        let found = diagnostics(&edit(HOME, from, to));
        found.into_iter().map(|one| (id_of(&one), one.message)).collect::<Vec<_>>()
    };
    let labels = all("# labels = { zone = \"a\" }", "labels = { \"-zone\" = \"a b\" }");
    assert_eq!(labels.iter().map(|one| one.0).collect::<Vec<_>>(), ["SPEC-LABEL"; 2]);
    assert!(labels[0].1.contains("-zone") && labels[1].1.contains("a b"), "{labels:?}");
    let taints = all("# labels = { zone = \"a\" }", "taints = [\"-k=a b:Nope\"]");
    assert_eq!(taints.iter().map(|one| one.0).collect::<Vec<_>>(), ["SPEC-TAINT"; 3], "{taints:?}");
    let same = HOME
        .replace("192.168.122.0/24", "10.0.0.0/16")
        .replace("10.244.0.0/16", "10.0.0.0/16")
        .replace("10.96.0.0/12", "10.0.0.0/16")
        .replace("192.168.122.", "10.0.0.");
    let pairs: Vec<_> =
        diagnostics(&same).into_iter().map(|one| (id_of(&one), one.field, one.message)).collect();
    let overlap = |field: &str, other: &str| {
        let message = format!("10.0.0.0/16 overlaps {other} 10.0.0.0/16");
        ("SPEC-CIDR-OVERLAP", format!("network.{field}"), message)
    };
    assert_eq!(pairs, [overlap("pods", "cidr"), overlap("services", "cidr"), overlap("services", "pods")]);
}

#[test]
fn a_mistake_of_every_node_of_a_pool_is_one() {
    let pool = |name: &str, ip: &str, more: &str| {
        format!("\n[[worker_pool]]\nname = \"{name}\"\ncount = 9\nfirst_ip = \"{ip}\"\n{more}\n")
    };
    let text = format!(
        "{HOME}{}{}{}",
        pool("a", "192.168.122.250", "memory = \"1MiB\""),
        pool("a", "192.168.122.250", ""),
        pool("b", "10.0.0.1", "")
    );
    let text = edit(&text, "dhcp =", "# dhcp =");
    let line = line_of(&text, "192.168.122.250");
    let expected = [
        ("SPEC-POOL-OVERFLOW", line),
        ("SPEC-MEMORY-SMALL", line + 1),
        ("SPEC-DUPLICATE-NAME", line + 4),
        ("SPEC-DUPLICATE-IP", line + 6),
        ("SPEC-POOL-OVERFLOW", line + 6),
        ("SPEC-IP-OUTSIDE", line_of(&text, "10.0.0.1")),
    ];
    assert_eq!(told(&text), expected);
}

#[test]
fn a_misspelt_key_is_read_as_what_it_is_probably_meant_for() {
    let moved = HOME.replace("192.168.122.", "10.9.0.");
    let text = edit(&moved, "cidr =", "cdir =");
    assert_eq!(told(&text), [("SPEC-UNKNOWN-KEY", line_of(&text, "cdir"))]);
    for (from, to) in
        [("name = \"home\"", "naem = \"home\""), ("vcpus = 4", "cpus = 4"), ("role =", "rolle =")]
    {
        let text = edit(HOME, from, to);
        assert_eq!(told(&text), [("SPEC-UNKNOWN-KEY", line_of(&text, to))], "{to}");
    }
    let text = edit(HOME, "ip = \"192.168.122.11\"", "ip_address = \"192.168.122\"");
    let line = line_of(&text, "ip_address");
    assert_eq!(told(&text), [("SPEC-UNKNOWN-KEY", line), ("SPEC-IP", line)]);
    let text = edit(HOME, "ip = \"192.168.122.11\"", "id = 7");
    assert_eq!(told(&text), [("SPEC-UNKNOWN-KEY", line_of(&text, "id = 7"))]);
    let hint = |text: &str| diagnostics(text).remove(0).hint;
    assert_eq!(hint(&HOME.replace("[[node]]", "[[nodes]]")), "did you mean [[node]]?");
    assert_eq!(hint(&edit(HOME, "vcpus", "cpus")), "did you mean \"vcpus\"?");
}

#[test]
fn a_cluster_has_its_name_whatever_the_brackets_below() {
    let text = edit(HOME, "[[node]]\nname = \"k8s-worker-1\"", "[node]\nname = \"k8s-worker-1\"");
    assert!(spec::parse(&text).is_err());
    assert_eq!(spec::cluster_name(&text), Ok("home".to_owned()));
    // A guess is not enough to take a cluster away.
    let guessed =
        spec::cluster_name(&edit(HOME, "name = \"home\"", "naem = \"home\"")).expect_err("nameless");
    assert_eq!((id_of(&guessed[0]), guessed[0].line, guessed.len()), ("SPEC-MISSING", 1, 1));
}
