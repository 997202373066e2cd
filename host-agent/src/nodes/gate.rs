//! Stands before the services of a node port. Who has shown no certificate gets no further than to joining, and each
//! node has so many calls at a time.
//!
//! tonic reads the whole message of a call before its service is asked who may call, so that without this it would be
//! the callers who decide how many unfinished messages are kept here, and for how long.

use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _, ready};
use host_pki::ca::node_identity;
use host_pki::service::no_certificate;
use http::{Request, Response};
use k8sctl_rpc::answer::Answer;
use k8sctl_rpc::limits;
use k8sctl_rpc::places::{Place, Places};
use k8sctl_rpc::status::status;
use k8sctl_rpc::tls::PeerInfo;
use k8sctl_types::failure::Failure;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// The only method that is open to strangers.
const JOIN: &str = "/k8sctl.node.v1.JoinService/Join";
const RENEW: &str = "/k8sctl.node.v1.NodeService/RenewCertificate";
const FETCH: &str = "/k8sctl.node.v1.NodeService/FetchAgent";
const LOGS: &str = "/k8sctl.node.v1.NodeService/PushLogs";

/// Guards every method of the services behind it.
#[derive(Clone, Debug)]
pub(super) struct GateLayer {
    /// That wait for their response to begin, by node id or, without certificate, by address. No node id has a dot or a
    /// colon.
    calls: Places<String>,
    /// That wait for their response to be read to its end, by the same; but for logs, whose response comes at their end
    /// and has nothing in it.
    answers: Places<String>,
}

impl Default for GateLayer {
    fn default() -> Self {
        let (calls, answers) = (Places::new(limits::CALLS_PER_NODE), Places::new(limits::ANSWERS_PER_NODE));
        Self { calls, answers }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GateService { inner, gate: self.clone() }
    }
}

/// See [`GateLayer`].
#[derive(Clone, Debug)]
pub(super) struct GateService<S> {
    inner: S,
    gate: GateLayer,
}

impl GateLayer {
    /// A place for a call of this peer, and one for its answer: HTTP/2 keeps of each what its reader does not take, also of
    /// a session that is over.
    fn admit(&self, path: &str, peer: Option<&PeerInfo>) -> Result<Admitted, Status> {
        let peer = peer.ok_or_else(no_certificate)?;
        let (kind, caller) = match &peer.client_certificate {
            // The listener lets in none that names nobody.
            Some(certificate) => ("node", node_identity(certificate).map_err(|_| no_certificate())?.node_id),
            None if path == JOIN => ("address", peer.remote.ip().to_string()),
            None => return Err(no_certificate()),
        };
        let busy = |most, what| busy(&format!("{kind} {caller}"), most, what);
        let call = self.calls.take(caller.clone());
        let call = call.ok_or_else(|| busy(limits::CALLS_PER_NODE, "wait for an answer already"))?;
        let answer = match path {
            LOGS => None,
            // Before the call has done anything.
            _ => Some(
                self.answers
                    .take(caller.clone())
                    .ok_or_else(|| busy(limits::ANSWERS_PER_NODE, "are not read to their end"))?,
            ),
        };
        Ok(Admitted { call, answer })
    }
}

/// The places of a call.
struct Admitted {
    call: Place<String>,
    answer: Option<Place<String>>,
}

impl<S, B> Service<Request<B>> for GateService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let Admitted { call: place, answer: answers_place } =
            match self.gate.admit(path, request.extensions().get()) {
                Ok(admitted) => admitted,
                Err(refused) => return ready(Ok(refused.into_http())).boxed(),
            };
        // The other calls last as long as a session or a log does; their first message has a deadline of its own.
        let has_deadline = [JOIN, RENEW, FETCH].contains(&path);
        let answer = self.inner.call(request);
        async move {
            // Until the response begins: what comes in after that belongs to a session, and of these a node has one.
            let _place = place;
            let answer = if has_deadline {
                timeout(limits::CALL_TIMEOUT, answer).await.unwrap_or_else(|_| Ok(too_late().into_http()))
            } else {
                answer.await
            };
            answer.map(|response| response.map(|body| Answer::body(body, answers_place)))
        }
        .boxed()
    }
}

fn busy(object: &str, most: usize, what: &str) -> Status {
    status(
        Code::ResourceExhausted,
        &Failure::new(
            "NODE-BUSY",
            object,
            format!("{most} of its calls {what}"),
            "wait: the node agent calls again by itself",
        ),
    )
}

