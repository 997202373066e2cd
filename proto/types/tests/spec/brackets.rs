//! Headers with wrong brackets, and values that are not closed: one mistake each, which hides and forges no other.

use crate::{HOME, diagnostics, edit, id_of, line_of, told};

const POOL: &str = "\n[[worker_pool]]\nname = \"NAME\"\ncount = 2\nfirst_ip = \"IP\"\n";

/// Wrong headers of a table of many, and how they are told.
const WRONG: &[(&str, &str)] = &[
    ("[NAME]", "SPEC-TYPE"),
    ("[NAME] # the first", "SPEC-TYPE"),
    ("[NAME", "SPEC-TOML"),
    ("NAME]", "SPEC-TOML"),
    ("NAME]]", "SPEC-TOML"),
    ("[[NAME", "SPEC-TOML"),
    ("[[NAME]", "SPEC-TOML"),
    ("[NAME]]", "SPEC-TOML"),
    ("[[[NAME]]]", "SPEC-TOML"),
    ("[ [NAME] ]", "SPEC-TOML"),
    ("[[NAME]]:", "SPEC-TOML"),
    ("[[NAME)]", "SPEC-TOML"),
    ("[[NA ME]]", "SPEC-TOML"),
    ("[[\"NAME]]", "SPEC-TOML"),
    ("  [[NAME  # the first", "SPEC-TOML"),
];

/// A text with its n-th such header replaced, and the line of it.
fn with_header(text: &str, header: &str, n: usize, to: &str) -> (String, u32) {
    let at = text.match_indices(&format!("\n{header}\n")).nth(n).expect("so many").0 + 1;
    let line = text[..at].matches('\n').count() as u32 + 1;
    (format!("{}{to}{}", &text[..at], &text[at + header.len()..]), line)
}

