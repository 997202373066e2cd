//! How an agent of a fleet reaches the host agent: by real TLS, from an address of its own, since a host agent limits
//! what one address may do. All handshakes are counted.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use k8sctl_rpc::tls::{self, Identity as TlsIdentity};
use node_agent::bootstrap::identity::Identity;
use node_agent::bootstrap::wire::Offer;
use node_agent::bootstrap::{Connection, DialError, Dialer};

/// When handshakes of a fleet succeeded.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Vec<Instant>>);

impl Tally {
    /// None so far.
    pub fn reset(&self) {
        self.all().clear();
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// The most of them within a second.
    pub fn most_a_second(&self) -> usize {
        let mut all = self.all().clone();
        all.sort_unstable();
        most_within(&all, Duration::from_secs(1))
    }

    fn note(&self) {
        self.all().push(Instant::now());
    }

    fn all(&self) -> MutexGuard<'_, Vec<Instant>> {
        // Whole values are pushed, so what a panic leaves behind is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The most of these moments, in order, within so long.
fn most_within(moments: &[Instant], span: Duration) -> usize {
    let within = |at: usize| moments[at..].partition_point(|it| it.duration_since(moments[at]) < span);
    (0..moments.len()).map(within).max().unwrap_or_default()
}

/// See the module.
#[derive(Debug)]
pub struct FleetDialer {
    from: IpAddr,
    tally: Arc<Tally>,
}

impl FleetDialer {
    /// Of the agent with this number, below 2^23.
    pub fn new(number: usize, tally: Arc<Tally>) -> Self {
        // All of 127/8 is this machine; 127.0 is left to others.
        let offset = u32::try_from(number).unwrap_or(u32::MAX) & 0x7f_ffff;
        let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + offset).into();
        Self { from, tally }
    }

    async fn connect(
        &self,
        address: &str,
        server_name: &str,
        ca_der: &[u8],
        identity: Option<TlsIdentity>,
    ) -> Result<Connection, DialError> {
        let (channel, exporter) = tls::connect_from(self.from, address, server_name, ca_der, identity)
            .await
            .map_err(|source| DialError { address: address.to_owned(), source: Box::new(source) })?;
        self.tally.note();
        Ok(Connection { channel, exporter: exporter.to_vec() })
    }
}

#[async_trait]
impl Dialer for FleetDialer {
    async fn dial_to_join(&self, offer: &Offer) -> Result<Connection, DialError> {
        self.connect(&offer.host_address, &offer.server_name, &offer.ca_der, None).await
    }

    async fn dial(&self, identity: &Identity) -> Result<Connection, DialError> {
        let shown =
            TlsIdentity { cert_der: identity.certificate_der.clone(), key_der: identity.key_der.clone() };
        self.connect(&identity.host_address, &identity.server_name, &identity.ca_der, Some(shown)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_within_a_second_is_found_wherever_it_is() {
        let begin = Instant::now();
        let at = |millis: &u64| begin + Duration::from_millis(*millis);
        let moments: Vec<Instant> = [0, 900, 1_000, 1_500, 1_899, 1_900, 5_000].iter().map(at).collect();
        assert_eq!(most_within(&moments, Duration::from_secs(1)), 4, "a second ends before its end");
        assert_eq!(most_within(&[], Duration::from_secs(1)), 0);
    }

    #[test]
    fn each_agent_has_an_address_of_its_own() {
        let from = |number| FleetDialer::new(number, Arc::default()).from;
        assert_eq!(from(0), IpAddr::from([127, 1, 0, 1]));
        assert_eq!(from(5_000), IpAddr::from([127, 1, 19, 137]));
        assert!(from(usize::MAX).is_loopback());
    }
}
