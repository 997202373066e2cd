//! The TLS port of one cluster: on the bridge address, with that cluster's certificate authority, for joining
//! and for the sessions of its nodes.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use host_pki::ca::node_identity;
use host_pki::service::JoinServer;
use jiff::{SignedDuration, Timestamp};
use k8sctl_proto::node::v1::join_service_server::JoinServiceServer;
use k8sctl_proto::node::v1::node_service_server::NodeServiceServer;
use k8sctl_rpc::limits;
use k8sctl_rpc::tls::{Owner, ServerCertificate, incoming, server_config};
use k8sctl_types::failure::Failure;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::agent_file::AgentFile;
use super::gate::GateLayer;
use super::service::NodeSessions;
use crate::cluster::shared::Shared;
use crate::pki::{self, ClusterPki};
use crate::records::ClusterRecord;

/// How old the server certificate gets, well within its seven days.
const CERTIFICATE_RENEWAL: SignedDuration = SignedDuration::from_hours(24);
/// How often it is asked whether it is time.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);

/// An open port. Dropping it closes the port and all connections.
#[derive(Debug)]
pub struct NodeListener {
    address: SocketAddr,
    ca_der: Vec<u8>,
    server_name: String,
    nodes: Arc<RwLock<HashSet<IpAddr>>>,
    _shutdown: oneshot::Sender<()>,
    server: AbortHandle,
    renewal: AbortHandle,
}

impl NodeListener {
    /// Binds the cluster's address. A port that was bound before is bound again, since agents remember it; clusters on
    /// one network have a port each.
    pub async fn open(
        shared: &Arc<Shared>,
        cluster: &ClusterRecord,
        all: &[ClusterRecord],
    ) -> Result<Self, Failure> {
        let address = match shared.config.node_listen {
            Some(address) => SocketAddr::new(address.ip(), cluster.node_port.unwrap_or(address.port())),
            None => {
                let gateway = cluster.spec.network.gateway();
                SocketAddr::new(gateway.into(), node_port(cluster, all, shared.config.node_port))
            }
        };
        let listener = bind(address).map_err(|error| taken(cluster, address, &error))?;
        let address = listener.local_addr().map_err(|error| {
            Failure::new("HOST-NODE-PORT", format!("node port {address}"), error.to_string(), "run it again")
        })?;
        let pki = shared.pki.open(cluster)?;
        let issued = pki.server_certificate(cluster, address.ip())?;
        let tls_failure = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(
                "HOST-NODE-TLS",
                format!("cluster {}", cluster.name),
                k8sctl_rpc::chain(error).to_string(),
                "restore the cluster's certificate authority from a backup",
            )
        };
        let certificate = ServerCertificate::new(&issued.certificate_der, &issued.key_der)
            .map_err(|error| tls_failure(&error))?;
        let config = server_config(pki.node_ca_der(), Arc::clone(&certificate))
            .map_err(|error| tls_failure(&error))?;

        let join = JoinServer::new(Arc::clone(&shared.authority));
        let agent_file = AgentFile::new(&shared.config.node_agent);
        let sessions =
            NodeSessions::new(Arc::clone(&shared.registry), Arc::clone(&shared.authority), agent_file);
        let (shutdown, closed) = oneshot::channel::<()>();
        let router = limits::server()
            .layer(GateLayer::default())
            .add_service(JoinServiceServer::new(join).max_decoding_message_size(limits::JOIN_DECODE_BYTES))
            .add_service(
                NodeServiceServer::new(sessions).max_decoding_message_size(limits::NODE_DECODE_BYTES),
            );
        let owner: Owner = |certificate| node_identity(certificate).ok().map(|node| node.node_id);
        let nodes = Arc::new(RwLock::new(addresses(cluster)));
        let known = Arc::clone(&nodes);
        // At a port on loopback nobody but this machine dials, from any of its addresses.
        let is_local = address.ip().is_loopback();
        let is_known = move |ip: IpAddr| {
            (is_local && ip.is_loopback())
                || known.read().unwrap_or_else(PoisonError::into_inner).contains(&ip)
        };
        let incoming = incoming(listener, config, owner, Arc::clone(&shared.handshakes), is_known);
        let serve = router.serve_with_incoming_shutdown(incoming, async {
            // Resolves when the listener is dropped.
            let _ = closed.await;
        });
        let server = k8sctl_rpc::task::spawn(format!("node-port-{address}"), serve);
        let ca_der = pki.node_ca_der().to_vec();
        let server_name = pki.server_name().to_owned();
        let renewal = k8sctl_rpc::task::spawn(
            format!("node-port-certificate-{address}"),
            renew(pki, cluster.clone(), address, certificate),
        );
        Ok(Self { address, ca_der, server_name, nodes, _shutdown: shutdown, server, renewal })
    }

    /// Keeps places for the nodes that the cluster has by now.
    pub fn set_nodes(&self, cluster: &ClusterRecord) {
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = addresses(cluster);
    }

    /// Where agents dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root that agents trust.
    pub fn ca_der(&self) -> &[u8] {
        &self.ca_der
    }

    /// The name that agents ask for.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// The server still runs.
    pub fn is_open(&self) -> bool {
        !self.server.is_finished()
    }
}