/// The mistakes of a text and one more, in the order of the file.
fn and_one(text: &str, one: (&'static str, u32)) -> Vec<(&'static str, u32)> {
    let mut all = told(text);
    all.push(one);
    all.sort_by_key(|(_, line)| *line);
    all
}

#[test]
fn a_wrong_header_is_one_mistake_and_the_tables_around_it_are_judged() {
    let nodes = HOME
        .replace("ip = \"192.168.122.", "ip = \"10.0.0.")
        .replace("disk = \"30GiB\"", "disk = \"1GiB\"")
        .replace("vcpus = 4", "vcpus = 0");
    assert_eq!(told(&nodes).len(), 6);
    let pool = |name: &str, ip: &str| POOL.replace("NAME", name).replace("IP", ip);
    let pools = format!("{HOME}{}{}{}", pool("a", "10.0.0.1"), pool("B", "10.0.0.3"), pool("c", "10.0.0.5"));
    assert_eq!(told(&pools).len(), 4);
    for (text, header) in [(HOME, "node"), (&nodes, "node"), (&pools, "worker_pool")] {
        for n in 0..3 {
            for (to, id) in WRONG {
                let to = to.replace("NA ME", &format!("{} {}", &header[..2], &header[2..]));
                let to = to.replace("NAME", header);
                let (wrong, line) = with_header(text, &format!("[[{header}]]"), n, &to);
                assert_eq!(told(&wrong), and_one(text, (id, line)), "{to} as {header} {n}");
                let found = diagnostics(&wrong);
                let one = found.iter().find(|one| one.line == line).expect("told");
                assert!(one.hint.contains(&format!("[[{header}]]")), "{one}");
            }
        }
    }
}

#[test]
fn each_wrong_header_is_told() {
    let all = HOME.replace("[[node]]", "[node]");
    assert_eq!(told(&all).iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["SPEC-TYPE"; 3]);
    assert_eq!(told(&HOME.replace("[[node]]", "[[node")).len(), 3);
    // Not a header: it is an empty file's mistake that there are no others.
    let found = diagnostics("[[]]\nrole = \"worker\"\n");
    assert_eq!(found.iter().map(|one| (id_of(one), one.line)).collect::<Vec<_>>(), [("SPEC-TOML", 1)]);
}

#[test]
fn what_stands_behind_a_header_is_no_part_of_it() {
    let text = edit(HOME, "[[node]]\nname = \"k8s-worker-1\"", "[[node]] name = \"k8s-worker-1\"");
    assert_eq!(told(&text), [("SPEC-TOML", line_of(&text, "[[node]] name"))]);
    let nameless = edit(&text, "]] name = \"k8s-worker-1\"", "]] vcpus = 2");
    let line = line_of(&nameless, "]] vcpus");
    assert_eq!(told(&nameless), [("SPEC-MISSING", line), ("SPEC-TOML", line)]);
}

#[test]
fn a_header_that_says_nothing_hides_what_is_below_it_alone() {
    let text = edit(HOME, "[[node]]\nname = \"k8s-worker-1\"", "[[???]]\nname = \"k8s-worker-1\"");
    let text = edit(&text, "# labels = { zone", "[node.labels]\nzone");
    let text = edit(&text, "192.168.122.12", "10.0.0.1");
    assert_eq!(
        told(&text),
        [("SPEC-TOML", line_of(&text, "???")), ("SPEC-IP-OUTSIDE", line_of(&text, "10.0.0.1"))]
    );
    // It may have been the control plane, or the workers.
    let alone = edit(HOME, "[[node]]", "[[???]]");
    assert_eq!(told(&alone), [("SPEC-TOML", line_of(HOME, "[[node]]"))]);
    let network = edit(HOME, "[network]", "[???]").replace("192.168.122.", "10.9.0.");
    assert_eq!(told(&network), [("SPEC-TOML", line_of(HOME, "[network]"))]);
}

#[test]
fn a_table_that_stands_once_is_read_whatever_its_brackets() {
    let text = edit(HOME, "10.244.0.0/16", "10.244.0.0/26");
    let expected = |id| [(id, line_of(HOME, "[network]")), ("SPEC-PODS-TOO-SMALL", line_of(&text, "/26"))];
    for (to, id) in [
        ("[[network]]", "SPEC-TYPE"),
        ("[network", "SPEC-TOML"),
        ("network]", "SPEC-TOML"),
        ("[network]]", "SPEC-TOML"),
        ("[[network]", "SPEC-TOML"),
        ("[networks]", "SPEC-UNKNOWN-KEY"),
        ("[[networks]]", "SPEC-UNKNOWN-KEY"),
    ] {
        assert_eq!(told(&edit(&text, "[network]", to)), expected(id), "{to}");
    }
    let image = format!("{HOME}\n[[image]]\nsuite = \"sid\"\n");
    let line = line_of(&image, "[[image]]");
    assert_eq!(told(&image), [("SPEC-TYPE", line), ("SPEC-SUITE", line + 1)]);
    let plugin = format!("{HOME}\n[plugins.world\nbig = inf\n");
    let line = line_of(&plugin, "[plugins.world");
    assert_eq!(told(&plugin), [("SPEC-TOML", line), ("SPEC-PLUGIN-VALUE", line + 1)]);
}

#[test]
fn what_is_there_twice_is_one_mistake_and_judged_twice() {
    let twice = edit(
        HOME,
        "[[node]]",
        "[network]\ncidr = \"192.168.122.0/24\"\npods = \"10.0.0.0/33\"\ndhcp = \"x\"\nvip = 1\n\n[[node]]",
    );
    let line = line_of(&twice, "/33");
    let expected = [
        ("SPEC-DUPLICATE-KEY", line - 2),
        ("SPEC-CIDR", line),
        ("SPEC-RANGE", line + 1),
        ("SPEC-HA-UNSUPPORTED", line + 2),
    ];
    assert_eq!(told(&twice), expected);
    let key = edit(HOME, "ip = \"192.168.122.11\"", "ip = \"192.168.122.11\"\nip = \"x\"\nip = \"y\"");
    let line = line_of(&key, "\"x\"");
    let both = |line| [("SPEC-DUPLICATE-KEY", line), ("SPEC-IP", line)];
    assert_eq!(told(&key), [both(line), both(line + 1)].concat());
    let unknown = edit(HOME, "vcpus = 4", "colour = 1\ncolour = 2");
    let line = line_of(&unknown, "colour");
    assert_eq!(told(&unknown), [("SPEC-UNKNOWN-KEY", line), ("SPEC-DUPLICATE-KEY", line + 1)]);
    // A default is no news beside a line that may be the key.
    let broken = edit(HOME, "[[node]]", "[network]\nname = \"other\"\n\n[[node]]")
        .replace("cidr = \"192.168.122.0/24\"", "cidr = 10.9.0.0/24")
        .replace("\"192.168.122.", "\"10.9.0.")
        .replace("-192.168.122.", "-10.9.0.");
    let ids: Vec<_> = told(&broken).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["SPEC-TOML", "SPEC-DUPLICATE-KEY"]);
}

