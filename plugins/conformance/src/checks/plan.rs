//! Is a plan of it one that a host agent would apply, as far as that can be told without fetching anything?

use std::collections::{BTreeMap, BTreeSet};

use plugin_plan::readiness::has_readiness;
use plugin_plan::{CheckContext, ObjectKey, check_plan};
use serde_json::Value;

use crate::context::Context;

/// 8: every object within the permissions of plugin.toml, and all else that a host agent asks of a plan.
pub(super) async fn permissions(context: &Context) -> Vec<String> {
    let (plans, mut wrong) = context.plans().await;
    for planned in plans {
        let secrets = context.secrets_in(&planned.config);
        let check = CheckContext {
            manifest: &context.subject.package.manifest,
            fetched: &BTreeMap::new(),
            without_bodies: true,
            secrets: &secrets,
            accounts: &BTreeSet::new(),
        };
        if let Err(failure) = check_plan(planned.plan, &check) {
            let lines = failure.evidence.lines().map(str::to_owned);
            wrong.extend(if failure.evidence.is_empty() {
                vec![failure.to_string()]
            } else {
                lines.collect()
            });
        }
    }
    wrong
}

/// 9: manifests come from declared places and are pinned, images are of a version.
pub(super) async fn pinned(context: &Context) -> Vec<String> {
    let (plans, mut wrong) = context.plans().await;
    let manifest = &context.subject.package.manifest;
    let images = manifest.images.iter().map(|image| image.name.clone());
    let mut images: BTreeSet<String> = images.collect();
    for planned in &plans {
        for remote in &planned.plan.remotes {
            let url = &remote.url;
            if !url.starts_with("https://") || !manifest.may_fetch(url) {
                wrong.push(format!("{url} is not below a [[remote]] prefix of plugin.toml, by https"));
            }
            if remote.sha256.len() != 64 || !remote.sha256.chars().all(|c| c.is_ascii_hexdigit()) {
                wrong.push(format!("{url} has the digest {:?}, expected 64 hex digits", remote.sha256));
            }
        }
        for planned_object in &planned.plan.objects {
            images_in(&planned_object.object, &mut images);
        }
    }
    wrong.extend(images.iter().filter_map(|image| unpinned(image)));
    wrong
}

/// Images of containers, wherever pod specs lie.
fn images_in(value: &Value, images: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let containers = ["containers", "initContainers"].contains(&name.as_str());
                let items = field.as_array().filter(|_| containers).into_iter().flatten();
                images.extend(items.filter_map(|item| item["image"].as_str()).map(str::to_owned));
                images_in(field, images);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| images_in(item, images)),
        _ => {}
    }
}

fn unpinned(image: &str) -> Option<String> {
    if let Some((_, digest)) = image.split_once('@') {
        let is_digest = digest.split_once(':').is_some_and(|(_, hex)| !hex.is_empty());
        return (!is_digest).then(|| format!("the image {image} has a digest that is none"));
    }
    // A colon before the last slash is a port's.
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once(':') {
        Some((_, "latest" | "")) => {
            Some(format!("the image {image} is another one tomorrow: expected a version"))
        }
        Some(_) => None,
        None => Some(format!("the image {image} has no tag and no digest: expected a version")),
    }
}

/// 10: every object is of a kind of which it is known when it is ready.
pub(super) async fn readiness(context: &Context) -> Vec<String> {
    let (plans, mut wrong) = context.plans().await;
    for planned in &plans {
        for object in &planned.plan.objects {
            match ObjectKey::of(&object.object) {
                Ok(key) if has_readiness(&key, &planned.plan.readiness) => {}
                Ok(key) => wrong.push(format!("{key}: there is no rule that says when it is ready")),
                Err(why) => wrong.push(format!("an object of its plan: {why}")),
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_have_a_version_that_stays() {
        let digest = format!("registry.example:5000/a@sha256:{}", "0".repeat(64));
        for image in ["a:1", "registry.example:5000/a/b:v1.2", digest.as_str()] {
            assert_eq!(unpinned(image), None, "{image}");
        }
        for image in ["a", "a:latest", "registry.example:5000/a", "a@sha256", "a@", "a:"] {
            assert!(unpinned(image).is_some(), "{image}");
        }
    }

    #[test]
    fn images_are_found_in_whatever_makes_pods() {
        let object = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {
            "initContainers": [{"image": "a:1"}], "containers": [{"image": "b:1"}, {"name": "none"}],
        }}}}}});
        let mut images = BTreeSet::new();
        images_in(&object, &mut images);
        assert_eq!(images, ["a:1".to_owned(), "b:1".to_owned()].into());
    }
}
