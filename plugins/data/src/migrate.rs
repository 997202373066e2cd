//! Configs of older versions: each `[[migrate]]` brings one of its version to the next.

use plugin_sdk::{Diagnostic, nothing_older};
use serde_json::{Map, Value};

use crate::description::MigrationTable;

/// A config of the version `own`. What a step renames and the config does not have is passed over.
pub(crate) fn migrate(
    steps: &[MigrationTable],
    from: u32,
    own: u32,
    mut config: Value,
) -> Result<Value, Vec<Diagnostic>> {
    for version in from..own {
        let mut of_version = steps.iter().filter(|step| step.from == version).peekable();
        if of_version.peek().is_none() {
            return Err(nothing_older(from));
        }
        for step in of_version {
            apply(step, &mut config).map_err(|mistake| vec![mistake])?;
        }
    }
    Ok(config)
}

fn apply(step: &MigrationTable, config: &mut Value) -> Result<(), Diagnostic> {
    // All are taken first: two settings may change places.
    let taken: Vec<(&String, Value)> =
        step.rename.iter().filter_map(|(from, to)| Some((to, take(config, from)?))).collect();
    let set = step.set.iter().map(|(place, value)| (place, value.clone()));
    for (place, value) in taken.into_iter().chain(set) {
        put(config, place, value)?;
    }
    for place in &step.remove {
        take(config, place);
    }
    Ok(())
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

fn take(config: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, name) = pointer.rsplit_once('/')?;
    config.pointer_mut(parent)?.as_object_mut()?.remove(&unescaped(name))
}

/// Makes the tables on the way that are not there.
fn put(config: &mut Value, pointer: &str, value: Value) -> Result<(), Diagnostic> {
    let mut place = config;
    for part in pointer.split('/').skip(1) {
        let Value::Object(fields) = place else {
            let hint = "write it as the plugin's new schema describes it";
            return Err(Diagnostic::error("", format!("there is no place for {pointer}"), hint));
        };
        place = fields.entry(unescaped(part)).or_insert_with(|| Value::Object(Map::new()));
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn steps(text: &str) -> Vec<MigrationTable> {
        let data: crate::description::Data = toml::from_str(text).expect("it parses");
        data.migrations
    }

    #[test]
    fn each_step_brings_it_to_the_next_version() {
        let steps = steps(
            r#"
            [[migrate]]
            from = 1
            rename = { "/old" = "/new/name", "/a" = "/b", "/b" = "/a" }
            set = { "/kind" = "x" }
            [[migrate]]
            from = 2
            rename = { "/new/name" = "/text" }
            remove = ["/new", "/gone/too"]
            "#,
        );
        let old = json!({"old": 1, "a": 2, "b": 3});
        assert_eq!(migrate(&steps, 1, 3, old), Ok(json!({"text": 1, "a": 3, "b": 2, "kind": "x"})));
        assert_eq!(migrate(&steps, 2, 3, json!({"new": {"name": 1}})), Ok(json!({"text": 1})));
        assert_eq!(migrate(&steps, 2, 3, json!({})), Ok(json!({})));
        assert_eq!(migrate(&steps, 1, 4, json!({})), Err(nothing_older(1)), "nothing leads from 3 to 4");
    }

    #[test]
    fn what_is_no_table_holds_nothing() {
        let steps = steps("[[migrate]]\nfrom = 1\nrename = { \"/a\" = \"/b/c\" }");
        let mistakes = migrate(&steps, 1, 2, json!({"a": 1, "b": 2})).expect_err("b is a number");
        assert_eq!(mistakes[0].message, "there is no place for /b/c");
        migrate(&steps, 1, 2, json!([])).expect("a list has none of them");
    }
}
