//! Which requests are made again, why, and for how long. [`decide_retry`] decides; [`Engine::tried`] is the one loop.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use plugin_plan::ObjectKey;
use tokio::time::{Instant, sleep, timeout};

use super::Engine;
use super::request::Trouble;

/// Longest that one request may take. Webhooks have half of it.
const REQUEST: Duration = Duration::from_secs(60);
/// Longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often an object may change under our hands.
const CONFLICTS: u32 = 5;

/// Why a request is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// No answer, or one that says later.
    Server,
    /// The object changed between the server's reading and writing it.
    Conflict,
    /// The namespace was made a moment ago, and not every part of the server knows.
    NewNamespace,
    /// The namespace is on its way out.
    NamespaceEnding,
    /// A webhook that must be asked does not answer.
    Webhook,
    /// A server that has just started does not serve all of its kinds yet.
    NotServed,
}

/// Whether to ask again. `new_namespace`: this operation made the object's namespace.
pub(super) fn decide_retry(trouble: &Trouble, new_namespace: bool) -> Option<Again> {
    let status = match trouble {
        Trouble::Unreachable(_) => return Some(Again::Server),
        Trouble::Request(_) => return None,
        Trouble::Refused(status) => status,
    };
    let said = status.message.as_str();
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    let ending = causes.any(|cause| cause.reason == "NamespaceTerminating");
    match status.code {
        _ if trouble.is_invalid() => None,
        403 if ending => Some(Again::NamespaceEnding),
        403 if new_namespace && said.contains("not found") => Some(Again::NewNamespace),
        404 if trouble.is_not_served() => Some(Again::NotServed),
        404 if new_namespace && said.contains("namespaces") => Some(Again::NewNamespace),
        409 if trouble.is_field_conflict() || trouble.is_other_object() => None,
        409 if status.reason == "AlreadyExists" => None,
        409 => Some(Again::Conflict),
        501 => None,
        500..=599 if said.contains("failed calling webhook") => Some(Again::Webhook),
        408 | 429 | 500..=599 => Some(Again::Server),
        _ => None,
    }
}

/// Named policy: a fifth of a second to five seconds apart, without end.
fn policy() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter()
}

/// The pause that the server asks for.
fn wished(trouble: &Trouble) -> Option<Duration> {
    let seconds = trouble.status()?.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()).min(LONGEST_PAUSE))
}

impl Engine {
    /// Asks until there is an answer that is not one of [`Again`], or for as long as each of these may take. A request
    /// that may have arrived is made again: all of ours may be made twice.
    pub(super) async fn tried<T, F>(&self, key: &ObjectKey, ask: impl Fn() -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let new_namespace = self.is_new_namespace(&key.namespace);
        let mut pauses = policy().build();
        // By reason, since when: two that take turns end all the same.
        let mut since: Vec<(Again, Instant)> = Vec::new();
        let mut conflicts = 0;
        loop {
            let trouble = match self.once(ask()).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            let Some(again) = decide_retry(&trouble, new_namespace) else { return Err(trouble) };
            let now = Instant::now();
            let begun = match since.iter().find(|(before, _)| *before == again) {
                Some((_, begun)) => *begun,
                None => {
                    self.say(format!("{key}: {}: trying again", trouble.message()));
                    since.push((again, now));
                    now
                }
            };
            conflicts += u32::from(again == Again::Conflict);
            if now - begun >= self.patience(again) || conflicts > CONFLICTS {
                return Err(trouble);
            }
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            sleep(wished(&trouble).unwrap_or(pause)).await;
            if matches!(again, Again::Server | Again::NotServed) {
                self.wait_started().await;
            }
        }
    }

    /// Asks once, and not for ever.
    pub(super) async fn once<T>(
        &self,
        asked: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let longest = REQUEST.min(self.limits.api / 3);
        let late = |_| Err(Trouble::Unreachable(format!("no answer within {longest:?}")));
        timeout(longest, asked).await.unwrap_or_else(late)
    }

    fn patience(&self, again: Again) -> Duration {
        match again {
            Again::Server => self.limits.api,
            Again::Conflict | Again::NewNamespace => self.limits.kind,
            Again::NotServed => self.limits.kind.min(Duration::from_secs(10)),
            Again::NamespaceEnding => self.limits.ready,
            Again::Webhook => self.limits.webhook,
        }
    }

