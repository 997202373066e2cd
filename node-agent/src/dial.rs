//! The real [`Dialer`]: TLS 1.3 to the host agent, with only its cluster's CA trusted.

use async_trait::async_trait;
use k8sctl_rpc::tls;

use crate::bootstrap::identity::Identity;
use crate::bootstrap::wire::Offer;
use crate::bootstrap::{Connection, DialError, Dialer};

/// Dials over TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDialer;

#[async_trait]
impl Dialer for RealDialer {
    async fn dial_to_join(&self, offer: &Offer) -> Result<Connection, DialError> {
        let (address, name, ca) = (&offer.host_address, &offer.server_name, &offer.ca_der);
        let dialled = match offer.host_time {
            Some(time) => tls::connect_at(address, name, ca, None, time).await,
            None => tls::connect(address, name, ca, None).await,
        };
        connection(address, dialled)
    }

    async fn dial(&self, identity: &Identity) -> Result<Connection, DialError> {
        let shown =
            tls::Identity { cert_der: identity.certificate_der.clone(), key_der: identity.key_der.clone() };
        let address = &identity.host_address;
        connection(address, tls::connect(address, &identity.server_name, &identity.ca_der, Some(shown)).await)
    }
}

fn connection(
    address: &str,
    dialled: Result<(tonic::transport::Channel, tls::Exporter), tls::TlsError>,
) -> Result<Connection, DialError> {
    let (channel, exporter) =
        dialled.map_err(|source| DialError { address: address.to_owned(), source: Box::new(source) })?;
    Ok(Connection { channel, exporter: exporter.to_vec() })
}
