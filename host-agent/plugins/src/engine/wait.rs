//! Waits: for objects to be ready, and for objects to be gone. Every wait reads the truth again on each event and at least
//! every [`LOOK`], and ends at its deadline with a failure that names what blocks it.

use std::time::{Duration, SystemTime};

use k8sctl_types::failure::Failure;
use plugin_plan::readiness::{Readiness, ReadyContext, decide_ready, may_waver};
use plugin_plan::{CheckedPlan, ObjectKey, Planned};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::observe::{entry_of, has_run};
use super::request::Place;
use super::{Blocking, Engine, READS, all_of};
use crate::inventory::Entry;

/// Longest time between two looks, whatever the events say.
const LOOK: Duration = Duration::from_secs(2);
/// What a blocking object's pods say is asked for so often.
const EXPLAIN: Duration = Duration::from_secs(5);
/// Longest that making an object anew waits for the old one.
const REPLACED: Duration = Duration::from_secs(120);

/// Why an object has to be gone, which says how long that may take and what it is called when it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// We deleted it.
    Deleted,
    /// It was being deleted before we came.
    Leaving,
    /// We deleted it to make it anew.
    Replaced,
    /// A namespace of ours was being deleted before we came.
    NamespaceFirst,
}

/// An object that is not ready.
struct Pending<'p> {
    planned: &'p Planned,
    live: Option<Value>,
    why: Readiness,
}

impl Engine {
    /// Until every one of these is ready. With `settle`: and still is a while later, where it may waver.
    pub(super) async fn wait_ready(
        &self,
        plan: &CheckedPlan,
        planned: &[&Planned],
        deadline: Instant,
        settle: bool,
    ) -> Result<(), Failure> {
        let entries = self.entries().await?;
        let looked_at: Vec<&Planned> =
            planned.iter().copied().filter(|planned| !is_ready_when_there(plan, planned)).collect();
        let mut pending = looked_at.clone();
        loop {
            self.wait_all(plan, &entries, pending, deadline).await?;
            pending = looked_at.iter().copied().filter(|planned| may_waver(&planned.key)).collect();
            if !settle || pending.is_empty() || self.limits.stable.is_zero() {
                break;
            }
            sleep(self.limits.stable).await;
            let wavering = self.not_ready(plan, &entries, &pending).await?;
            let Some(first) = wavering.first() else { break };
            if let (true, Readiness::Waiting(why) | Readiness::Failed(why)) =
                (Instant::now() >= deadline, &first.why)
            {
                return Err(self.not_ready_failure(first, why, false).await);
            }
        }
        Ok(())
    }

    async fn wait_all(
        &self,
        plan: &CheckedPlan,
        entries: &[Entry],
        mut pending: Vec<&Planned>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let (mut said, mut explained) = (String::new(), None::<Instant>);
        loop {
            let left = self.not_ready(plan, entries, &pending).await?;
            let hopeless = left.iter().find(|one| matches!(one.why, Readiness::Failed(_)));
            let Some(first) = hopeless.or(left.first()) else { return Ok(()) };
            let (Readiness::Waiting(why) | Readiness::Failed(why)) = &first.why else { return Ok(()) };
            let now = Instant::now();
            if hopeless.is_some() || now >= deadline {
                return Err(self.not_ready_failure(first, why, hopeless.is_some()).await);
            }
            let line = format!("waiting for {}: {why}", first.planned.key);
            let is_news = line != said;
            if is_news {
                self.say(&line);
                said = line;
            }
            if is_news || explained.is_none_or(|time| now - time >= EXPLAIN) {
                let (pod, _) = self.explain(&first.planned.key, first.live.as_ref()).await;
                self.tell_blocking(&first.planned.key, why, pod);
                explained = Some(now);
            }
            self.wait_for_change(first, LOOK.min(deadline - now)).await;
            pending = left.into_iter().map(|one| one.planned).collect();
        }
    }

    pub(super) fn tell_blocking(&self, key: &ObjectKey, why: &str, pod: Option<String>) {
        let (object, reason) = (key.to_string(), why.to_owned());
        self.progress.blocked(Some(Blocking { object, reason, pod, since: SystemTime::now() }));
    }