#[test]
fn a_key_beside_headers_of_its_name_is_one_mistake() {
    for key in
        ["node = []", "node = [{ name = \"x\" }]", "node = 3", "node.name = \"x\"", "node = [\n  {},\n]"]
    {
        let text = edit(HOME, "name = \"home\"", &format!("name = \"home\"\n{key}"));
        let text = edit(&text, "192.168.122.12", "10.0.0.1");
        let line = line_of(&text, key.lines().next().expect("a line"));
        let outside = ("SPEC-IP-OUTSIDE", line_of(&text, "10.0.0.1"));
        assert_eq!(told(&text), [("SPEC-DUPLICATE-KEY", line), outside], "{key}");
    }
    let workers = HOME.replace("control-plane\"", "worker\"");
    let text = edit(&workers, "name = \"home\"", "name = \"home\"\nnode = []");
    let ids: Vec<_> = told(&text).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["SPEC-DUPLICATE-KEY", "SPEC-CONTROL-PLANE-NONE"]);
    let plugins = format!(
        "{}\n[plugins.world]\nbig = inf\n",
        edit(HOME, "name = \"home\"", "name = \"home\"\nplugins = {}")
    );
    let ids: Vec<_> = told(&plugins).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["SPEC-DUPLICATE-KEY", "SPEC-PLUGIN-VALUE"]);
}

#[test]
fn a_part_of_a_node_above_all_nodes_is_one_mistake() {
    let text = edit(HOME, "[[node]]", "[node.labels]\nzone = \"a\"\n\n[[node]]");
    let text = edit(&text, "192.168.122.12", "10.0.0.1");
    let outside = ("SPEC-IP-OUTSIDE", line_of(&text, "10.0.0.1"));
    assert_eq!(told(&text), [("SPEC-TYPE", line_of(&text, "[node.labels]")), outside]);
    let named = HOME.replace("[[node]]\nname = \"", "[node.").replace("-1\"\nrole", "-1]\nrole");
    let named = named.replace("-2\"\nrole", "-2]\nrole");
    let ids: Vec<_> = told(&named).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["SPEC-NO-NODES", "SPEC-TYPE", "SPEC-TYPE", "SPEC-TYPE"]);
    let below = edit(HOME, "# labels = { zone", "[node.labels]\nzone");
    assert_eq!(told(&below.replace("zone = \"a\" }", "zone = \"a\"")), []);
}

#[test]
fn what_is_not_closed_is_told_where_it_opens_and_hides_itself_alone() {
    for opener in ["[", "{", "\"\"\"", "'''", "[[", "[{", "{ a = ["] {
        for (from, key) in
            [("vcpus = 4", "vcpus"), ("cidr = \"192.168.122.0/24\"", "cidr"), ("name = \"home\"", "name")]
        {
            for content in ["", " 4", " \"a\",", " # comment"] {
                let text = edit(HOME, from, &format!("{key} = {opener}{content}"));
                let text = edit(&text, "192.168.122.12", "10.0.0.1");
                let outside = ("SPEC-IP-OUTSIDE", line_of(&text, "10.0.0.1"));
                let line = line_of(&text, &format!("{key} = {opener}"));
                let mut expected = vec![("SPEC-TOML", line), outside];
                if key == "cidr" {
                    // What it is instead is not known.
                    expected.pop();
                }
                assert_eq!(told(&text), expected, "{key} = {opener}{content}");
            }
        }
        // The line behind it, the last entry of a table, and the last of the file.
        let next =
            edit(HOME, "vcpus = 4\nmemory = \"8GiB\"", &format!("vcpus = {opener}\nmemory = \"1GiB\""));
        let line = line_of(&next, "1GiB");
        assert_eq!(told(&next), [("SPEC-TOML", line - 1), ("SPEC-MEMORY-SMALL", line)], "{opener}");
        let last = edit(HOME, "ip = \"192.168.122.11\"", &format!("ip = {opener}\"192.168.122.11\""));
        let last = edit(&last, "192.168.122.12", "10.0.0.1");
        let outside = ("SPEC-IP-OUTSIDE", line_of(&last, "10.0.0.1"));
        assert_eq!(told(&last), [("SPEC-TOML", line_of(&last, "192.168.122.11\"")), outside], "{opener}");
        let end = format!("{}\n[plugins.world]\nx = {opener}1", edit(HOME, "192.168.122.12", "10.0.0.1"));
        let outside = ("SPEC-IP-OUTSIDE", line_of(&end, "10.0.0.1"));
        assert_eq!(told(&end), [outside, ("SPEC-TOML", line_of(&end, &format!("x = {opener}")))], "{opener}");
    }
    for (from, to) in
        [("name = \"home\"", "name = \"home"), ("\"50GiB\"", "[\"50GiB\""), ("\"50GiB\"", "'50GiB")]
    {
        let text = edit(HOME, from, to);
        assert_eq!(told(&text), [("SPEC-TOML", line_of(&text, to))], "{to}");
    }
}

