//! Events that could not be written yet: in order, with the time at which they happened, in bounded memory.
//!
//! Kept by the event log, which does the writing.

use std::collections::VecDeque;
use std::time::Duration;

use host_store::StoreError;
use k8sctl_types::event::EventType;

use super::{NewEvent, Told};

/// Between two tries while nothing happens. What happens meanwhile is a try as well.
pub(super) const AGAIN: Duration = Duration::from_secs(5);
/// More are counted only. The first ones tell how it came to that.
const MOST: usize = 1000;

/// An event that is not written yet.
#[derive(Clone, Debug)]
pub(super) struct Unwritten {
    pub(super) event: NewEvent,
    pub(super) told: Option<Told>,
    /// When it happened.
    pub(super) time: jiff::Timestamp,
    is_logged: bool,
}

impl Unwritten {
    pub(super) fn new(event: NewEvent, told: Option<Told>) -> Self {
        Self { event, told, time: jiff::Timestamp::now(), is_logged: false }
    }

    /// Tells the program's own log, once.
    pub(super) fn log(&mut self) {
        if std::mem::replace(&mut self.is_logged, true) {
            return;
        }
        let NewEvent { cluster, object, kind, message, warning } = &self.event;
        // What it says may come out of a VM: it is not to look like lines of the host agent's.
        tracing::info!(cluster.name = %cluster, object = %object, event = %kind, warning, detail = ?message, "event");
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: VecDeque<Unwritten>,
    left_out: u64,
    has_failed: bool,
    /// Somebody tries again and again.
    is_tried: bool,
}

impl Waiting {
    pub(super) fn add(&mut self, mut unwritten: Unwritten) {
        // Told again since it could not be written: that it waits is enough.
        if unwritten.told.is_some() && self.queue.iter().any(|waiting| waiting.told == unwritten.told) {
            return;
        }
        if self.queue.len() < MOST {
            self.queue.push_back(unwritten);
        } else {
            unwritten.log();
            self.left_out += 1;
        }
    }

    /// Takes out the one that is to be written next. Behind them all is how many there is no place for.
    pub(super) fn take_next(&mut self) -> Option<Unwritten> {
        if let Some(first) = self.queue.pop_front() {
            return Some(first);
        }
        let count = std::mem::take(&mut self.left_out);
        (count > 0).then(|| {
            let message = format!("{count} more were left out while events could not be written");
            let event = NewEvent {
                cluster: String::new(),
                object: "host".to_owned(),
                kind: EventType::EventsLeftOut,
                message,
                warning: true,
            };
            Unwritten::new(event, None)
        })
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// It could not be written.
    pub(super) fn put_back(&mut self, unwritten: Unwritten, error: &StoreError) {
        if !std::mem::replace(&mut self.has_failed, true) {
            let error = k8sctl_rpc::chain(error);
            tracing::error!(error = %error, "cannot store events: they wait in memory until it works");
        }
        self.queue.push_front(unwritten);
    }

    /// Whether one is to begin to try again and again: there is something to write, and nobody else does.
    pub(super) fn needs_another_try(&mut self) -> bool {
        !self.queue.is_empty() && !std::mem::replace(&mut self.is_tried, true)
    }

    /// Whether all is written: whoever tries again and again ends then.
    pub(super) fn is_over(&mut self) -> bool {
        if !self.queue.is_empty() {
            return false;
        }
        if std::mem::replace(&mut self.has_failed, false) {
            tracing::info!("events can be stored again, and are");
        }
        self.is_tried = false;
        true
    }
}
