//! Compares a plan with a file in the plugin's crate, for the plugin's own tests. `K8SCTL_GOLDEN=write` writes the
//! file anew, to be read before it is committed.

use std::path::Path;

use serde_json::Value;

use crate::context::Context;
use crate::plan::Plan;
use crate::plugin::Plugin;
use crate::raw::OpenPlugin;

/// Plans with this config and compares with the file at `path`.
///
/// # Panics
/// If the config is refused, the file is missing, or the plan differs from it.
pub fn assert_plan<P: Plugin>(plugin: &P, config_json: &str, context: &Context, path: impl AsRef<Path>) {
    let config = serde_json::from_str(config_json).expect("the config of a golden test parses");
    let plan = plugin
        .plan(&config, context)
        .unwrap_or_else(|mistakes| panic!("the config is refused: {mistakes:?}"));
    compare(&plan, path.as_ref());
}

/// The same for a plugin whose schema is data.
///
/// # Panics
/// As [`assert_plan`].
pub fn assert_raw_plan(
    plugin: &dyn OpenPlugin,
    config_json: &str,
    context: &Context,
    path: impl AsRef<Path>,
) {
    let config: Value = serde_json::from_str(config_json).expect("the config of a golden test parses");
    let (plan, _) = plugin
        .plan(&config, context)
        .unwrap_or_else(|mistakes| panic!("the config is refused: {mistakes:?}"));
    compare(&plan, path.as_ref());
}

fn compare(plan: &Plan, path: &Path) {
    let writes = std::env::var_os("K8SCTL_GOLDEN").is_some_and(|value| value == "write");
    hold(plan, path, writes);
}

fn hold(plan: &Plan, path: &Path, writes: bool) {
    let mut got = serde_json::to_string_pretty(plan).expect("a plan is JSON");
    got.push('\n');
    if writes {
        let folder = path.parent().unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, &got));
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
    let wanted = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}; K8SCTL_GOLDEN=write makes it", path.display()));
    assert_eq!(wanted, got, "the plan is not what {} holds; K8SCTL_GOLDEN=write updates it", path.display());
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use serde_json::json;

    use super::*;

    /// What a test says that compares; `None`: it passes.
    fn said(plan: &Plan, path: &Path) -> Option<String> {
        let panic = catch_unwind(|| hold(plan, path, false)).err()?;
        Some(panic.downcast_ref::<String>().cloned().unwrap_or_default())
    }

    #[test]
    fn only_the_plan_that_was_written_passes() {
        let plan = Plan::default().object(json!({"kind": "A"}));
        let folder = std::env::temp_dir().join(format!("k8sctl-golden-{}", std::process::id()));
        let file = folder.join("a/plan.json");
        let missing = said(&plan, &file).expect("there is none yet");
        assert!(missing.contains("K8SCTL_GOLDEN=write makes it"), "{missing}");
        hold(&plan, &file, true);
        assert_eq!(said(&plan, &file), None);
        let other = said(&plan.object(json!({"kind": "B"})), &file).expect("it has one more object");
        assert!(other.contains("the plan is not what"), "{other}");
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
