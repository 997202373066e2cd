//! One mistake at a time, made by a small edit of `home.toml`.

use k8sctl_types::spec;
use k8sctl_types::suite;

use crate::{HOME, assert_points_home, diagnostics, edit, id_of};

/// A sound pool.
const POOL: &str = "[[worker_pool]]\nname = \"pool\"\ncount = 2\nfirst_ip = \"192.168.122.20\"\n";

/// Replaces the text once and returns every (id, field) found, having checked each one's place.
fn edited(from: &str, to: &str) -> Vec<(&'static str, String)> {
    assert!(HOME.contains(from), "{from}");
    found(&HOME.replacen(from, to, 1))
}

fn found(text: &str) -> Vec<(&'static str, String)> {
    let found = diagnostics(text);
    found.iter().for_each(|diagnostic| assert_points_home(text, diagnostic));
    found.into_iter().map(|diagnostic| (id_of(&diagnostic), diagnostic.field)).collect()
}

#[test]
fn one_edit_gives_exactly_one_diagnostic() {
    let pool = |from: &str, to: &str| format!("{}# ---", POOL.replace(from, to));
    let fresh_pool = pool("", "");
    assert_eq!(edited("# More workers", &fresh_pool), []);
    let cases: &[(&str, &str, &str, &str)] = &[
        ("name = \"home\"", "", "SPEC-MISSING", "name"),
        ("name = \"home\"", "name = \"\"", "SPEC-NAME", "name"),
        ("name = \"home\"", &format!("name = \"{}\"", "a".repeat(41)), "SPEC-NAME", "name"),
        ("# kubernetes = \"v1.29.0\"", "kubernetes = \"v1.19.16\"", "SPEC-VERSION-OLD", "kubernetes"),
        ("# kubernetes = \"v1.29.0\"", "kubernetes = \"latest\"", "SPEC-VERSION", "kubernetes"),
        ("# kubernetes = \"v1.29.0\"", "kubernetes = 1.29", "SPEC-TYPE", "kubernetes"),
        ("# kubernetes = \"v1.29.0\"", "endpoint = \"x\"", "SPEC-HA-UNSUPPORTED", "endpoint"),
        ("cidr = \"192.168.122.0/24\"", "cidr = \"192.168.122.0\"", "SPEC-CIDR", "network.cidr"),
        ("cidr = \"192.168.122.0/24\"", "cidr = \"192.168.122.0/29\"", "SPEC-CIDR-SIZE", "network.cidr"),
        ("pods = \"10.244.0.0/16\"", "pods = \"10.97.0.0/16\"", "SPEC-CIDR-OVERLAP", "network.services"),
        (
            "services = \"10.96.0.0/12\"",
            "services = \"192.168.122.0/24\"",
            "SPEC-CIDR-OVERLAP",
            "network.services",
        ),
        ("pods = \"10.244.0.0/16\"", "pods = \"10.244.0.0/23\"", "SPEC-PODS-TOO-SMALL", "network.pods"),
        ("pods = \"10.244.0.0/16\"", "pods = \"10.244.0.0/26\"", "SPEC-PODS-TOO-SMALL", "network.pods"),
        ("pods = \"10.244.0.0/16\"", "pods = \"127.0.0.0/16\"", "SPEC-CIDR-RESERVED", "network.pods"),
        ("pods = \"10.244.0.0/16\"", "pods = \"20.0.0.0/16\"", "SPEC-CIDR-PUBLIC", "network.pods"),
        ("services = \"10.96.0.0/12\"", "services = \"10.96.0.0/11\"", "SPEC-CIDR-SIZE", "network.services"),
        ("services = \"10.96.0.0/12\"", "services = \"10.96.0.0/29\"", "SPEC-CIDR-SIZE", "network.services"),
        (
            "122.100-192.168.122.150",
            "122.150-192.168.122.100",
            "SPEC-RANGE-REVERSED",
            "network.load_balancer",
        ),
        ("122.100-192.168.122.150", "122.100", "SPEC-RANGE", "network.load_balancer"),
        ("122.100-192.168.122.150", "122.1-192.168.122.5", "SPEC-LB-CONFLICT", "network.load_balancer"),
        ("122.100-192.168.122.150", "123.1-192.168.123.5", "SPEC-RANGE-OUTSIDE", "network.load_balancer"),
        ("122.200-192.168.122.254", "122.200-192.168.122.255", "SPEC-RANGE-OUTSIDE", "network.dhcp"),
        ("122.200-192.168.122.254", "122.2-192.168.122.99", "SPEC-DHCP-CONFLICT", "network.dhcp"),
        ("122.200-192.168.122.254", "122.150-192.168.122.254", "SPEC-DHCP-LB-OVERLAP", "network.dhcp"),
        ("ip = \"192.168.122.11\"", "ip = \"192.168.122.0\"", "SPEC-IP-RESERVED", "node[1].ip"),
        ("ip = \"192.168.122.11\"", "ip = \"192.168.122.12\"", "SPEC-DUPLICATE-IP", "node[2].ip"),
        ("ip = \"192.168.122.11\"", "ip = \"fd00::1\"", "SPEC-IP", "node[1].ip"),
        ("ip = \"192.168.122.11\"", "", "SPEC-MISSING", "node[1].ip"),
        ("name = \"k8s-worker-2\"", "name = \"k8s-worker-1\"", "SPEC-DUPLICATE-NAME", "node[2].name"),
        ("name = \"k8s-worker-2\"", "name = \"localhost\"", "SPEC-NAME", "node[2].name"),
        ("role = \"control-plane\"", "role = \"worker\"", "SPEC-CONTROL-PLANE-NONE", "node[0].role"),
        ("memory = \"8GiB\"", "memory = \"1699MiB\"", "SPEC-MEMORY-SMALL", "node[0].memory"),
        ("memory = \"8GiB\"", "memory = \"1700MiB\"", "SPEC-MEMORY-TIGHT", "node[0].memory"),
        ("memory = \"8GiB\"", "memory = \"8GIB\"", "SPEC-SIZE-UNIT", "node[0].memory"),
        ("memory = \"8GiB\"", "memory = \"-8GiB\"", "SPEC-SIZE", "node[0].memory"),
        ("vcpus = 4", "vcpus = -1", "SPEC-VCPUS", "node[0].vcpus"),
        ("vcpus = 4", "vcpus = 99999999999999999999", "SPEC-VCPUS", "node[0].vcpus"),
        ("vcpus = 4", "vcpus = 4.0", "SPEC-TYPE", "node[0].vcpus"),
        ("# labels = { zone = \"a\" }", "mac = \"00:00:00:00:00:00\"", "SPEC-MAC-MULTICAST", "node[1].mac"),
        ("# labels = { zone = \"a\" }", "mac = \"FE:54:00:00:00:01\"", "SPEC-MAC-RESERVED", "node[1].mac"),
        (
            "# taints = [\"dedicated=db:NoSchedule\"]",
            "taints = [\"=x:NoSchedule\"]",
            "SPEC-TAINT",
            "node[1].taints[0]",
        ),
        (
            "# taints = [\"dedicated=db:NoSchedule\"]",
            "labels.zone.a = \"x\"",
            "SPEC-TYPE",
            "node[1].labels.zone",
        ),
        ("# More workers", &pool("count = 2\n", ""), "SPEC-MISSING", "worker_pool[0].count"),
        ("# More workers", &pool("count = 2", "count = 1001"), "SPEC-COUNT", "worker_pool[0].count"),
        (
            "# More workers",
            &fresh_pool.replace("worker_pool", "worker_pools"),
            "SPEC-UNKNOWN-KEY",
            "worker_pools",
        ),
        ("# More workers", &pool("\"pool\"", "\"k8s-worker\""), "SPEC-DUPLICATE-NAME", "worker_pool[0].name"),
        ("# More workers", &pool(".20", ".12"), "SPEC-DUPLICATE-IP", "worker_pool[0].first_ip"),
        ("# More workers", &pool("192.168.122.20", "10.0.0.1"), "SPEC-IP-OUTSIDE", "worker_pool[0].first_ip"),
        ("# [image]\n# suite = \"bookworm\"", "[image]\nsuite = \"bokworm\"", "SPEC-SUITE", "image.suite"),
        (
            "# [plugins.hello]",
            "[plugins.hello]\nbig = 99999999999999999999",
            "SPEC-PLUGIN-VALUE",
            "plugins.hello.big",
        ),
        ("[network]", "[[network]]", "SPEC-TYPE", "network"),
        ("[network]", "[networks]", "SPEC-UNKNOWN-KEY", "networks"),
        ("vcpus = 4", "vcpus = 4\nvcpus = 5", "SPEC-DUPLICATE-KEY", "vcpus"),
        ("vcpus = 4", "vcpus = four", "SPEC-TOML", ""),
    ];
    for (from, to, id, field) in cases {
        assert_eq!(edited(from, to), [(*id, (*field).to_owned())], "{to}");
    }
}

