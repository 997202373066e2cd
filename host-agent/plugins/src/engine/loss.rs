//! Which of the fields that a server would not store are a loss? Pure. What an object does as well without is none;
//! everything else is a reason to write nothing at all.

use plugin_plan::{ObjectKey, compare};
use serde_json::Value;

/// Fields that older servers take and do not store, and that change nothing but comfort: group, kind, pointer.
const DISPENSABLE: [(&str, &str, &str); 4] = [
    // The Job stays.
    ("batch", "Job", "/spec/ttlSecondsAfterFinished"),
    // There is one family of addresses.
    ("", "Service", "/spec/ipFamilyPolicy"),
    ("", "Service", "/spec/ipFamilies"),
    // They are given away.
    ("", "Service", "/spec/allocateLoadBalancerNodePorts"),
];

/// JSON pointers of what was set, would not be stored, and would be missed.
pub(super) fn losses(key: &ObjectKey, wanted: &Value, would_be: &Value) -> Vec<String> {
    let mut dropped = compare::dropped(wanted, would_be);
    dropped.retain(|pointer| !is_dispensable(key, pointer));
    dropped
}

fn is_dispensable(key: &ObjectKey, pointer: &str) -> bool {
    let below = |field: &str| {
        pointer.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let fits =
        |(group, kind, field): &(&str, &str, &str)| key.group == *group && key.kind == *kind && below(field);
    DISPENSABLE.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(group: &str, kind: &str) -> ObjectKey {
        ObjectKey {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            namespace: "n".to_owned(),
            name: "o".to_owned(),
        }
    }

    #[test]
    fn what_says_nothing_is_no_loss_and_what_says_something_is() {
        let wanted = json!({"spec": {"nullable": false, "priority": 0, "value": "", "rule": "self > 0", "seconds": 5}});
        let lost = losses(&key("example.org", "Pool"), &wanted, &json!({"spec": {"seconds": 5}}));
        assert_eq!(lost, ["/spec/rule"]);
    }

    #[test]
    fn an_old_server_may_leave_out_what_changes_nothing_but_comfort() {
        let wanted = json!({"spec": {"ttlSecondsAfterFinished": 30, "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}});
        let stored = json!({"spec": {}});
        assert_eq!(losses(&key("", "Service"), &wanted, &stored), ["/spec/ttlSecondsAfterFinished"]);
        let job = losses(&key("batch", "Job"), &wanted, &stored);
        assert!(!job.iter().any(|pointer| pointer.contains("ttl")) && !job.is_empty(), "{job:?}");
    }
}
