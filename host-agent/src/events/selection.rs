//! Which events a reader wants, as a condition in SQL.

use k8sctl_types::event::EventType;
use rusqlite::types::Value;

use super::as_number;

/// What fits. The default is everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Name of the cluster; empty means: all, and the host itself.
    pub cluster: String,
    /// Name of the node whose events, and those of whose VM and disk, are wanted; empty means: of any object.
    pub node: String,
    /// Empty means: of any type.
    pub types: Vec<EventType>,
    /// From when on.
    pub since: Option<Since>,
}

/// A moment before which nothing is wanted of what was stored when the reader came. What comes later fits whatever its
/// time is: the clock may be set back.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// Inclusive.
    pub moment: jiff::Timestamp,
    /// Number of the newest event then.
    pub stored: u64,
}

impl Selection {
    /// All events of a cluster.
    pub fn of_cluster(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), ..Self::default() }
    }

    /// Condition on the columns of `event`, with its values in the order of its question marks.
    pub(super) fn condition(&self, from: u64) -> (String, Vec<Value>) {
        let mut condition = "number >= ?".to_owned();
        let mut values: Vec<Value> = vec![as_number(from).into()];
        if !self.cluster.is_empty() {
            condition.push_str(" AND cluster = ?");
            values.push(self.cluster.clone().into());
        }
        if !self.node.is_empty() {
            condition.push_str(" AND node = ?");
            values.push(self.node.clone().into());
        }
        if let Some(Since { moment, stored }) = self.since {
            condition.push_str(" AND (number > ? OR time >= ?)");
            values.extend([as_number(stored).into(), time_text(moment).into()]);
        }
        match self.types.as_slice() {
            [] => {}
            [one] => {
                condition.push_str(" AND type = ?");
                values.push(one.as_str().to_owned().into());
            }
            // Not by the index (+): it would find all of each type for every page, in order to sort them.
            many => {
                let marks = vec!["?"; many.len()].join(", ");
                condition.push_str(&format!(" AND +type IN ({marks})"));
                values.extend(many.iter().map(|one| Value::from(one.as_str().to_owned())));
            }
        }
        (condition, values)
    }
}

/// As stored: always nine digits of the second, so that text is in the order of time.
pub(super) fn time_text(time: jiff::Timestamp) -> String {
    format!("{time:.9}")
}
