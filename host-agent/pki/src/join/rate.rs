//! How often one address may try to join: a bucket that holds some attempts and fills slowly. Kept in memory; it
//! slows guessing and floods down, and never touches a token.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Attempts at once.
const BURST: f64 = 10.0;
/// Attempts a second after that.
const PER_SECOND: f64 = 1.0;
/// Addresses that are remembered.
const ADDRESSES: usize = 4096;

/// Buckets by address.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    buckets: HashMap<IpAddr, (f64, Instant)>,
}

impl RateLimit {
    /// Takes one attempt out of the address's bucket; `false` means that it is empty.
    pub(super) fn allow(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.buckets.len() >= ADDRESSES {
            let full = Duration::from_secs_f64(BURST / PER_SECOND);
            self.buckets.retain(|_, (_, at)| now.saturating_duration_since(*at) < full);
        }
        if self.buckets.len() >= ADDRESSES && !self.buckets.contains_key(&address) {
            return false;
        }
        let (tokens, at) = self.buckets.entry(address).or_insert((BURST, now));
        *tokens = (*tokens + now.saturating_duration_since(*at).as_secs_f64() * PER_SECOND).min(BURST);
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

    #[test]
    fn a_bucket_empties_and_fills_for_each_address_alone() {
        let mut limit = RateLimit::default();
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
        let mut limit = RateLimit::default();
        let start = Instant::now();
        for number in 0..10_000_u32 {
            limit.allow(IpAddr::from(number.to_be_bytes()), start);
        }
        assert_eq!(limit.buckets.len(), ADDRESSES);
        assert!(limit.allow(IpAddr::from([127, 9, 9, 9]), start + Duration::from_secs(11)));
    }
}