    /// Those that are not ready now, in their order.
    async fn not_ready<'p>(
        &self,
        plan: &CheckedPlan,
        entries: &[Entry],
        planned: &[&'p Planned],
    ) -> Result<Vec<Pending<'p>>, Failure> {
        let mut asked = Vec::with_capacity(planned.len());
        for one in planned.iter().copied() {
            asked.push(self.pending(plan, entries, one));
        }
        let answers = all_of(READS, asked).await?;
        Ok(answers.into_iter().filter(|one| one.why != Readiness::Ready).collect())
    }

    async fn pending<'p>(
        &self,
        plan: &CheckedPlan,
        entries: &[Entry],
        planned: &'p Planned,
    ) -> Result<Pending<'p>, Failure> {
        let (live, why) = self.readiness(plan, planned, entry_of(entries, &planned.key)).await?;
        Ok(Pending { planned, live, why })
    }

    /// The object as it is, and whether it is ready.
    pub(super) async fn readiness(
        &self,
        plan: &CheckedPlan,
        planned: &Planned,
        entry: Option<&Entry>,
    ) -> Result<(Option<Value>, Readiness), Failure> {
        let key = &planned.key;
        let live = match self.served(key).await? {
            Some(place) => self.get(&place, key).await?,
            None => None,
        };
        let Some(live) = live else {
            let gone = || Readiness::Failed("it was deleted by somebody else".to_owned());
            let why = if has_run(planned, entry) { Readiness::Ready } else { gone() };
            return Ok((None, why));
        };
        let why = self.readiness_of(plan, planned, &live, entry.and_then(|entry| entry.generation)).await;
        Ok((Some(live), why))
    }

    pub(super) async fn readiness_of(
        &self,
        plan: &CheckedPlan,
        planned: &Planned,
        live: &Value,
        generation: Option<i64>,
    ) -> Readiness {
        let context = ReadyContext {
            generation,
            waits_for_consumer: self.waits_for_consumer(&planned.key, live).await,
            may_be_empty: planned.handling.may_be_empty,
        };
        decide_ready(&planned.key, live, &plan.readiness, &context)
    }

    /// Whether a claim's class gives volumes to pods only. Where that cannot be read it counts as no.
    async fn waits_for_consumer(&self, key: &ObjectKey, live: &Value) -> bool {
        if !key.group.is_empty() || key.kind != "PersistentVolumeClaim" {
            return false;
        }
        let Some(class) = live.pointer("/spec/storageClassName").and_then(Value::as_str) else {
            return false;
        };
        let class = ObjectKey {
            group: "storage.k8s.io".to_owned(),
            version: "v1".to_owned(),
            kind: "StorageClass".to_owned(),
            namespace: String::new(),
            name: class.to_owned(),
        };
        let Ok(Some(place)) = self.served(&class).await else { return false };
        let class = self.get(&place, &class).await;
        class.is_ok_and(|class| {
            class.is_some_and(|class| class["volumeBindingMode"] == "WaitForFirstConsumer")
        })
    }

    async fn wait_for_change(&self, pending: &Pending<'_>, at_most: Duration) {
        let version = pending.live.as_ref().and_then(|live| live.pointer("/metadata/resourceVersion"));
        let (key, version) = (&pending.planned.key, version.and_then(Value::as_str));
        match (self.served(key).await, version) {
            (Ok(Some(place)), Some(version)) => {
                let _ = timeout(at_most, place.changed(&key.name, version)).await;
            }
            _ => sleep(at_most).await,
        }
    }

    async fn not_ready_failure(&self, pending: &Pending<'_>, why: &str, hopeless: bool) -> Failure {
        let key = &pending.planned.key;
        let (pod, evidence) = self.explain(key, pending.live.as_ref()).await;
        self.tell_blocking(key, why, pod.clone());
        let pod = pod.map(|pod| format!("; {pod}")).unwrap_or_default();
        let reason = if hopeless {
            format!("{key} will not become ready: {why}{pod}")
        } else {
            format!("{key} is not ready after {:?}: {why}{pod}", self.limits.ready)
        };
        let place = if key.namespace.is_empty() { String::new() } else { format!(" -n {}", key.namespace) };
        let next = format!(
            "kubectl{place} describe {} {} says more; the same command goes on from here",
            key.kind.to_lowercase(),
            key.name
        );
        self.failure("PLUGIN-NOT-READY", reason, next).with_evidence(evidence)
    }

    /// Until the object of this UID is gone.
    pub(super) async fn wait_gone(
        &self,
        place: &Place,
        key: &ObjectKey,
        uid: &str,
        how: Gone,
    ) -> Result<(), Failure> {
        let (limit, id) = match how {
            Gone::Deleted | Gone::Leaving => (self.limits.gone, "PLUGIN-NOT-GONE"),
            Gone::Replaced => (self.limits.gone.min(REPLACED), "PLUGIN-NOT-GONE"),
            Gone::NamespaceFirst => (self.limits.ready, "PLUGIN-NAMESPACE-ENDING"),
        };
        let deadline = match how {
            Gone::Deleted => self.gone_by(),
            Gone::Leaving | Gone::Replaced | Gone::NamespaceFirst => Instant::now() + limit,
        };
        let mut said = String::new();
        loop {
            let live = self.find(key).await?.map(|(_, live)| live);
            let Some(live) = live.filter(|live| live["metadata"]["uid"] == uid) else {
                self.progress.blocked(None);
                return Ok(());
            };
            let now = Instant::now();
            let held = self.what_holds(key, &live).await;
            if now >= deadline {
                return Err(self.not_gone_failure(id, key, &live, limit, &held));
            }
            let line = format!("waiting until {key} is gone: {held}");
            if line != said {
                self.say(&line);
                self.tell_blocking(key, &held, None);
                said = line;
            }
            let version = live["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            let _ = timeout(LOOK.min(deadline - now), place.changed(&key.name, version)).await;
        }
    }

    /// When everything that this operation deletes has to be gone.
    pub(super) fn gone_by(&self) -> Instant {
        *self.gone_by.get_or_init(|| Instant::now() + self.limits.gone)
    }

    fn not_gone_failure(
        &self,
        id: &str,
        key: &ObjectKey,
        live: &Value,
        limit: Duration,
        held: &str,
    ) -> Failure {
        let reason = match id {
            "PLUGIN-NAMESPACE-ENDING" => {
                format!("{key} is being deleted, and still is after {limit:?}: {held}")
            }
            _ => format!("{key} was deleted and is still there after {limit:?}: {held}"),
        };
        let status = live.get("status").map(Value::to_string).unwrap_or_default();
        let next = "see to that, then run the same command again: it goes on from here";
        self.failure(id, reason, next).with_evidence(status)
    }
}

