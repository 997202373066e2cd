//! From the API's errors to failures that a person can do something about. Called by the rest of the engine.

use k8sctl_types::failure::Failure;
use kube::core::response::Status;
use plugin_plan::ObjectKey;

use super::Engine;
use super::request::Trouble;
use super::retry::{Again, decide_retry};

impl Engine {
    /// A request about an object failed for good. `verb`: what was meant, "apply".
    pub(super) fn request_failure(&self, key: &ObjectKey, verb: &str, trouble: &Trouble) -> Failure {
        self.request_failure_saying(key, verb, trouble, trouble.message())
    }

    /// The same with other words than the server's, which may name what nobody is to see.
    pub(super) fn request_failure_saying(
        &self,
        key: &ObjectKey,
        verb: &str,
        trouble: &Trouble,
        said: &str,
    ) -> Failure {
        let reason = format!("cannot {verb} {key}: {said}");
        match decide_retry(trouble, self.is_new_namespace(&key.namespace)) {
            Some(Again::Webhook) => {
                let next = "see the pods of that webhook; the same command goes on from here";
                return self.failure("PLUGIN-WEBHOOK", reason, next);
            }
            Some(Again::NamespaceEnding) => {
                let next = format!(
                    "kubectl get namespace {} -o yaml says what holds it; the same command goes on when it is gone",
                    key.namespace
                );
                return self.failure("PLUGIN-NAMESPACE-ENDING", reason, next);
            }
            _ => {}
        }
        let (id, next) = match trouble.code() {
            403 => (
                "PLUGIN-FORBIDDEN",
                "the cluster does not let the host agent do this: see its admission policies and quotas",
            ),
            409 => (
                "PLUGIN-CONFLICT",
                "another program set these fields; undo its change, or delete the object, and run the same command again",
            ),
            _ if trouble.is_invalid() => (
                "PLUGIN-OBJECT-INVALID",
                "this Kubernetes does not take the object; report this to the plugin's author",
            ),
            _ => {
                ("PLUGIN-API", "see `k8sctl status`; when the API server answers, run the same command again")
            }
        };
        self.failure(id, reason, next)
    }

    /// Objects of these names are somebody else's. Before anything is written.
    pub(super) fn foreign_failure(&self, foreign: &[String]) -> Failure {
        let reason =
            format!("objects of these names exist and were not made by this plugin: {}", foreign.join(", "));
        let next = "nothing was changed; rename or delete them, or take them over with --adopt, then run the same \
                    command again";
        self.failure("PLUGIN-OBJECT-FOREIGN", reason, next)
    }
}

/// The fields that a status names, each once.
pub(super) fn fields_of(status: &Status) -> Vec<&str> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut fields: Vec<&str> = Vec::new();
    for cause in causes {
        if !cause.field.is_empty() && !fields.contains(&cause.field.as_str()) {
            fields.push(&cause.field);
        }
    }
    fields
}

/// Whether a status says that a field may not be changed, rather than that it is wrong.
pub(super) fn is_about_change(status: &Status) -> bool {
    const WORDS: [&str; 6] = [
        "immutable",
        "may not change",
        "may not be changed",
        "cannot change",
        "updates to",
        "cannot be changed",
    ];
    let is_one = |text: &str| WORDS.iter().any(|word| text.contains(word));
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 422 && (causes.any(|cause| is_one(&cause.message)) || is_one(&status.message))
}

/// An error and its causes in one line, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        cause = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn invalid(causes: &[(&str, &str)]) -> Status {
        let causes = causes.iter().map(|(field, message)| StatusCause {
            reason: "FieldValueInvalid".to_owned(),
            message: (*message).to_owned(),
            field: (*field).to_owned(),
        });
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: causes.collect(),
            retry_after_seconds: 0,
        };
        Status::failure("it is invalid", "Invalid").with_code(422).with_details(details)
    }

    #[test]
    fn a_field_that_may_not_change_is_told_from_one_that_is_wrong() {
        for message in [
            "Invalid value: \"x\": field is immutable",
            "Invalid value: \"10.96.0.9\": may not change once set",
            "Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden",
            "Invalid value: \"x\": cannot change roleRef",
        ] {
            assert!(is_about_change(&invalid(&[("spec.x", message)])), "{message}");
        }
        assert!(!is_about_change(&invalid(&[("spec.replicas", "Invalid value: -1: must be 0 or more")])));
    }

    #[test]
    fn fields_are_named_once() {
        let status = invalid(&[("spec.a", "x"), ("spec.b", "y"), ("spec.a", "z"), ("", "w")]);
        assert_eq!(fields_of(&status), ["spec.a", "spec.b"]);
    }
}
