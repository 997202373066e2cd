//! Holds up what needs something that comes before it and is there later than it seems: kinds are served only a while
//! after their definition was made, and a webhook answers only a while after its pods are ready.

use std::time::Duration;

use k8sctl_types::failure::Failure;
use plugin_plan::readiness::{Readiness, ReadyContext, decide_ready};
use plugin_plan::{CheckedPlan, ObjectKey, Planned};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Engine;
use super::meta::Ownership;
use super::retry::{Again, decide_retry};

/// Between two looks for what is to come, at first and at most.
const LOOKS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// How often in a row a webhook must have answered, and how far apart.
const ANSWERS: (u32, Duration) = (3, Duration::from_secs(1));

impl Engine {
    /// Until all definitions of a plan are established and the kinds are served, and its namespaces are there.
    pub(super) async fn wait_definitions(&self, plan: &CheckedPlan) -> Result<(), Failure> {
        let deadline = Instant::now() + self.limits.kind;
        for planned in &plan.objects {
            if planned.key.is_definition() {
                self.wait_definition(plan, planned, deadline).await?;
            } else if planned.key.is_namespace() {
                self.wait_ready(plan, &[planned], deadline, false).await?;
            }
        }
        Ok(())
    }

    async fn wait_definition(
        &self,
        plan: &CheckedPlan,
        planned: &Planned,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut pause = LOOKS.0;
        let mut said = String::new();
        loop {
            let why = self.definition_waits_for(plan, planned).await?;
            let Some((why, hopeless)) = why else { return Ok(()) };
            if hopeless || Instant::now() >= deadline {
                let reason =
                    format!("{} does not serve its kind after {:?}: {why}", planned.key, self.limits.kind);
                let next = format!(
                    "kubectl describe customresourcedefinition {} says more; the same command goes on from here",
                    planned.key.name
                );
                return Err(self.failure("PLUGIN-DEFINITION", reason, next));
            }
            if why != said {
                self.say(format!("waiting for {}: {why}", planned.key));
                self.tell_blocking(&planned.key, &why, None);
                said = why;
            }
            sleep(pause).await;
            pause = (2 * pause).min(LOOKS.1);
        }
    }

    /// Why a definition does not serve its kind yet, and whether it ever will; `None`: it does.
    async fn definition_waits_for(
        &self,
        plan: &CheckedPlan,
        planned: &Planned,
    ) -> Result<Option<(String, bool)>, Failure> {
        let place = self.place(&planned.key).await?;
        let Some(live) = self.get(&place, &planned.key).await? else {
            return Ok(Some(("it was deleted by somebody else".to_owned(), true)));
        };
        // That it was seen by its controller shows in its conditions.
        let context = ReadyContext { generation: None, waits_for_consumer: false, may_be_empty: false };
        match decide_ready(&planned.key, &live, &plan.readiness, &context) {
            Readiness::Ready => {}
            Readiness::Waiting(why) => return Ok(Some((why, false))),
            Readiness::Failed(why) => return Ok(Some((why, true))),
        }
        for kind in kinds_of(&live) {
            let all = self.tried(&planned.key, || self.list_kinds(&kind.group, &kind.version)).await;
            let is_served = match all {
                Ok(all) => all.iter().any(|served| served.resource.kind == kind.kind),
                Err(trouble) if trouble.code() == 404 => false,
                Err(trouble) => return Err(self.request_failure(&planned.key, "find the kind of", &trouble)),
            };
            if !is_served {
                let version = kind.api_version();
                return Ok(Some((
                    format!("it is established, and {version} {} is not served yet", kind.kind),
                    false,
                )));
            }
        }
        Ok(None)
    }

    /// Until the webhooks that judge these objects answer.
    pub(super) async fn open_gate(&self, plan: &CheckedPlan, guarded: &[&Planned]) -> Result<(), Failure> {
        let deadline = Instant::now() + self.limits.webhook;
        // Of each kind one stands for all.
        let mut samples: Vec<&Planned> = Vec::new();
        for planned in guarded.iter().copied() {
            if !samples
                .iter()
                .any(|one| (&one.key.group, &one.key.kind) == (&planned.key.group, &planned.key.kind))
            {
                samples.push(planned);
            }
        }
        let (mut in_row, mut said) = (0, String::new());
        loop {
            let why = match self.webhook_waits_for(plan).await? {
                Some(why) => Some(why),
                None => self.sample_waits_for(&samples).await?,
            };
            let Some((object, why)) = why else {
                in_row += 1;
                if in_row >= ANSWERS.0 {
                    self.progress.blocked(None);
                    return Ok(());
                }
                sleep(ANSWERS.1).await;
                continue;
            };
            in_row = 0;
            if Instant::now() >= deadline {
                let reason = format!("{object} has no webhook after {:?}: {why}", self.limits.webhook);
                let next = "see the pods of that webhook; the same command goes on from here";
                return Err(self.failure("PLUGIN-WEBHOOK", reason, next));
            }
            if why != said {
                self.say(format!("waiting for the webhook of {object}: {why}"));
                self.tell_blocking(&object, &why, None);
                said = why;
            }
            sleep(ANSWERS.1).await;
        }
    }