impl Drop for NodeListener {
    fn drop(&mut self) {
        self.renewal.abort();
        self.server.abort();
    }
}

/// From where the nodes of a cluster dial.
fn addresses(cluster: &ClusterRecord) -> HashSet<IpAddr> {
    cluster.nodes.iter().map(|node| node.spec.ip.into()).collect()
}

/// Why there is no port, and what to do: nodes that know it look nowhere else, whatever the configuration says.
fn taken(cluster: &ClusterRecord, address: SocketAddr, error: &std::io::Error) -> Failure {
    let next = match cluster.node_port {
        Some(port) => format!(
            "see what holds port {port} with `ss -ltnp`, and end it: the nodes of cluster {} know this port and no other",
            cluster.name
        ),
        None => "see what holds the port with `ss -ltnp` and end it, or set another `node_port` in the host agent's \
                 configuration"
            .to_owned(),
    };
    let reason = format!("cannot listen for node agents: {error}");
    Failure::new("HOST-NODE-PORT", format!("node port {address}"), reason, next)
}

/// The cluster's port, or for a new one the first from `first` on that no other cluster at the same address has.
fn node_port(cluster: &ClusterRecord, all: &[ClusterRecord], first: u16) -> u16 {
    let gateway = cluster.spec.network.gateway();
    let others = all.iter().filter(|it| it.id != cluster.id && it.spec.network.gateway() == gateway);
    let taken: Vec<u16> = others.filter_map(|it| it.node_port).collect();
    let free = || (first..=u16::MAX).find(|port| !taken.contains(port));
    cluster.node_port.or_else(free).unwrap_or(first)
}

/// Replaces the server certificate when it is due by the clock on the wall; ends with the listener.
async fn renew(
    pki: ClusterPki,
    cluster: ClusterRecord,
    address: SocketAddr,
    certificate: Arc<ServerCertificate>,
) {
    let mut issued = Timestamp::now();
    loop {
        while !pki::is_due(issued, CERTIFICATE_RENEWAL, Timestamp::now()) {
            tokio::time::sleep(CERTIFICATE_LOOK).await;
        }
        issued = Timestamp::now();
        let renewed = pki.server_certificate(&cluster, address.ip()).map_err(|failure| failure.to_string());
        let replaced = renewed.and_then(|new| {
            let replaced = certificate.replace(&new.certificate_der, &new.key_der);
            replaced.map_err(|error| k8sctl_rpc::chain(&error).to_string())
        });
        if let Err(error) = replaced {
            tracing::error!(cluster.name = %cluster.name, error, "cannot renew the node port's certificate");
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A port of a host agent that was just ended may be taken at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, cidr: &str, port: Option<u16>) -> ClusterRecord {
        let spec = format!(
            "name = \"{name}\"\n[network]\ncidr = \"{cidr}.0/24\"\n[[node]]\nname = \"{name}-cp\"\nrole = \"control-plane\"\nip = \"{cidr}.10\"\n"
        );
        let spec = k8sctl_types::spec::parse(&spec).expect("a sound spec").spec;
        ClusterRecord { node_port: port, ..ClusterRecord::planned(&spec, None, "image", "v1.29.0") }
    }

    #[test]
    fn clusters_on_one_network_have_a_port_each() {
        let old = cluster("a", "192.168.122", Some(6444));
        let elsewhere = cluster("b", "192.168.140", Some(6445));
        let new = cluster("c", "192.168.122", None);
        let all = [old.clone(), elsewhere, new.clone()];
        assert_eq!(node_port(&new, &all, 6444), 6445);
        assert_eq!(node_port(&old, &all, 7000), 6444);
        assert_eq!(node_port(&cluster("d", "192.168.150", None), &all, 6444), 6444);
    }

    #[test]
    fn a_port_that_nodes_know_is_not_to_be_changed() {
        let address = SocketAddr::from(([192, 168, 122, 1], 6444));
        let next = |port| {
            let error = std::io::Error::from(std::io::ErrorKind::AddrInUse);
            taken(&cluster("a", "192.168.122", port), address, &error).next_step
        };
        assert!(next(None).contains("`node_port`"), "{}", next(None));
        let known = next(Some(6444));
        assert!(known.contains("end it") && !known.contains("`node_port`"), "{known}");
    }
}