/// A hint at a line that is no TOML: what it says to write is taken, as it stands.
#[test]
fn what_a_hint_says_to_write_is_taken() {
    let text = edit(HOME, "# More workers", &format!("{POOL}# ---"));
    let text = edit(&text, "# [plugins.hello]", "[plugins.hello]");
    let text = edit(&text, "# replicas = 2", "replicas = 2");
    let (labels, taints) = ("# labels = { zone = \"a\" }", "# taints = [\"dedicated=db:NoSchedule\"]");
    let two = "a whole number stands alone: vcpus = 2";
    let zone = "a table stands in braces: labels = { zone = \"a\" }";
    for (from, to, hint) in [
        ("vcpus = 4", "vcpus = four", two),
        ("vcpus = 4", "vcpus = \"2", two),
        ("vcpus = 4", "vcpus = 2,", two),
        ("vcpus = 4", "vcpus = 2; # for now", two),
        ("vcpus = 4", "vcpus = 2 cores", two),
        ("count = 2", "count = 03", "a whole number stands alone: count = 3"),
        ("count = 2", "count = 1_0_", "a whole number stands alone: count = 10"),
        (labels, "labels = zone=a", zone),
        (labels, "labels = { zone = a }", zone),
        (labels, "labels.zone = a", "text stands in double quotes: labels.zone = \"a\""),
        (taints, "taints = db", "an array stands in brackets: taints = [\"key=value:NoSchedule\"]"),
        ("role = \"worker\"", "role = worker,", "text stands in double quotes: role = \"worker\""),
        ("disk = \"50GiB\"", "disk = 50GiB", "text stands in double quotes: disk = \"50GiB\""),
        ("replicas = 2", "replicas = two", "text stands in double quotes: replicas = \"two\""),
    ] {
        let broken = edit(&text, from, to);
        let found = diagnostics(&broken);
        let told: Vec<_> = found.iter().map(|one| (id_of(one), one.hint.as_str())).collect();
        assert_eq!(told, [("SPEC-TOML", hint)], "{to}");
        let (_, written) = hint.split_once(": ").expect("it says what to write");
        assert!(spec::parse(&edit(&broken, to, written)).is_ok(), "{to}");
    }
    let hint = |from: &str, to: &str| diagnostics(&edit(&text, from, to)).remove(0).hint;
    assert_eq!(
        hint("replicas = 2", "replicas = 2,"),
        "a number stands alone, all other text in double quotes"
    );
    assert_eq!(hint("vcpus = 4", "vcpus = # four"), "write a value: vcpus = …");
    let network = hint("# kubernetes = \"v1.29.0\"", "image = trixie, at best");
    assert_eq!(network, "its keys stand below a header: [image]");
}

