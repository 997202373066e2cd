//! Is an object not there, or is its kind not served yet? An API server that has just started says that it is ready before it
//! serves all of its custom kinds. Who forgets an object asks here: a kind that is not served is gone when its definition is.
//! Called by removal and pruning.

use std::time::Duration;

use k8sctl_types::failure::Failure;
use kube::api::ListParams;
use plugin_plan::ObjectKey;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Engine;
use super::request::Place;

/// Between two looks, at first and at most.
const LOOKS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Why a kind that is defined is not served in a version.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unserved {
    /// Its definition was never established, so that there are no objects.
    Never,
    /// This version is served in its place, and has the same objects.
    As(String),
    /// It will be, or nobody knows.
    NotYet,
}

impl Engine {
    /// The object as it is, and where; `None`: there is none. What is not served is waited for while it is defined, and is
    /// gone when it is not and discovery has said twice that it does not have it.
    pub(super) async fn find(&self, key: &ObjectKey) -> Result<Option<(Place, Value)>, Failure> {
        let deadline = Instant::now() + self.limits.kind;
        let (mut key, mut pause, mut said) = (key.clone(), LOOKS.0, false);
        loop {
            if let Some(place) = self.served(&key).await? {
                let answer = self.tried(&key, || place.get(&key.name)).await;
                match answer {
                    Ok(live) => return Ok(Some((place, live))),
                    Err(trouble) if trouble.is_absent() => return Ok(None),
                    Err(trouble) if trouble.is_not_served() => {}
                    Err(trouble) => return Err(self.request_failure(&key, "read", &trouble)),
                }
            }
            let kind = format!("{} {}", key.api_version(), key.kind);
            let definition = self.definition_of(&key).await?;
            let why = match definition {
                Some(definition) => {
                    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
                    match decide_unserved(&definition, &key.version) {
                        Unserved::Never => return Ok(None),
                        Unserved::As(version) => {
                            key.version = version;
                            continue;
                        }
                        Unserved::NotYet => {
                            format!("no {kind} is served now, and its definition {name} is there")
                        }
                    }
                }
                None => {
                    if self.is_unserved_twice(&key).await? {
                        return Ok(None);
                    }
                    format!("{kind} is served, and its objects are not")
                }
            };
            if Instant::now() >= deadline {
                let reason = format!("whether {key} is there cannot be said: {why}");
                let next = "when the kind is served, or its definition is deleted, the same command goes on from here";
                return Err(self.failure("PLUGIN-DEFINITION", reason, next));
            }
            if !said {
                self.say(format!("looking for {key}: {why}"));
                said = true;
            }
            sleep(pause).await;
            pause = (2 * pause).min(LOOKS.1);
        }
    }

    /// Where definitions are, and their names, `pools.example.org`. They are stored objects, which are there from the start.
    pub(super) async fn definitions(&self) -> Result<(Place, Vec<String>), Failure> {
        let any = definition_key("*");
        let place = self.place(&any).await?;
        let params = ListParams::default();
        let listed = self.tried(&any, || place.list_metadata(&params)).await;
        let listed = listed.map_err(|trouble| self.request_failure(&any, "list", &trouble))?;
        let names = listed.iter().filter_map(|object| object["metadata"]["name"].as_str());
        let names = names.map(str::to_owned).collect();
        Ok((place, names))
    }

    /// The definition of an object's kind.
    pub(super) async fn definition_of(&self, key: &ObjectKey) -> Result<Option<Value>, Failure> {
        if key.group.is_empty() {
            return Ok(None);
        }
        let (place, mut names) = self.definitions().await?;
        let suffix = format!(".{}", key.group);
        names.retain(|name| name.ends_with(&suffix));
        for name in names {
            let Some(live) = self.get(&place, &definition_key(&name)).await? else { continue };
            if live["spec"]["group"] == key.group && live["spec"]["names"]["kind"] == key.kind {
                return Ok(Some(live));
            }
        }
        Ok(None)
    }

    /// Discovery has answered twice, a while apart, and has not had the kind.
    async fn is_unserved_twice(&self, key: &ObjectKey) -> Result<bool, Failure> {
        for pause in [Duration::ZERO, LOOKS.1] {
            sleep(pause).await;
            self.wait_started().await;
            match self.tried(key, || self.list_kinds(&key.group, &key.version)).await {
                Ok(all) if all.iter().any(|served| served.resource.kind == key.kind) => return Ok(false),
                Ok(_) => {}
                Err(trouble) if trouble.code() == 404 => {}
                Err(trouble) => return Err(self.request_failure(key, "find the kind of", &trouble)),
            }
        }
        Ok(true)
    }
}

/// A definition by its name.
pub(super) fn definition_key(name: &str) -> ObjectKey {
    ObjectKey {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
    }
}

/// Whether a definition's kind was served once, so that there may be objects of it.
pub(super) fn is_established(definition: &Value) -> bool {
    let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|one| one["type"] == "Established" && one["status"] == "True")
}

/// The versions that a definition serves.
pub(super) fn served_versions(definition: &Value) -> Vec<&str> {
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    let served = versions.into_iter().flatten().filter(|version| version["served"] == true);
    served.filter_map(|version| version["name"].as_str()).collect()
}

fn decide_unserved(definition: &Value, version: &str) -> Unserved {
    if !is_established(definition) {
        return Unserved::Never;
    }
    let served = served_versions(definition);
    match served.first() {
        Some(first) if !served.contains(&version) => Unserved::As((*first).to_owned()),
        _ => Unserved::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(established: &str, served: &[(&str, bool)]) -> Value {
        let version = |&(name, served): &(&str, bool)| json!({"name": name, "served": served});
        let versions: Vec<Value> = served.iter().map(version).collect();
        let accepted = json!({"type": "NamesAccepted", "status": "True"});
        json!({
            "spec": {"versions": versions},
            "status": {"conditions": [accepted, {"type": "Established", "status": established}]},
        })
    }

    #[test]
    fn a_kind_that_is_defined_and_not_served_is_gone_only_if_it_never_was() {
        let decide =
            |established, served: &[(&str, bool)]| decide_unserved(&definition(established, served), "v1");
        assert_eq!(decide("True", &[("v1", true)]), Unserved::NotYet);
        assert_eq!(decide("True", &[("v2", true), ("v1", true)]), Unserved::NotYet);
        assert_eq!(decide("True", &[("v1", false), ("v2", true)]), Unserved::As("v2".to_owned()));
        assert_eq!(
            decide("True", &[("v1", false)]),
            Unserved::NotYet,
            "there may be objects that nobody sees"
        );
        assert_eq!(decide("False", &[("v1", true)]), Unserved::Never);
        assert_eq!(decide_unserved(&Value::Null, "v1"), Unserved::Never);
    }
}
