//! A plugin's config in a file of its own is read as the same table of a cluster file is.

use std::path::Path;

use k8sctl_types::spec::{self, KeyLines};
use serde_json::{Value, json};

use crate::{HOME, line_of, told};

#[test]
fn a_file_of_its_own_is_read_as_in_the_cluster_file() {
    // Its tables are its own, whatever ours are called.
    let text =
        "since = 2026-01-01T00:00:00Z\nday = 2026-01-01\nratio = 1.5\n[node]\nlist = [1, 'a', 09:30:00]\n";
    let config = json!({
        "since": "2026-01-01T00:00:00Z",
        "day": "2026-01-01",
        "ratio": 1.5,
        "node": { "list": [1, "a", "09:30:00"] },
    });
    assert_eq!(spec::plugin_config(text).map(Value::Object), Ok(config.clone()));
    let below = text.replace("[node]", "[plugins.hello.node]");
    let parsed = spec::parse(&format!("{HOME}\n[plugins.hello]\n{below}")).expect("sound");
    assert_eq!(parsed.spec.plugins[0].config, config);
    assert_eq!(spec::plugin_config(""), Ok(serde_json::Map::new()));
}

#[test]
fn what_json_cannot_hold_is_told_with_line_and_key() {
    let text = "limit = inf\n\n[a.\"b c\"]\nx = [1.0, nan]\ny = 99999999999999999999\nz =\n";
    let told = spec::plugin_config(text).expect_err("mistakes");
    let beginnings = [
        "line 1: limit: JSON cannot hold the number inf; write it as a string",
        "line 4: a.\"b c\".x[1]: JSON cannot hold the number nan",
        "line 5: a.\"b c\".y: JSON cannot hold the number 9",
        "line 6: ",
    ];
    assert_eq!(told.len(), beginnings.len(), "{told:#?}");
    for (mistake, beginning) in told.iter().zip(beginnings) {
        assert!(mistake.starts_with(beginning), "{mistake}");
    }
    let deep = format!("x = {}1{}\n", "[".repeat(40), "]".repeat(40));
    let told = spec::plugin_config(&deep).expect_err("too deep");
    assert!(told[0].contains("more than 32 tables in each other"), "{told:?}");
}

/// Row and column of the first character of this, both from 1.
fn place_of(text: &str, needle: &str) -> Option<(u32, u32)> {
    let line = line_of(text, needle);
    let column = text.lines().nth(line as usize - 1)?.find(needle)? as u32 + 1;
    Some((line, column))
}

const METALLB: &str = r#"
[plugins.metallb]
avoid = true
addresses = ["10.0.0.1-10.0.0.9", "10.0.0.20-10.0.0.29"]
"a/b~c" = { deep = [[1], [2, 3]] }

[plugins.metallb.log]
level = "info"

[plugins.empty]
"#;

#[test]
fn each_value_of_a_plugins_config_has_its_place_in_the_file() {
    let text = format!("{HOME}\n{METALLB}");
    let lines = spec::parse(&text).expect("a sound file").lines;
    // The file above may speak of it in comments.
    let above = (text.lines().count() - METALLB.lines().count()) as u32;
    let place_of = |needle| place_of(METALLB, needle).map(|(line, column)| (line + above, column));
    for (pointer, needle) in [
        ("", "metallb]"),
        ("/avoid", "avoid = true"),
        ("/addresses", "addresses = ["),
        ("/addresses/1", "\"10.0.0.20"),
        ("/log/level", "level = \"info\""),
        ("/a~1b~0c/deep/1/1", "3]]"),
        // What is not there is where it would be.
        ("/addresses/7", "addresses = ["),
        ("/log/colour/bright", "log]"),
        ("/nothing", "metallb]"),
        ("nothing", "metallb]"),
    ] {
        assert_eq!(lines.plugin("metallb", pointer), place_of(needle), "{pointer}");
    }
    let line = |place: Option<(u32, u32)>| place.map(|(line, _)| line);
    assert_eq!(line(lines.plugin("metallb", "/a~1b~0c")), Some(line_of(METALLB, "a/b~c") + above));
    assert_eq!(lines.plugin("empty", "/x"), place_of("empty]"));
    assert_eq!(lines.plugin("none", ""), None);

    let (config, places) = spec::plugin_config_places("a = 1\n[b]\nc = [2, 3]\n").expect("sound");
    assert_eq!(Value::Object(config), json!({ "a": 1, "b": { "c": [2, 3] } }));
    assert_eq!((places.of("/b/c/1"), places.of("/b/d"), places.of("/x")), (Some((3, 9)), Some((2, 2)), None));
}

#[test]
fn a_value_is_named_as_one_writes_it() {
    for (pointer, field) in [
        ("", "plugins.metallb"),
        ("/addresses/0", "plugins.metallb.addresses[0]"),
        ("/a~1b~0c/x y", "plugins.metallb.\"a/b~c\".\"x y\""),
        ("replicas", "plugins.metallb.replicas"),
    ] {
        assert_eq!(KeyLines::plugin_field("metallb", pointer), field);
    }
}

/// What is deep below long keys has the place of what is above it.
#[test]
fn pointers_take_no_more_room_than_there_is() {
    let key = "k".repeat(600);
    let text = format!("{HOME}\n[plugins.x]\n{key} = [1, 2]\nlist = [{}]\n", "1,".repeat(400_000));
    let lines = spec::parse(&text).expect("a sound file").lines;
    let root = lines.plugin("x", "");
    assert!(root.is_some());
    assert_eq!(lines.plugin("x", &format!("/{key}/1")), root);
    assert_eq!(lines.plugin("x", "/list/399999"), lines.plugin("x", "/list"));
    assert_ne!(lines.plugin("x", "/list/1"), lines.plugin("x", "/list"));
}

#[test]
fn a_plugin_may_come_from_elsewhere_by_an_absolute_path() {
    let with = |packages: &str| format!("{HOME}\n[plugins.acme]\nreplicas = 2\n[plugins.hello]\n{packages}");
    let text = with("[plugin_packages]\nacme = \"/srv/plugins/acme-1.2.0.tar.zst\"\n");
    let spec = spec::parse(&text).expect("a sound file").spec;
    let sources: Vec<_> = spec.plugins.iter().map(|it| (it.name.as_str(), it.source.as_deref())).collect();
    assert_eq!(sources, [("acme", Some(Path::new("/srv/plugins/acme-1.2.0.tar.zst"))), ("hello", None)]);
    // A cluster that was stored before this key was.
    let mut stored = serde_json::to_value(&spec).expect("plain values");
    for plugin in stored["plugins"].as_array_mut().expect("an array") {
        plugin.as_object_mut().expect("an object").remove("source");
    }
    let read: spec::ClusterSpec = serde_json::from_value(stored).expect("it is read");
    assert!(read.plugins.iter().all(|plugin| plugin.source.is_none()));

    let wrong = "[plugin_packages]\nacme = \"plugins/acme\"\nother = \"/srv/other\"\nhello = 7\n";
    let text = with(wrong);
    let line = |needle: &str| line_of(&text, needle);
    let package = "SPEC-PLUGIN-PACKAGE";
    assert_eq!(
        told(&text),
        [(package, line("acme = \"plugins")), (package, line("other =")), ("SPEC-TYPE", line("hello = 7"))]
    );
    assert_eq!(told(&format!("{HOME}\n[plugin_packages]\nx = \"/x\"\n")).len(), 1, "no plugins at all");
    assert_eq!(told(&with("[[plugin_packages]]\nacme = \"/srv/acme\"\n")).len(), 1);
}