/// Whether there is nothing to look at once the object is there. Judged by the planned object, which has no status; what
/// can become unready again is always looked at.
pub(super) fn is_ready_when_there(plan: &CheckedPlan, planned: &Planned) -> bool {
    let context = ReadyContext { generation: None, waits_for_consumer: false, may_be_empty: false };
    !may_waver(&planned.key)
        && decide_ready(&planned.key, &planned.object, &plan.readiness, &context) == Readiness::Ready
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use plugin_plan::Stage;
    use serde_json::json;

    use super::super::{Limits, stub};
    use super::*;

    #[tokio::test]
    async fn what_wavers_until_the_deadline_is_not_ready() {
        const PATH: &str = "/apis/apps/v1/namespaces/n/deployments/wavers";
        let looks = AtomicUsize::new(0);
        let limits = Limits { stable: Duration::from_millis(10), ..Limits::default() };
        // Available at every other look: whenever it is waited for, and never when it is looked at again.
        let engine = stub::engine(limits, move |request| match request.uri().path() {
            "/apis/apps/v1" => stub::kind("apps/v1", "Deployment", "deployments"),
            PATH => {
                let available = 1 - looks.fetch_add(1, Ordering::SeqCst) % 2;
                let status = json!({"replicas": 1, "updatedReplicas": 1, "availableReplicas": available});
                let metadata =
                    json!({"name": "wavers", "namespace": "n", "uid": "u", "resourceVersion": "1"});
                (
                    200,
                    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "status": status}),
                )
            }
            _ => stub::absent(),
        });
        let key = ObjectKey {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: "n".to_owned(),
            name: "wavers".to_owned(),
        };
        let planned = Planned {
            key,
            object: json!({}),
            stage: Stage::Workloads,
            handling: Default::default(),
            sha256: String::new(),
        };
        let plan = CheckedPlan {
            plugin: "hello".to_owned(),
            version: "1.0.0".to_owned(),
            objects: vec![planned],
            readiness: Vec::new(),
            node: Vec::new(),
            secrets: Vec::new(),
            sha256: String::new(),
        };
        let all: Vec<&Planned> = plan.objects.iter().collect();
        let deadline = Instant::now() + Duration::from_millis(200);
        let waited = timeout(Duration::from_secs(30), engine.wait_ready(&plan, &all, deadline, true)).await;
        let failure = waited.expect("it ends").expect_err("it wavers");
        assert_eq!(failure.id, "PLUGIN-NOT-READY", "{failure}");
        assert!(failure.reason.contains("apps/v1 Deployment n/wavers is not ready"), "{failure}");
    }
}