#[test]
fn labels_that_reach_the_node_are_taken_and_no_others() {
    let with = |label: &str| edited("# labels = { zone = \"a\" }", &format!("labels = {{ {label} }}"));
    let field = |key: &str| format!("node[1].labels.\"{key}\"");
    for label in [
        "\"topology.kubernetes.io/zone\" = \"a\"",
        "\"node-role.kubernetes.io/storage\" = \"\"",
        "\"node-restriction.kubernetes.io/team\" = \"x\"",
    ] {
        assert_eq!(with(label), [], "{label}");
    }
    for key in ["kubernetes.io/hostname", "node-role.kubernetes.io/control-plane"] {
        assert_eq!(with(&format!("\"{key}\" = \"x\"")), [("SPEC-LABEL-RESERVED", field(key))]);
    }
    let key = "topology.kubernetes.io/zone";
    assert_eq!(with(&format!("\"{key}\" = \"\"")), [("SPEC-LABEL", field(key))]);
}

#[test]
fn a_suite_that_no_image_can_be_made_of_is_an_error_with_the_list() {
    for (suite, near) in [("sid", "take one of "), ("Bookworm", "did you mean \"bookworm\"? ")] {
        let text =
            HOME.replace("# [image]\n# suite = \"bookworm\"", &format!("[image]\nsuite = \"{suite}\""));
        let found = spec::parse(&text).expect_err("it cannot be built");
        let line = text.lines().position(|line| line.contains("suite =")).expect("edited") as u32 + 1;
        assert_eq!((id_of(&found[0]), found[0].line, found.len()), ("SPEC-SUITE", line, 1));
        assert!(
            found[0].hint.starts_with(near) && found[0].hint.ends_with(&suite::names()),
            "{}",
            found[0].hint
        );
    }
    let limits = spec::KEYS.iter().find(|key| key.path() == "image.suite").expect("a key").limits;
    assert_eq!(limits.replace(" or ", ", "), suite::names());
    for suite in suite::SUITES {
        let to = format!("[image]\nsuite = \"{}\"", suite.name);
        assert_eq!(edited("# [image]\n# suite = \"bookworm\"", &to), [], "{to}");
    }
}