    /// Until the API server says that it has started, or for a while: a failure is the next request's.
    pub(super) async fn wait_started(&self) {
        let wait = async {
            for pause in policy().build() {
                let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return };
                match self.client.request_text(request).await.map_err(Trouble::from) {
                    Ok(_) => return,
                    // One that may not be asked says nothing of use.
                    Err(trouble) if matches!(trouble.code(), 401..=404) => return,
                    Err(_) => sleep(pause).await,
                }
            }
        };
        let _ = timeout(self.limits.api / 3, wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use kube::core::response::{Status, StatusCause, StatusDetails};

    use super::super::{Limits, stub};
    use super::*;

    fn refused(code: u16, reason: &str, message: &str) -> Trouble {
        Trouble::refused(code, reason, message)
    }

    fn with_cause(code: u16, reason: &str, seconds: u32) -> Trouble {
        let cause = StatusCause { reason: reason.to_owned(), message: String::new(), field: String::new() };
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![cause],
            retry_after_seconds: seconds,
        };
        Trouble::Refused(Box::new(Status::failure("no", "").with_code(code).with_details(details)))
    }

    #[test]
    fn what_may_help_is_tried_again_and_nothing_else() {
        let gone = Trouble::Unreachable("connection refused".to_owned());
        let webhook = "Internal error occurred: failed calling webhook \"x\": connection refused";
        let account = "pods \"a\" is forbidden: error looking up service account a/default: not found";
        let typed = "failed to create typed patch object: .spec.a: field not declared in schema";
        for (trouble, new, again) in [
            (gone, false, Some(Again::Server)),
            (Trouble::Request("no name".to_owned()), false, None),
            (refused(429, "TooManyRequests", "later"), false, Some(Again::Server)),
            (refused(500, "InternalError", "etcdserver: leader changed"), false, Some(Again::Server)),
            (refused(503, "ServiceUnavailable", "starting"), false, Some(Again::Server)),
            (refused(501, "NotImplemented", "no"), false, None),
            (refused(500, "", typed), false, None),
            (refused(500, "InternalError", webhook), false, Some(Again::Webhook)),
            (refused(409, "Conflict", "the object has been modified"), false, Some(Again::Conflict)),
            (refused(409, "AlreadyExists", "it exists"), false, None),
            (with_cause(409, "FieldManagerConflict", 0), false, None),
            (refused(409, "Conflict", "uid mismatch: a, b"), false, None),
            (with_cause(403, "NamespaceTerminating", 0), false, Some(Again::NamespaceEnding)),
            (refused(403, "Forbidden", account), true, Some(Again::NewNamespace)),
            (refused(403, "Forbidden", account), false, None),
            (refused(404, "NotFound", "namespaces \"a\" not found"), true, Some(Again::NewNamespace)),
            (refused(404, "NotFound", "namespaces \"a\" not found"), false, None),
            (refused(404, "unparsed", "404 page not found"), false, Some(Again::NotServed)),
            (refused(422, "Invalid", "spec.replicas: Invalid value"), true, None),
            (refused(401, "Unauthorized", "who?"), false, None),
        ] {
            assert_eq!(decide_retry(&trouble, new), again, "{trouble:?}");
        }
    }

    #[tokio::test]
    async fn two_reasons_that_take_turns_end_all_the_same() {
        let soon = Duration::from_millis(300);
        let limits = Limits { ready: soon, webhook: soon, ..Limits::default() };
        let engine = stub::engine(limits, |_| stub::absent());
        let asked = AtomicU32::new(0);
        let ask = || {
            let trouble = match asked.fetch_add(1, Ordering::SeqCst) % 2 {
                0 => refused(500, "InternalError", "failed calling webhook \"x\": connection refused"),
                _ => with_cause(403, "NamespaceTerminating", 0),
            };
            async move { Err::<(), Trouble>(trouble) }
        };
        let key = ObjectKey {
            group: String::new(),
            version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: "n".to_owned(),
            name: "a".to_owned(),
        };
        let tried = timeout(Duration::from_secs(60), engine.tried(&key, ask)).await;
        tried.expect("it ends").expect_err("nothing of it helps");
        assert!(asked.load(Ordering::SeqCst) >= 3, "each has its time");
    }

    #[test]
    fn the_servers_own_pause_comes_first_and_has_a_limit() {
        assert_eq!(wished(&with_cause(429, "", 7)), Some(Duration::from_secs(7)));
        assert_eq!(wished(&with_cause(429, "", 100_000)), Some(LONGEST_PAUSE));
        assert_eq!(wished(&with_cause(429, "", 0)), None);
        assert_eq!(wished(&refused(503, "", "later")), None);
    }

    #[test]
    fn pauses_grow_and_never_end() {
        let pauses: Vec<Duration> = policy().build().take(20).collect();
        assert_eq!(pauses.len(), 20);
        assert!(pauses[0] >= Duration::from_millis(200) && pauses[0] < Duration::from_secs(1), "{pauses:?}");
        assert!(pauses[19] >= Duration::from_secs(5), "{pauses:?}");
    }
}
