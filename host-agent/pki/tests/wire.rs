//! Joining over real TLS on loopback, with the real services: listener, join service, and a node service that lets in
//! whom `authenticated_node` knows.

mod world;

use std::net::SocketAddr;
use std::sync::Arc;

use host_pki::ca::{NodeCa, node_identity};
use host_pki::join::JoinAuthority;
use host_pki::service::{JoinServer, authenticated_node, join_status};
use jiff::Timestamp;
use k8sctl_proto::node::v1::join_service_client::JoinServiceClient;
use k8sctl_proto::node::v1::join_service_server::JoinServiceServer;
use k8sctl_proto::node::v1::node_service_client::NodeServiceClient;
use k8sctl_proto::node::v1::node_service_server::{NodeService, NodeServiceServer};
use k8sctl_proto::node::v1::{
    AgentMessage, FetchAgentRequest, FetchAgentResponse, HostMessage, JoinResponse, LogFrame,
    PushLogsResponse, RenewCertificateRequest, RenewCertificateResponse,
};
use k8sctl_rpc::status::failure_from;
use k8sctl_rpc::tls::{self, Identity, ServerCertificate};
use k8sctl_rpc::{limits, task};
use secrecy::SecretSlice;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use world::{CLUSTER, NODE, World, csr, csr_with_key, request};

struct Sessions(Arc<JoinAuthority>);

#[tonic::async_trait]
impl NodeService for Sessions {
    type SessionStream = ReceiverStream<Result<HostMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = authenticated_node(&self.0, &request).await?;
        self.0.session_started(&identity).await.map_err(|error| join_status(&error))?;
        let (_, receiver) = tokio::sync::mpsc::channel(1);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let identity = authenticated_node(&self.0, &request).await?;
        let renewed = self.0.renew(&identity, &request.get_ref().csr_der).await;
        let signed = renewed.map_err(|error| join_status(&error))?;
        Ok(Response::new(RenewCertificateResponse {
            certificate_der: signed.certificate_der,
            not_after: None,
        }))
    }

    type FetchAgentStream = ReceiverStream<Result<FetchAgentResponse, Status>>;

    async fn fetch_agent(
        &self,
        request: Request<FetchAgentRequest>,
    ) -> Result<Response<Self::FetchAgentStream>, Status> {
        authenticated_node(&self.0, &request).await?;
        let (_, receiver) = tokio::sync::mpsc::channel(1);
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn push_logs(
        &self,
        request: Request<Streaming<LogFrame>>,
    ) -> Result<Response<PushLogsResponse>, Status> {
        authenticated_node(&self.0, &request).await?;
        Ok(Response::new(PushLogsResponse {}))
    }
}

struct Port {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

async fn open(world: &World, ca: &NodeCa) -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let own = ca.server_certificate(address.ip(), Timestamp::now()).expect("a certificate");
    let certificate = ServerCertificate::new(&own.certificate_der, &own.key_der).expect("usable");
    let config = tls::server_config(ca.certificate_der(), certificate).expect("a configuration");
    let join = JoinServiceServer::new(JoinServer::new(Arc::clone(&world.authority)));
    let owner: tls::Owner = |certificate| node_identity(certificate).ok().map(|node| node.node_id);
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = limits::server()
        .add_service(join.max_decoding_message_size(limits::JOIN_DECODE_BYTES))
        .add_service(NodeServiceServer::new(Sessions(Arc::clone(&world.authority))))
        .serve_with_incoming_shutdown(
            tls::incoming(listener, config, owner, Arc::default(), |_| false),
            async {
                drop(stopped.await);
            },
        );
    task::spawn("node-port", serve);
    Port { address, _stop: stop }
}

impl Port {
    async fn dial(&self, ca: &NodeCa, identity: Option<Identity>) -> (tonic::transport::Channel, [u8; 32]) {
        let address = self.address.to_string();
        tls::connect(&address, ca.server_name(), ca.certificate_der(), identity).await.expect("connects")
    }

    /// Joins as the honest agent does; gives its identity.
    async fn join(&self, world: &World, secret: &SecretSlice<u8>) -> Result<Identity, Status> {
        let (csr_der, key) = csr_with_key();
        let (channel, exporter) = self.dial(world.ca(), None).await;
        let answer: JoinResponse =
            JoinServiceClient::new(channel).join(request(secret, &exporter, &csr_der)).await?.into_inner();
        Ok(Identity { cert_der: answer.certificate_der, key_der: key.serialize_der() })
    }