#[test]
fn what_is_closed_over_many_lines_is_no_mistake() {
    let text = edit(
        HOME,
        "# labels = { zone = \"a\" }\n# taints = [\"dedicated=db:NoSchedule\"]",
        "labels = {\n  zone = \"a\", # [[node]]\n  name = \"x\",\n}\ntaints = [\n  \"a=b:NoSchedule\",\n\n  'c=d:NoSchedule' # ]\n]",
    );
    let plugins = r#"
[plugins.world]
matrix = [
  [1],
  [true],
  ["node"],
  [
    [2.5], [2],
  ],
]
hosts = [
  { name = "a", ip = "b" },
  { name = "c",
    ip = "d" }
]
config = """
[[node]]
name = "quoted \"""
[network
x = { [
"""
other = '''
[network]
''''
last = [ """
]""", '''}''' ]
"#;
    let text = format!("{text}{plugins}");
    assert_eq!(told(&text), []);
    assert_eq!(told(&text.replace('\n', "\r\n")), []);
}

#[test]
fn of_several_long_strings_the_open_one_is_told() {
    let text = edit(HOME, "[network]", "[plugins.world]\nmotd = \"\"\"hello\n\n[network]");
    let text = format!("{text}\n[plugins.other]\nmotd = \"\"\"\nbye\n\"\"\"\n");
    let text = edit(&text, "192.168.122.12", "10.0.0.1");
    let outside = ("SPEC-IP-OUTSIDE", line_of(&text, "10.0.0.1"));
    assert_eq!(told(&text), [("SPEC-TOML", line_of(&text, "hello")), outside]);
}

#[test]
fn commas_and_brackets_within_a_value_are_told_at_their_line() {
    let with = |value: &str| {
        let text = edit(HOME, "# labels = { zone = \"a\" }", value);
        edit(&text, "192.168.122.12", "10.0.0.1")
    };
    for (value, line) in [
        ("labels = {\n  zone = \"a\"\n  rack = \"b\"\n}", "rack"),
        ("labels = { zone = \"a\" rack = \"b\" }", "rack"),
        ("labels = { zone = [\"a\" }", "zone = [\"a\""),
        ("labels = { zone = [\"a\",\n  \"b\" }", "zone = [\"a\""),
        ("taints = [\n  \"a=b:NoSchedule\"\n  \"c=d:NoSchedule\"\n]", "c=d"),
        ("taints = [\n  dedicated=db:NoSchedule,\n]", "dedicated=db:NoSchedule,"),
        ("taints = [\"a=b:NoSchedule\", {]", "{]"),
        ("taints = \"a=b:NoSchedule\"]", "NoSchedule\"]"),
        ("taints = [\"a=b:NoSchedule]", "NoSchedule]"),
    ] {
        let text = with(value);
        let outside = ("SPEC-IP-OUTSIDE", line_of(&text, "10.0.0.1"));
        assert_eq!(told(&text), [("SPEC-TOML", line_of(&text, line)), outside], "{value}");
    }
    let open = diagnostics(&with("taints = [\"a=b:NoSchedule]"));
    assert_eq!((open[0].message.as_str(), open[0].column), ("\" is not closed", 11));
}
