//! How often one peer may try: a bucket that holds some attempts and fills slowly. Kept in memory; it slows guessing and
//! floods down, and never touches a token.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Peers that are remembered.
const PEERS: usize = 4096;

/// Buckets by peer.
#[derive(Debug)]
pub(super) struct RateLimit<K> {
    burst: f64,
    per_second: f64,
    buckets: HashMap<K, (f64, Instant)>,
}

impl<K: Eq + Hash> RateLimit<K> {
    /// So many attempts at once, and so many a second after that.
    pub(super) fn new(burst: f64, per_second: f64) -> Self {
        Self { burst, per_second, buckets: HashMap::new() }
    }

    /// Takes one attempt out of the peer's bucket; `false` means that it is empty.
    pub(super) fn allow(&mut self, peer: K, now: Instant) -> bool {
        let Self { burst, per_second, buckets } = self;
        if buckets.len() >= PEERS {
            let full = Duration::from_secs_f64(*burst / *per_second);
            buckets.retain(|_, (_, at)| now.saturating_duration_since(*at) < full);
        }
        if buckets.len() >= PEERS && !buckets.contains_key(&peer) {
            return false;
        }
        let (tokens, at) = buckets.entry(peer).or_insert((*burst, now));
        *tokens = (*tokens + now.saturating_duration_since(*at).as_secs_f64() * *per_second).min(*burst);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn a_bucket_empties_and_fills_for_each_peer_alone() {
        let mut limit = RateLimit::new(10.0, 1.0);
        let start = Instant::now();
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let allowed = (0..100).filter(|_| limit.allow(one, start)).count();
        assert_eq!(allowed, 10);
        assert!(limit.allow(two, start));
        assert!(limit.allow(one, start + Duration::from_secs(1)));
        assert!(!limit.allow(one, start + Duration::from_secs(1)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut limit = RateLimit::new(10.0, 1.0);
        let start = Instant::now();
        for number in 0..10_000_u32 {
            limit.allow(IpAddr::from(number.to_be_bytes()), start);
        }
        assert_eq!(limit.buckets.len(), PEERS);
        assert!(limit.allow(IpAddr::from([127, 9, 9, 9]), start + Duration::from_secs(11)));
    }
}
