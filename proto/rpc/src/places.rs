//! Places of which each peer may hold so many at a time, so that none takes those of all the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what each peer holds. Clones count together.
#[derive(Debug)]
pub struct Places<K> {
    most: usize,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self { most: self.most, taken: Arc::clone(&self.taken) }
    }
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// `most` for each peer.
    pub fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// A place, while the peer has fewer than it may.
    pub fn take(&self, peer: K) -> Option<Place<K>> {
        let mut taken = lock(&self.taken);
        let count = taken.entry(peer.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { taken: Arc::clone(&self.taken), peer })
    }
}

/// Places of users, each of whose processes has a part of them at most: one that takes all it can leaves some to the
/// user's others. Clones count together.
#[derive(Clone, Debug)]
pub struct UserPlaces {
    users: Places<u32>,
    /// By user, too: the number of a process that has ended is another's some day.
    processes: Places<(u32, i32)>,
}

/// A place of a user, and of its process where that is known; given back on drop.
#[derive(Debug)]
pub struct UserPlace {
    _of_user: Place<u32>,
    _of_process: Option<Place<(u32, i32)>>,
}

impl UserPlaces {
    /// So many for each user and for each process.
    pub fn new(of_user: usize, of_process: usize) -> Self {
        Self { users: Places::new(of_user), processes: Places::new(of_process) }
    }

    /// A place, while user and process both have fewer than they may. A process of another namespace has the number 0,
    /// unix(7), and is none that is known.
    pub fn take(&self, uid: u32, pid: Option<i32>) -> Option<UserPlace> {
        let of_process = match pid.filter(|pid| *pid > 0) {
            Some(pid) => Some(self.processes.take((uid, pid))?),
            None => None,
        };
        Some(UserPlace { _of_user: self.users.take(uid)?, _of_process: of_process })
    }
}

/// One place, given back on drop.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
    peer: K,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

fn lock<K>(taken: &Mutex<HashMap<K, usize>>) -> MutexGuard<'_, HashMap<K, usize>> {
    // A count moves by one or not at all, so what a panic leaves behind is sound.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}
