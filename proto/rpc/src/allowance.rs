//! How much one peer can make us tell. Each has a burst and a steady rate; beyond that it is not heard for a minute,
//! and then only how much that was is told. So what many bytes from outside can write into a log or queue is bounded
//! by time, and nothing is left out in silence.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long a peer that tells too much is not heard.
const SILENCE: Duration = Duration::from_secs(60);

/// Allowances by peer. Pure: the caller brings the clock, and asks from time to time what was left out.
#[derive(Debug)]
pub struct Allowance<K> {
    burst: f64,
    per_minute: f64,
    room: usize,
    peers: HashMap<K, Peer>,
    /// Of those for whom there was no room.
    others: Option<Silence>,
}

#[derive(Debug)]
struct Peer {
    tokens: f64,
    at: Instant,
    silence: Option<Silence>,
}

#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Instant,
    left_out: u64,
}

impl Silence {
    fn count(silence: &mut Option<Self>, now: Instant) {
        silence.get_or_insert(Self { since: now, left_out: 0 }).left_out += 1;
    }

    fn end(silence: &mut Option<Self>, now: Instant) -> Option<u64> {
        silence
            .take_if(|it| now.saturating_duration_since(it.since) >= SILENCE)
            .map(|Self { left_out, .. }| left_out)
    }
}

impl<K: Clone + Eq + Hash> Allowance<K> {
    /// `burst` at once and `per_minute` after that, for each of at most `room` peers at a time. Those for whom there
    /// is no room are not heard.
    pub fn new(burst: u32, per_minute: u32, room: usize) -> Self {
        Self { burst: burst.into(), per_minute: per_minute.into(), room, peers: HashMap::new(), others: None }
    }

    /// Whether this may be told. If not, it is counted.
    pub fn take(&mut self, peer: &K, now: Instant) -> bool {
        if !self.peers.contains_key(peer) {
            if self.peers.len() >= self.room {
                let (burst, per_minute) = (self.burst, self.per_minute);
                self.peers.retain(|_, it| it.silence.is_some() || it.filled(burst, per_minute, now) < burst);
            }
            if self.peers.len() >= self.room {
                self.left_out(now);
                return false;
            }
            self.peers.insert(peer.clone(), Peer { tokens: self.burst, at: now, silence: None });
        }
        let Some(it) = self.peers.get_mut(peer) else { return false };
        it.tokens = it.filled(self.burst, self.per_minute, now);
        it.at = now;
        if it.silence.is_some() || it.tokens < 1.0 {
            Silence::count(&mut it.silence, now);
            return false;
        }
        it.tokens -= 1.0;
        true
    }

    /// Counts one that was left out for want of room elsewhere.
    pub fn left_out(&mut self, now: Instant) {
        Silence::count(&mut self.others, now);
    }

    /// Peers whose silence is over, with how many were left out; `None` are those for whom there was no room. Telling
    /// of it is taken from the peer's allowance.
    pub fn over(&mut self, now: Instant) -> Vec<(Option<K>, u64)> {
        let others = Silence::end(&mut self.others, now).map(|count| (None, count));
        let (burst, per_minute) = (self.burst, self.per_minute);
        let peers = self.peers.iter_mut().filter_map(|(peer, it)| {
            let count = Silence::end(&mut it.silence, now)?;
            it.tokens = (it.filled(burst, per_minute, now) - 1.0).max(0.0);
            it.at = now;
            Some((Some(peer.clone()), count))
        });
        others.into_iter().chain(peers).collect()
    }
}

impl Peer {
    fn filled(&self, burst: f64, per_minute: f64, now: Instant) -> f64 {
        let minutes = now.saturating_duration_since(self.at).as_secs_f64() / 60.0;
        (self.tokens + minutes * per_minute).min(burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_flood_becomes_one_line_a_minute_that_says_how_long_it_was() {
        let mut strangers = Allowance::new(1, 1, 8);
        let start = Instant::now();
        let (mut told, mut counts) = (0, Vec::new());
        // An hour of a thousand a second, looked at every ten seconds.
        for look in 0..360_u32 {
            let now = start + look * Duration::from_secs(10);
            told += (0..10_000).filter(|_| strangers.take(&"a", now)).count();
            counts.extend(strangers.over(now));
        }
        assert!(told + counts.len() <= 61, "{told} and {}", counts.len());
        let left_out: u64 = counts.iter().map(|(_, count)| count).sum();
        let last = strangers.over(start + 2 * 60 * MINUTE);
        assert_eq!(left_out + last[0].1 + told as u64, 3_600_000, "none is left out in silence");
        assert!(strangers.take(&"a", start + 3 * 60 * MINUTE), "and then it is heard again");
    }

    #[test]
    fn a_burst_is_heard_whole_and_nobody_pays_for_another() {
        let mut nodes = Allowance::new(300, 30, 8);
        let start = Instant::now();
        assert_eq!((0..1000).filter(|_| nodes.take(&1, start)).count(), 300);
        assert_eq!((0..300).filter(|_| nodes.take(&2, start)).count(), 300);
        assert_eq!(nodes.over(start + MINUTE), [(Some(1), 700)]);
        let later = (0..1000).filter(|_| nodes.take(&1, start + MINUTE)).count();
        assert_eq!(later, 29, "the line about the silence is one of thirty");
        assert_eq!((0..1000).filter(|_| nodes.take(&2, start + 10 * MINUTE)).count(), 300);
    }

    #[test]
    fn invented_peers_find_no_room_and_are_counted() {
        let mut strangers = Allowance::new(1, 1, 8);
        let start = Instant::now();
        assert_eq!((0..10_000).filter(|peer| strangers.take(peer, start)).count(), 8);
        assert_eq!(strangers.over(start + MINUTE), [(None, 9_992)]);
        assert!(strangers.take(&77_777, start + MINUTE), "those who are quiet make room");
        assert_eq!(strangers.peers.len(), 1);
    }
}
