//! Whose turn it is among calls that cost more than their message: plans and checks ask libvirt and programs, others read
//! the database and files. Whoever may look may call as often as he likes, and what a call begins costs the same whoever
//! waits for it; so a few are worked on at a time, and the others wait. A user's calls wait for each other first: the more
//! of them there are, the longer he waits, and nobody else. The services put into a queue what they do; how many may be in
//! one stands in [`limits`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8sctl_rpc::limits::{self, AtOnce, TURN_PATIENCE};
use k8sctl_rpc::status::status;
use k8sctl_rpc::unix::PeerCredentials;
use k8sctl_types::failure::Failure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use super::to_its_end;

/// Of whom the kernel does not name: nobody but a test.
pub(super) const NOBODY: u32 = u32::MAX;

/// Who calls.
pub(super) fn caller<T>(request: &Request<T>) -> u32 {
    request.extensions().get::<PeerCredentials>().map_or(NOBODY, |peer| peer.uid)
}

/// The queues of one host agent. What waits in one holds nobody up in another: a `status` comes also while libvirt hangs.
#[derive(Clone, Debug)]
pub(super) struct Queues {
    /// What would become of the host: asks libvirt for all that it has.
    pub(super) plans: Queue,
    /// What `doctor` looks at: libvirt, programs, files.
    pub(super) checks: Queue,
    /// Records, images, bundles, events, and requests for logs.
    pub(super) reads: Queue,
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            plans: Queue::new("plans", limits::PLANS),
            checks: Queue::new("checks of the host", limits::CHECKS),
            reads: Queue::new("reads", limits::READS),
        }
    }
}

/// One of them. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    what: &'static str,
    at_once: AtOnce,
    all: Arc<Semaphore>,
    /// Of users who have a turn, or wait for one.
    users: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// Held while a call is worked on.
#[derive(Debug)]
pub(super) struct Turn {
    _of_user: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Queue {
    /// `what` is worked on, so many at a time.
    pub(super) fn new(what: &'static str, at_once: AtOnce) -> Self {
        let all = Arc::new(Semaphore::new(at_once.of_all));
        Self(Arc::new(Inner { what, at_once, all, users: Mutex::default() }))
    }

    /// Waits for a turn, and not for ever.
    pub(super) async fn turn(&self, uid: u32) -> Result<Turn, Failure> {
        let wait = async {
            // In this order: who waits for himself takes no place among all.
            let of_user = self.of_user(uid).acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.0.all).acquire_owned().await.ok()?;
            Some(Turn { _of_user: of_user, _of_all: of_all })
        };
        timeout(TURN_PATIENCE, wait).await.ok().flatten().ok_or_else(|| self.busy(uid))
    }

    /// Does `work` when it is its turn. Once begun it goes on to its end, and has its turn until then, also where the client
    /// goes meanwhile.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        uid: u32,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = self.turn(uid).await.map_err(|failure| status(Code::ResourceExhausted, &failure))?;
        let work = async move {
            let done = work.await;
            drop(turn);
            done
        };
        to_its_end(name, work).await
    }

    fn of_user(&self, uid: u32) -> Arc<Semaphore> {
        let mut users = self.lock();
        // Nobody has a turn of the others, or waits for one.
        users.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = users.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(self.0.at_once.of_user)));
        Arc::clone(turns)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Semaphore>>> {
        // Whole entries come and go, so what a panic leaves behind is sound.
        self.0.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(&self, uid: u32) -> Failure {
        let Inner { what, at_once: AtOnce { of_user, of_all }, .. } = &*self.0;
        Failure::new(
            "HOST-BUSY",
            format!("user {uid}"),
            format!(
                "too many {what} are asked for: {of_user} of a user and {of_all} of all users are worked on at a time, and \
                 this one waited for {} s",
                TURN_PATIENCE.as_secs()
            ),
            "wait for the other commands, or end them, then run it again",
        )
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt as _, poll};
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    fn queue() -> Queue {
        Queue::new("plans", AtOnce { of_user: 1, of_all: 2 })
    }

    fn has_turn(queue: &Queue, uid: u32) -> bool {
        queue.turn(uid).now_or_never().is_some()
    }

    #[tokio::test]
    async fn who_asks_much_waits_for_himself_and_holds_up_nobody_else() {
        let queue = queue();
        let first = queue.turn(1).await.expect("nobody has one");
        let mut second = pin!(queue.turn(1));
        let mut third = pin!(queue.turn(1));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        assert!(has_turn(&queue, 2), "another user has a turn beside it");
        drop(first);
        let second = second.await.expect("it is the next");
        assert!(poll!(&mut third).is_pending());
        drop(second);
        third.await.expect("and then this one");
    }

    #[tokio::test]
    async fn all_users_together_have_so_many_turns() {
        let queue = queue();
        let first = queue.turn(1).await.expect("nobody has one");
        let second = queue.turn(2).await.expect("one is left");
        let mut third = pin!(queue.turn(3));
        assert!(poll!(&mut third).is_pending());
        drop(first);
        assert!(!has_turn(&queue, 1), "who came before is served before");
        third.await.expect("one was given back");
        assert!(has_turn(&queue, 1));
        drop(second);
        assert!(has_turn(&queue, 4));
        assert_eq!(queue.lock().len(), 1, "who has none and waits for none is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_what_for() {
        let queue = queue();
        let _held = queue.turn(1).await.expect("nobody has one");
        let began = Instant::now();
        let refused = queue.run("plan", 1, async {}).await.expect_err("it is held");
        assert!(began.elapsed() >= TURN_PATIENCE);
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let failure = k8sctl_rpc::status::failure_from(&refused).expect("a failure");
        assert_eq!((failure.id.as_str(), failure.object.as_str()), ("HOST-BUSY", "user 1"));
        assert!(failure.reason.contains("1 of a user and 2 of all users"), "{}", failure.reason);
    }

    #[tokio::test]
    async fn what_has_begun_has_its_turn_until_its_end_though_the_client_is_gone() {
        let queue = queue();
        let (end, ended) = oneshot::channel::<()>();
        let call = queue.run("work", 1, async move { ended.await.is_ok() });
        assert!(call.now_or_never().is_none(), "it goes on");
        assert!(!has_turn(&queue, 1));
        end.send(()).expect("it was not dropped");
        queue.turn(1).await.expect("it is over");
    }
}