fn too_late() -> Status {
    status(
        Code::DeadlineExceeded,
        &Failure::new(
            "NODE-CALL-DEADLINE",
            "node port",
            format!("the call did not end within {} s", limits::CALL_TIMEOUT.as_secs()),
            "wait: the node agent calls again by itself; if it never succeeds, see the host agent's log",
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::time::Duration;

    use futures::future::pending;
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Bytes;
    use k8sctl_rpc::status::failure_from;
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, KeyPair, SanType};
    use rustls::pki_types::CertificateDer;
    use tower::service_fn;

    const SESSION: &str = "/k8sctl.node.v1.NodeService/Session";
    const HOUR: Duration = Duration::from_secs(3600);

    type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    /// Calls whose messages do not end, through one gate.
    fn calls() -> impl FnMut(&str, Option<CertificateDer<'static>>) -> Answer {
        let unfinished = |_: Request<()>| async { pending::<Result<Response<Body>, Infallible>>().await };
        let mut gate = GateLayer::default().layer(service_fn(unfinished));
        move |path, client_certificate| {
            let remote = SocketAddr::from(([192, 168, 122, 11], 5000));
            let mut request = Request::builder().uri(path).body(()).expect("a request");
            request.extensions_mut().insert(PeerInfo { remote, exporter: [0; 32], client_certificate });
            gate.call(request)
        }
    }

    fn certificate(node_id: &str) -> Option<CertificateDer<'static>> {
        let key = KeyPair::generate().expect("a key");
        let uri = Ia5String::try_from(format!("k8sctl://home/node/{node_id}")).expect("a URI");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri)];
        Some(params.self_signed(&key).expect("signs itself").der().clone())
    }

    /// Code and id of a refusal. `None` means that the call waits.
    fn refusal(answer: Answer) -> Option<(Code, String)> {
        of(answer.now_or_never()?)
    }

    fn of(answer: Result<Response<Body>, Infallible>) -> Option<(Code, String)> {
        let status = Status::from_header_map(answer.expect("it cannot fail").headers())?;
        Some((status.code(), failure_from(&status)?.id))
    }

    fn is(code: Code, id: &str) -> Option<(Code, String)> {
        Some((code, id.to_owned()))
    }

    #[tokio::test]
    async fn without_a_certificate_only_joining_is_waited_for() {
        let mut call = calls();
        for path in [RENEW, SESSION, LOGS, "/k8sctl.control.v1.ClusterService/Destroy", "/"] {
            let refused = is(Code::Unauthenticated, "AUTH-NO-CERTIFICATE");
            assert_eq!(refusal(call(path, None)), refused, "{path}");
            assert_eq!(refusal(call(path, certificate("a"))), None, "{path}");
        }
        assert_eq!(refusal(call(JOIN, None)), None);
    }

    #[tokio::test]
    async fn a_node_has_so_many_calls_and_gets_their_places_back() {
        let mut call = calls();
        let (node, other) = (certificate("a"), certificate("b"));
        for caller in [node, None] {
            // Their kind and the connection that they come by make no difference.
            let paths = if caller.is_some() { [RENEW, LOGS] } else { [JOIN, JOIN] };
            let mut held: Vec<Answer> =
                (0..limits::CALLS_PER_NODE).map(|number| call(paths[number % 2], caller.clone())).collect();
            let busy = is(Code::ResourceExhausted, "NODE-BUSY");
            assert_eq!(refusal(call(JOIN, caller.clone())), busy);
            assert_eq!(refusal(call(RENEW, other.clone())), None, "another node's are its own");
            held.pop();
            assert_eq!(refusal(call(JOIN, caller.clone())), None, "one has ended");
        }
    }

    #[tokio::test]
    async fn what_a_node_does_not_read_is_kept_for_a_few_of_its_calls() {
        let text = |_: Request<()>| {
            let body = Body::new(Full::new(Bytes::from_static(b"desired state")));
            ready(Ok::<_, Infallible>(Response::new(body)))
        };
        let mut gate = GateLayer::default().layer(service_fn(text));
        let mut call = async |node: &str| {
            let remote = SocketAddr::from(([192, 168, 122, 11], 5000));
            let mut request = Request::builder().uri(SESSION).body(()).expect("a request");
            let client_certificate = certificate(node);
            request.extensions_mut().insert(PeerInfo { remote, exporter: [0; 32], client_certificate });
            gate.call(request).await.expect("it cannot fail")
        };
        let mut pieces = Vec::new();
        for _ in 0..limits::ANSWERS_PER_NODE {
            // HTTP/2 has taken it over and waits for its reader; the session is over.
            pieces.push(call("a").await.into_body().collect().await.expect("it is there").to_bytes());
        }
        assert_eq!(of(Ok(call("a").await)), is(Code::ResourceExhausted, "NODE-BUSY"));
        assert_eq!(of(Ok(call("b").await)), None, "another node's are its own");
        pieces.pop();
        assert_eq!(of(Ok(call("a").await)), None, "one was sent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_end_is_not_waited_for() {
        let mut call = calls();
        for (path, caller) in [(JOIN, None), (RENEW, certificate("a")), (FETCH, certificate("a"))] {
            let answer = timeout(limits::CALL_TIMEOUT * 2, call(path, caller)).await.expect("it ends");
            assert_eq!(of(answer), is(Code::DeadlineExceeded, "NODE-CALL-DEADLINE"), "{path}");
        }
        for path in [LOGS, SESSION] {
            let answer = timeout(HOUR, call(path, certificate("a"))).await;
            assert!(answer.is_err(), "{path} goes on as long as it is read");
        }
    }
}
