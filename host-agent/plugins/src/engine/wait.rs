//! Waits: for kinds to be served, objects to be ready, objects to be gone. Every wait reads the truth again on each
//! event and at least every [`LOOK`], and ends at its deadline with a failure that names what blocks it.

use std::time::Duration;

use futures::StreamExt;
use k8sctl_types::failure::Failure;
use kube::Api;
use kube::api::WatchParams;
use kube::core::DynamicObject;
use tokio::time::{Instant, timeout};

use super::Engine;
use super::api::chain;
use super::ready::{Readiness, decide_ready};
use crate::plan::{ObjectKey, Planned, ReadinessRule};

/// Longest time between two looks, whatever the events say.
const LOOK: Duration = Duration::from_secs(2);

/// The object that blocks, how it was last seen, and why it blocks.
struct Blocking {
    api: Api<DynamicObject>,
    key: ObjectKey,
    live: Option<DynamicObject>,
    why: Readiness,
}

impl Engine {
    /// Until every object is ready.
    pub(super) async fn wait_ready(
        &self,
        planned: &[&Planned],
        rules: &[ReadinessRule],
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut pending: Vec<&ObjectKey> = planned.iter().map(|planned| &planned.key).collect();
        let mut said = String::new();
        while let Some(blocking) = self.first_blocking(&mut pending, rules).await? {
            let (why, hopeless) = match &blocking.why {
                Readiness::Failed(why) => (why, true),
                Readiness::Waiting(why) => (why, false),
                Readiness::Ready => continue,
            };
            let line = format!("waiting for {}: {why}", blocking.key);
            if line != said {
                self.say(&line);
                said = line;
            }
            let now = Instant::now();
            if hopeless || now >= deadline {
                return Err(self.not_ready(&blocking, why, hopeless).await);
            }
            let version = blocking.live.and_then(|live| live.metadata.resource_version);
            changed(&blocking.api, &blocking.key, version.as_deref(), LOOK.min(deadline - now)).await;
        }
        Ok(())
    }

    /// Drops those that are ready from the front; the first that is not blocks.
    async fn first_blocking(
        &self,
        pending: &mut Vec<&ObjectKey>,
        rules: &[ReadinessRule],
    ) -> Result<Option<Blocking>, Failure> {
        while let Some(key) = pending.first().copied() {
            let api = self.api(key).await?;
            let (live, why) = match api.get_opt(&key.name).await {
                Ok(Some(live)) => {
                    let value = serde_json::to_value(&live).unwrap_or_default();
                    let why = decide_ready(key, &value, rules);
                    (Some(live), why)
                }
                Ok(None) => (None, Readiness::Failed("it was deleted by somebody else".to_owned())),
                Err(error) => (None, Readiness::Waiting(format!("cannot read it: {}", chain(&error)))),
            };
            if why != Readiness::Ready {
                return Ok(Some(Blocking { api, key: key.clone(), live, why }));
            }
            pending.remove(0);
        }
        Ok(None)
    }

    async fn not_ready(&self, blocking: &Blocking, why: &str, hopeless: bool) -> Failure {
        let key = &blocking.key;
        let (pod, evidence) = self.explain(key, blocking.live.as_ref()).await;
        let pod = pod.map(|pod| format!("; {pod}")).unwrap_or_default();
        let reason = if hopeless {
            format!("{key} will not become ready: {why}{pod}")
        } else {
            format!("{key} is not ready after {:?}: {why}{pod}", self.limits.ready)
        };
        let next = format!("{} says more; the same command goes on from here", kubectl("describe", key));
        self.failure("PLUGIN-NOT-READY", reason, next).with_evidence(evidence)
    }

    /// Until the object of this UID is gone.
    pub(super) async fn wait_gone(
        &self,
        api: &Api<DynamicObject>,
        key: &ObjectKey,
        uid: &str,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + self.limits.gone;
        let mut said = String::new();
        loop {
            let live = self.get(api, key).await?;
            let Some(live) = live.filter(|live| live.metadata.uid.as_deref() == Some(uid)) else {
                return Ok(());
            };
            let now = Instant::now();
            let held = self.what_holds(key, &live).await;
            if now >= deadline {
                let reason =
                    format!("{key} was deleted and is still there after {:?}: {held}", self.limits.gone);
                let status = live.data.get("status").map(|status| status.to_string()).unwrap_or_default();
                let next = format!(
                    "{} -o yaml says more; see to what holds it, then run the same command again: it goes on from here",
                    kubectl("get", key)
                );
                return Err(self.failure("PLUGIN-NOT-GONE", reason, next).with_evidence(status));
            }
            let line = format!("waiting until {key} is gone: {held}");
            if line != said {
                self.say(&line);
                said = line;
            }
            let version = live.metadata.resource_version.as_deref();
            changed(api, key, version, LOOK.min(deadline - now)).await;
        }
    }

    /// Until the kind is served: its definition may have been established a moment ago.
    pub(super) async fn wait_served(&self, key: &ObjectKey) -> Result<(), Failure> {
        let deadline = Instant::now() + self.limits.kind;
        let group_is_builtin = !key.group.contains('.') || key.group.ends_with(".k8s.io");
        while self.served(key).await?.is_none() {
            if group_is_builtin || Instant::now() >= deadline {
                break; // The caller says that it is not served.
            }
            // Discovery has no events.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }
}

/// What a person types to look at the object.
fn kubectl(verb: &str, key: &ObjectKey) -> String {
    let place = if key.namespace.is_empty() { String::new() } else { format!(" -n {}", key.namespace) };
    format!("kubectl{place} {verb} {} {}", key.kind.to_lowercase(), key.name)
}

/// Returns when the object has changed since `version`, and after `at_most` in any case.
async fn changed(api: &Api<DynamicObject>, key: &ObjectKey, version: Option<&str>, at_most: Duration) {
    let watch = async {
        let params = WatchParams::default().fields(&format!("metadata.name={}", key.name)).timeout(30);
        if let Some(version) = version
            && let Ok(stream) = api.watch(&params, version).await
            && let Some(Ok(_)) = Box::pin(stream).next().await
        {
            return;
        }
        // Nothing to watch, or it broke: the time decides.
        std::future::pending::<()>().await;
    };
    let _ = timeout(at_most, watch).await;
}
