//! The connection to libvirt: opened, watched, and opened again when it broke.
//!
//! One thread owns it; everybody else borrows the open connection or is told why there is none.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8sctl_types::failure::Failure;
use tokio::sync::watch;
use virt::connect::Connect;

use super::Answers;
use super::daemons::{Daemons, Starter};
use super::error::{LibvirtError, Result};
use super::events::{Listener, Subscription, start_loop};
use super::reboots::Reboots;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a caller waits for an attempt to connect that is under way; it may have to start libvirt first.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(30);
const KEEPALIVE_SECONDS: i32 = 5;
const KEEPALIVE_COUNT: u32 = 3;

/// What the owner thread is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    /// The connection broke.
    Closed,
    /// Somebody needs it: look, and try now instead of later.
    Wanted,
    /// The link is dropped.
    Stop,
}

/// A connection that comes back by itself.
#[derive(Debug)]
pub(super) struct Link {
    uri: String,
    shared: Arc<Shared>,
    messages: SyncSender<Message>,
    changes: watch::Sender<u64>,
    answers: watch::Sender<Answers>,
    reboots: Reboots,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    attempted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    connect: Option<Connect>,
    attempts: u64,
    reason: String,
    /// Why libvirt's daemons could not be started, since the last time that they were.
    not_started: Option<Failure>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Starts the owner thread; the first attempt to connect is made at once. With `daemons`, those that do not run
    /// are started before each attempt.
    pub fn start(uri: &str, daemons: Option<Daemons>) -> Result<Self> {
        let unreachable = |reason: String| LibvirtError::Unreachable { uri: uri.to_owned(), reason };
        start_loop().map_err(|error| unreachable(error.message().to_owned()))?;
        let (messages, receiver) = sync_channel(16);
        let link = Self {
            uri: uri.to_owned(),
            shared: Arc::default(),
            messages,
            changes: watch::Sender::new(0),
            answers: watch::Sender::default(),
            reboots: Reboots::default(),
        };
        let listener = Listener {
            changes: link.changes.clone(),
            answers: link.answers.clone(),
            reboots: link.reboots.clone(),
            closed: link.messages.clone(),
        };
        let (uri_of_thread, shared) = (link.uri.clone(), Arc::clone(&link.shared));
        std::thread::Builder::new()
            .name("libvirt-link".into())
            .spawn(move || own(&uri_of_thread, daemons.map(Starter::new), &shared, &receiver, &listener))
            .map_err(|error| unreachable(error.to_string()))?;
        Ok(link)
    }

    /// Counts up on events, loss and return of the connection.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether there is a connection, and how often one was lost.
    pub fn answers(&self) -> watch::Receiver<Answers> {
        self.answers.subscribe()
    }

    /// What was heard of reboots, over all connections.
    pub fn reboots(&self) -> &Reboots {
        &self.reboots
    }

    /// Where it connects to.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The open connection. Where there is none, one attempt is made first. Blocks.
    pub fn get(&self) -> Result<Connect> {
        let mut state = self.shared.lock();
        if let Some(connect) = &state.connect {
            if connect.is_alive().unwrap_or(false) {
                return Ok(connect.clone());
            }
            state.connect = None;
            // The close callback is on its way, too; whichever comes first.
            let _ = self.messages.try_send(Message::Closed);
        } else {
            let _ = self.messages.try_send(Message::Wanted);
        }
        let before = state.attempts;
        let wait = self.shared.attempted.wait_timeout_while(state, ATTEMPT_PATIENCE, |state| {
            state.connect.is_none() && state.attempts == before
        });
        let (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(failure)) = (&state.connect, &state.not_started) {
            return Err(failure.clone().into());
        }
        state.connect.clone().ok_or_else(|| {
            let reason = if state.reason.is_empty() { "no answer".to_owned() } else { state.reason.clone() };
            LibvirtError::Unreachable { uri: self.uri.clone(), reason }
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.messages.try_send(Message::Stop);
    }
}

fn own(
    uri: &str,
    mut starter: Option<Starter>,
    shared: &Shared,
    messages: &Receiver<Message>,
    listener: &Listener,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(started) = starter.as_mut().and_then(Starter::start) {
            if let Err(failure) = &started {
                tracing::warn!(libvirt.uri = uri, error = %failure, "cannot start libvirt");
            }
            shared.lock().not_started = started.err();
        }
        let opened = Connect::open(Some(uri));
        let mut state = shared.lock();
        state.attempts += 1;
        match opened {
            Ok(connect) => {
                // Drivers without a daemon have no keepalive and need none.
                let _ = connect.set_keep_alive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT);
                let subscription = Subscription::new(&connect, listener);
                let events = subscription.has_domain_events();
                tracing::info!(libvirt.uri = uri, libvirt.events = events, "connected to libvirt");
                state.connect = Some(connect.clone());
                drop(state);
                listener.answers.send_modify(|answers| answers.is_open = true);
                announce(shared, listener);
                pause = FIRST_PAUSE;
                if let Some(starter) = &mut starter {
                    starter.reset();
                }
                let go_on = hold(&connect, messages);
                shared.lock().connect = None;
                drop(subscription);
                if !go_on {
                    return;
                }
                tracing::warn!(libvirt.uri = uri, "the connection to libvirt broke");
                listener.answers.send_modify(|it| *it = Answers { losses: it.losses + 1, is_open: false });
                listener.changes.send_modify(|count| *count += 1);
            }
            Err(error) => {
                state.reason = error.message().to_owned();
                drop(state);
                shared.attempted.notify_all();
                tracing::debug!(libvirt.uri = uri, error = error.message(), "libvirt does not answer");
                match messages.recv_timeout(pause) {
                    Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(Message::Closed | Message::Wanted) | Err(RecvTimeoutError::Timeout) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn announce(shared: &Shared, listener: &Listener) {
    shared.attempted.notify_all();
    listener.changes.send_modify(|count| *count += 1);
}

/// Until the connection is gone (`true`) or not wanted any more (`false`).
fn hold(connect: &Connect, messages: &Receiver<Message>) -> bool {
    loop {
        match messages.recv() {
            Ok(Message::Stop) | Err(_) => return false,
            Ok(Message::Closed | Message::Wanted) if connect.is_alive().unwrap_or(false) => {}
            Ok(Message::Closed | Message::Wanted) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_libvirt_is_told_why_it_could_not_be_started() {
        let nothing = tempfile::tempdir().expect("a directory");
        let path = |name: &str| nothing.path().join(name);
        let daemons =
            Daemons { path: path("bin").into(), systemd_dir: path("systemd"), run_dir: path("run") };
        let uri = format!("qemu+unix:///system?socket={}", path("none").display());
        let link = Link::start(&uri, Some(daemons)).expect("the thread starts");
        let failure = Failure::from(link.get().expect_err("there is no libvirt"));
        assert_eq!(failure.id, "LIBVIRT-MISSING");
        let link = Link::start(&uri, None).expect("the thread starts");
        let failure = Failure::from(link.get().expect_err("there is no libvirt"));
        assert_eq!(failure.id, "LIBVIRT-UNREACHABLE");
    }
}
