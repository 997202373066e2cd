//! A plugin's config in a file of its own is read as the same table of a cluster file is.

use k8sctl_types::spec;
use serde_json::{Value, json};

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
    let parsed = spec::parse(&format!("{}\n[plugins.hello]\n{below}", crate::HOME)).expect("sound");
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
