//! When domains were rebooted. libvirt tells of it once and keeps nothing of it: the domain is in the same run.
//!
//! Written by [`super::events`], read by each look. What happens while the connection is broken is missed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use uuid::Uuid;

use crate::observed::ObservedDomain;

/// The last reboot of each domain, whoever it belongs to. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reboots(Arc<Mutex<HashMap<Uuid, Instant>>>);

impl Reboots {
    /// This domain was rebooted then.
    pub fn note(&self, domain: Uuid, at: Instant) {
        self.lock().insert(domain, at);
    }

    /// Tells of each domain of a host when it was rebooted. What was kept of others is forgotten: they are gone.
    pub fn observe(&self, domains: &mut [ObservedDomain]) {
        let mut reboots = self.lock();
        let mut seen = HashSet::new();
        for domain in domains {
            let Ok(uuid) = Uuid::parse_str(&domain.uuid) else { continue };
            domain.rebooted = reboots.get(&uuid).copied();
            seen.insert(uuid);
        }
        reboots.retain(|uuid, _| seen.contains(uuid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Instant>> {
        // Only whole entries are inserted and removed, so what a panic leaves behind is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reboot_is_observed_for_as_long_as_its_domain_is_there() {
        let (reboots, first) = (Reboots::default(), Instant::now());
        let [ours, other] = [1, 2].map(Uuid::from_u128);
        let domain = |uuid: Uuid| ObservedDomain { uuid: uuid.to_string(), ..ObservedDomain::default() };
        let seen = |uuids: &[Uuid]| {
            let mut domains: Vec<_> = uuids.iter().map(|uuid| domain(*uuid)).collect();
            reboots.observe(&mut domains);
            domains.iter().map(|it| it.rebooted).collect::<Vec<_>>()
        };
        assert_eq!(seen(&[ours, other]), [None, None]);
        reboots.note(ours, first);
        assert_eq!(seen(&[ours, other]), [Some(first), None]);
        assert_eq!(seen(&[ours, other]), [Some(first), None], "a look takes nothing away");
        let second = Instant::now();
        reboots.note(ours, second);
        reboots.note(other, first);
        assert_eq!(seen(&[other, ours]), [Some(first), Some(second)]);
        assert_eq!(seen(&[ours]), [Some(second)]);
        assert_eq!(seen(&[ours, other]), [Some(second), None]);
    }
}
