//! A user of its own for each plugin process that runs, where the host agent is root: whatever the kernel grants among
//! processes of one user, no two plugins have it of each other. Called by [`super::Launcher`]; a full pool makes the next
//! one wait.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// First user and group of plugin processes: below the range that systemd hands out (61184 and up) and above that of its
/// home directories, so that nobody else has it.
const FIRST: u32 = 61100;
/// So many of them; one for each bit of [`TAKEN`].
const COUNT: u32 = 64;

static FREE: Semaphore = Semaphore::const_new(COUNT as usize);
static TAKEN: Mutex<u64> = Mutex::new(0);

/// A user that nobody else has, until this is dropped: not before the process is gone.
#[derive(Debug)]
pub(super) struct Lease {
    slot: u32,
    _permit: SemaphorePermit<'static>,
}

impl Lease {
    /// The next one that is free.
    pub(super) async fn take() -> Self {
        let permit = FREE.acquire().await.expect("nobody closes it");
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        // Another program on this machine begins elsewhere: it knows nothing of who is taken here.
        let begin = std::process::id() % COUNT;
        let slot = (0..COUNT)
            .map(|step| (begin + step) % COUNT)
            .find(|slot| *taken & bit(*slot) == 0)
            .expect("a permit stands for a free one");
        *taken |= bit(slot);
        Self { slot, _permit: permit }
    }

    /// Number of the user, and of its group.
    pub(super) fn id(&self) -> u32 {
        FIRST + self.slot
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Before the permit, which is dropped after this.
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) &= !bit(self.slot);
    }
}

fn bit(slot: u32) -> u64 {
    1 << slot
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn each_is_another_and_who_finds_none_waits_for_one() {
        let mut leases = Vec::new();
        for _ in 0..COUNT {
            leases.push(Lease::take().await);
        }
        let users: BTreeSet<u32> = leases.iter().map(Lease::id).collect();
        assert_eq!(users, (FIRST..FIRST + COUNT).collect());
        let wait = Duration::from_millis(50);
        assert!(tokio::time::timeout(wait, Lease::take()).await.is_err(), "all are taken");
        let given_back = leases.swap_remove(7);
        let user = given_back.id();
        drop(given_back);
        assert_eq!(Lease::take().await.id(), user);
    }
}