    async fn renew(
        &self,
        world: &World,
        identity: Option<Identity>,
    ) -> Result<RenewCertificateResponse, Status> {
        let (channel, _) = self.dial(world.ca(), identity).await;
        let request = RenewCertificateRequest { csr_der: csr() };
        NodeServiceClient::new(channel).renew_certificate(request).await.map(Response::into_inner)
    }

    async fn session(&self, world: &World, identity: Identity) -> Result<(), Status> {
        let (channel, _) = self.dial(world.ca(), Some(identity)).await;
        NodeServiceClient::new(channel).session(tokio_stream::empty()).await.map(|_| ())
    }
}

fn id(status: &Status) -> String {
    failure_from(status).map_or_else(|| format!("{status:?}"), |failure| failure.id)
}

#[tokio::test]
async fn an_agent_joins_comes_in_and_renews() {
    let world = World::new();
    let port = open(&world, world.ca()).await;
    let secret = world.offer().await;
    let identity = port.join(&world, &secret).await.expect("joins");
    port.session(&world, identity.clone()).await.expect("comes in");
    let renewed = port.renew(&world, Some(identity)).await.expect("renews");
    world.ca().verify_node(&renewed.certificate_der, world.now()).expect("is the node's");
    let second = port.join(&world, &secret).await.expect_err("the secret is used");
    assert_eq!(id(&second), "JOIN-PROOF");
}

#[tokio::test]
async fn without_a_certificate_only_joining_is_answered() {
    let world = World::new();
    let port = open(&world, world.ca()).await;
    let refused = port.renew(&world, None).await.expect_err("is refused");
    assert_eq!(
        (refused.code(), id(&refused).as_str()),
        (tonic::Code::Unauthenticated, "AUTH-NO-CERTIFICATE")
    );
}

#[tokio::test]
async fn a_relayed_join_is_refused_on_the_second_leg() {
    let world = World::new();
    let port = open(&world, world.ca()).await;
    let secret = world.offer().await;
    // The agent's own session ends at the relay; the relay forwards the proof on its session with the host.
    let (_agents, exporter) = port.dial(world.ca(), None).await;
    let (relays, _) = port.dial(world.ca(), None).await;
    let refused = JoinServiceClient::new(relays).join(request(&secret, &exporter, &csr())).await;
    assert_eq!(id(&refused.expect_err("is refused")), "JOIN-PROOF");
    port.join(&world, &secret).await.expect("the honest agent still joins");
}

#[tokio::test]
async fn a_removed_node_is_refused_at_its_next_call() {
    let world = World::new();
    let port = open(&world, world.ca()).await;
    let identity = port.join(&world, &world.offer().await).await.expect("joins");
    port.session(&world, identity.clone()).await.expect("comes in");
    world.authority.revoke(NODE).await.expect("revokes");
    let refused = port.session(&world, identity.clone()).await.expect_err("is refused");
    assert_eq!((refused.code(), id(&refused).as_str()), (tonic::Code::PermissionDenied, "AUTH-REVOKED"));
    assert_eq!(id(&port.renew(&world, Some(identity)).await.expect_err("is refused")), "AUTH-REVOKED");
}

#[tokio::test]
async fn a_node_of_another_cluster_does_not_get_past_tls() {
    let world = World::new();
    let other = Arc::clone(&world.authorities.0[1]);
    let (ours, theirs) = (open(&world, world.ca()).await, open(&world, &other).await);
    let identity = ours.join(&world, &world.offer().await).await.expect("joins its own cluster");
    let address = theirs.address.to_string();
    let refused =
        match tls::connect(&address, other.server_name(), other.certificate_der(), Some(identity)).await {
            Ok((channel, _)) => {
                let request = RenewCertificateRequest { csr_der: csr() };
                NodeServiceClient::new(channel).renew_certificate(request).await.is_err()
            }
            Err(_) => true,
        };
    assert!(refused);
    assert_ne!(other.cluster_id(), CLUSTER);
}

#[tokio::test]
async fn the_node_port_shows_the_clusters_name_and_address() {
    let world = World::new();
    let port = open(&world, world.ca()).await;
    let address = port.address.to_string();
    for name in ["host.cluster-a.k8sctl.internal", "127.0.0.1"] {
        tls::connect(&address, name, world.ca().certificate_der(), None).await.expect(name);
    }
    tls::connect(&address, "host.cluster-b.k8sctl.internal", world.ca().certificate_der(), None)
        .await
        .expect_err("another cluster's name");
}