    /// A webhook of the plan whose certificate or pods are missing.
    async fn webhook_waits_for(&self, plan: &CheckedPlan) -> Result<Option<(ObjectKey, String)>, Failure> {
        for planned in plan.objects.iter().filter(|planned| is_webhook_configuration(&planned.key)) {
            let place = self.place(&planned.key).await?;
            let Some(live) = self.get(&place, &planned.key).await? else {
                return Ok(Some((planned.key.clone(), "it was deleted by somebody else".to_owned())));
            };
            for webhook in live["webhooks"].as_array().into_iter().flatten() {
                let name = webhook["name"].as_str().unwrap_or_default();
                let client = &webhook["clientConfig"];
                if client["caBundle"].as_str().unwrap_or_default().is_empty() {
                    let why = format!("nobody has put a certificate authority into {name}");
                    return Ok(Some((planned.key.clone(), why)));
                }
                if let Some(why) = self.service_waits_for(&client["service"]).await? {
                    return Ok(Some((planned.key.clone(), why)));
                }
            }
        }
        Ok(None)
    }

    /// Whether a webhook's Service has a pod that is ready.
    async fn service_waits_for(&self, service: &Value) -> Result<Option<String>, Failure> {
        let (Some(namespace), Some(name)) = (service["namespace"].as_str(), service["name"].as_str()) else {
            return Ok(None);
        };
        let key = ObjectKey {
            group: String::new(),
            version: "v1".to_owned(),
            kind: "Endpoints".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let place = self.place(&key).await?;
        let endpoints = self.get(&place, &key).await?.unwrap_or_default();
        let subsets = endpoints["subsets"].as_array();
        let has_address = |subset: &Value| subset["addresses"].as_array().is_some_and(|all| !all.is_empty());
        let is_there = subsets.is_some_and(|subsets| subsets.iter().any(has_address));
        Ok((!is_there).then(|| format!("no pod of the Service {namespace}/{name} is ready")))
    }

    /// The first of these that cannot be applied for want of a webhook. Any other answer is one.
    async fn sample_waits_for(&self, samples: &[&Planned]) -> Result<Option<(ObjectKey, String)>, Failure> {
        for planned in samples.iter().copied() {
            let key = &planned.key;
            let place = self.place_soon(key).await?;
            let wanted = self.wanted(planned, None)?;
            let params = self.params(planned, Ownership::Absent).dry_run();
            if let Err(trouble) = self.once(place.apply(&key.name, &params, &wanted)).await
                && let Some(Again::Webhook | Again::Server) = decide_retry(&trouble, false)
            {
                return Ok(Some((key.clone(), trouble.message().to_owned())));
            }
        }
        Ok(None)
    }
}

fn is_webhook_configuration(key: &ObjectKey) -> bool {
    key.group == "admissionregistration.k8s.io" && key.kind.ends_with("WebhookConfiguration")
}

/// The kinds that a definition serves, one per version, as keys without a name.
fn kinds_of(definition: &Value) -> Vec<ObjectKey> {
    let text =
        |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (group, kind) = (text("/spec/group"), text("/spec/names/kind"));
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    let served = versions.into_iter().flatten().filter(|version| version["served"] == true);
    served
        .filter_map(|version| version["name"].as_str())
        .map(|version| ObjectKey {
            group: group.clone(),
            version: version.to_owned(),
            kind: kind.clone(),
            namespace: String::new(),
            name: String::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_serves_each_of_its_served_versions() {
        let definition = json!({"spec": {
            "group": "example.org", "names": {"kind": "Pool"},
            "versions": [{"name": "v1", "served": true}, {"name": "v1alpha1", "served": false}, {"name": "v2", "served": true}],
        }});
        let versions: Vec<String> = kinds_of(&definition).iter().map(ObjectKey::api_version).collect();
        assert_eq!(versions, ["example.org/v1", "example.org/v2"]);
    }

    #[test]
    fn webhooks_are_told_from_policies_of_the_same_group() {
        let key = |kind: &str| ObjectKey {
            group: "admissionregistration.k8s.io".to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            namespace: String::new(),
            name: "x".to_owned(),
        };
        assert!(is_webhook_configuration(&key("ValidatingWebhookConfiguration")));
        assert!(is_webhook_configuration(&key("MutatingWebhookConfiguration")));
        assert!(!is_webhook_configuration(&key("ValidatingAdmissionPolicy")));
    }
}