#[test]
fn a_given_mac_may_not_be_a_derived_one() {
    let taken = spec::derived_mac("home", [192, 168, 122, 12].into());
    let mac = format!("mac = \"{taken}\"");
    let got = edited("# labels = { zone = \"a\" }", &mac);
    assert_eq!(got, [("SPEC-DUPLICATE-MAC", "node[1].mac".to_owned())]);
}

#[test]
fn files_without_nodes_or_workers() {
    assert_eq!(found("name = \"home\"\n"), [("SPEC-NO-NODES", "node".to_owned())]);
    assert_eq!(found(""), [("SPEC-MISSING", "name".to_owned()), ("SPEC-NO-NODES", "node".to_owned())]);
    let alone = &HOME[..HOME.find("[[node]]\nname = \"k8s-worker-1\"").expect("home has a worker")];
    assert!(spec::parse(alone).is_ok());
    assert_eq!(found(alone), [("SPEC-NO-WORKERS", "node[0].role".to_owned())]);
    assert_eq!(found("name = \"home\"\nnode = []\n"), [("SPEC-NO-NODES", "node".to_owned())]);
}

#[test]
fn what_stands_below_a_wrong_header_is_read_and_not_missed() {
    const CONTROL: &str = "name = \"c\"\nrole = \"control-plane\"\nip = \"192.168.122.10\"\n";
    let one = |header: &str, more: &str| found(&format!("name = \"home\"\n{header}\n{CONTROL}{more}"));
    let owned = |all: &[(&'static str, &str)]| -> Vec<_> {
        all.iter().map(|(id, field)| (*id, (*field).to_owned())).collect()
    };
    let no_workers = ("SPEC-NO-WORKERS", "node[0].role");
    assert_eq!(one("[[node]]", ""), owned(&[no_workers]));
    assert_eq!(one("[node]", ""), owned(&[("SPEC-TYPE", "node"), no_workers]));
    let small = "memory = \"1GiB\"\ncolour = 1\n";
    let inside = [
        ("SPEC-TYPE", "node"),
        no_workers,
        ("SPEC-MEMORY-SMALL", "node[0].memory"),
        ("SPEC-UNKNOWN-KEY", "node[0].colour"),
    ];
    assert_eq!(one("[node]", small), owned(&inside));
    let misspelt = [
        ("SPEC-UNKNOWN-KEY", "nodes"),
        ("SPEC-NO-WORKERS", "nodes[0].role"),
        ("SPEC-MEMORY-SMALL", "nodes[0].memory"),
        ("SPEC-UNKNOWN-KEY", "nodes[0].colour"),
    ];
    assert_eq!(one("[[nodes]]", small), owned(&misspelt));
    assert_eq!(one("[nodes]", small), owned(&misspelt));
    for header in ["[[nodes]]", "[nodes]"] {
        assert_eq!(found(&HOME.replace("[[node]]", header)), owned(&[("SPEC-UNKNOWN-KEY", "nodes")]));
    }
    // Nothing of these can be read, so nothing is known to be missing.
    assert_eq!(found("name = \"home\"\nnode = 3\n"), owned(&[("SPEC-TYPE", "node")]));
    assert_eq!(found("name = \"home\"\nnodes = 3\n"), owned(&[("SPEC-UNKNOWN-KEY", "nodes")]));
    let none = "[[worker_pool]]\nname = \"p\"\ncount = 0\nfirst_ip = \"192.168.122.20\"\n";
    assert_eq!(one("[[node]]", none), owned(&[("SPEC-COUNT", "worker_pool[0].count")]));
    // Nor is a default the value of a key in a table of another name.
    let elsewhere = |header: &str| HOME.replace("[network]", header).replace("192.168.122.", "10.9.0.");
    assert_eq!(found(&elsewhere("[networks]")), owned(&[("SPEC-UNKNOWN-KEY", "networks")]));
    assert_eq!(found(&elsewhere("[[network]]")), owned(&[("SPEC-TYPE", "network")]));
    let wrong = elsewhere("[networks]").replace("10.244.0.0/16", "10.244.0.0/26");
    let both = [("SPEC-UNKNOWN-KEY", "networks"), ("SPEC-PODS-TOO-SMALL", "networks.pods")];
    assert_eq!(found(&wrong), owned(&both));
}

#[test]
fn a_byte_order_mark_and_line_ends_of_other_systems_are_no_mistakes() {
    let home = spec::parse(HOME).expect("sound").spec;
    let crlf = HOME.replace('\n', "\r\n");
    for text in [format!("\u{feff}{HOME}"), crlf.clone(), format!("\u{feff}{crlf}")] {
        assert_eq!(spec::parse(&text).expect("sound").spec, home);
    }
    let wrong = crlf.replacen("vcpus = 4", "vcpus four", 1).replacen("8GiB", "8", 1);
    let line = |needle: &str| wrong.lines().position(|line| line.contains(needle)).expect("there") as u32 + 1;
    let told: Vec<_> = diagnostics(&wrong).iter().map(|one| (id_of(one), one.line)).collect();
    assert_eq!(told, [("SPEC-TOML", line("vcpus four")), ("SPEC-SIZE-UNIT", line("memory = \"8\""))]);
}

#[test]
fn three_control_planes_are_refused_with_clear_words() {
    let text = HOME.replace("role = \"worker\"", "role = \"control-plane\"");
    let errors = spec::parse(&text).expect_err("not supported yet");
    let ids: Vec<_> = errors.iter().filter(|error| !error.warning).map(id_of).collect();
    assert_eq!(ids, ["SPEC-HA-UNSUPPORTED"]);
    let unsupported = errors.iter().find(|error| !error.warning).expect("one error");
    assert!(unsupported.message.contains("no shared endpoint or load balancer"), "{unsupported}");
}

#[test]
fn the_name_alone_is_read_of_a_file_with_other_mistakes() {
    let text = HOME.replacen("[network]", "colour = 1\n[[network]]", 1).replace("8GiB", "8TiB");
    assert!(spec::parse(&text).is_err());
    assert_eq!(spec::cluster_name(&text), Ok("home".to_owned()));
    let refused = |from: &str, to: &str| {
        let found = spec::cluster_name(&text.replacen(from, to, 1)).expect_err(to);
        found.into_iter().map(|one| (id_of(&one), one.line)).collect::<Vec<_>>()
    };
    let line = |needle: &str| text.lines().position(|line| line == needle).expect("there") as u32 + 1;
    assert_eq!(refused("name = \"home\"", "name = \"Home\""), [("SPEC-NAME", line("name = \"home\""))]);
    assert_eq!(refused("name = \"home\"", ""), [("SPEC-MISSING", 1)]);
    assert_eq!(refused("vcpus = 4", "vcpus four"), [("SPEC-TOML", line("vcpus = 4"))]);
}

#[test]
fn too_long_a_file_is_refused() {
    let text = format!("{HOME}#{}", "x".repeat(spec::MAX_TEXT_BYTES));
    assert_eq!(found(&text), [("SPEC-FILE-SIZE", String::new())]);
}

#[test]
fn a_diagnostic_prints_as_one_line() {
    let text = HOME.replacen("ip = \"192.168.122.11\"", "ip = \"192.168.9.11\"", 1);
    let line = text.lines().position(|line| line.contains("192.168.9.11")).expect("edited") + 1;
    let found = diagnostics(&text);
    assert_eq!(
        found[0].in_file("cluster.toml").to_string(),
        format!(
            "cluster.toml:{line}:6: error SPEC-IP-OUTSIDE node[1].ip: 192.168.9.11 is outside of network.cidr \
             192.168.122.0/24 (hint: take one of 192.168.122.2-192.168.122.254)"
        )
    );
    let empty = diagnostics("");
    assert_eq!(
        empty[0].in_file("a.toml").to_string(),
        "a.toml:1: error SPEC-MISSING name: name is missing (hint: write name = \"home\")"
    );
}

#[test]
fn control_characters_of_the_file_are_made_visible() {
    let found = diagnostics("\"\\u001b[2Jx\" = 1\nname = \"\\u001b[31m\"\n");
    assert!(found.iter().all(|d| !d.to_string().contains('\u{1b}')), "{found:#?}");
    assert!(found.iter().any(|d| d.to_string().contains("\\u{1b}")));
}
