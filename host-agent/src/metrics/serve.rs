//! Serves the metrics over HTTP: on a unix socket to whoever may look, and on a loopback port, where one is configured,
//! to everybody on the host. One answer a connection, with bounds on their number, on headers and on time.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, HeaderValue, VARY};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8sctl_proto::roles::Role;
use k8sctl_rpc::limits::ACCEPT_PAUSE;
use k8sctl_rpc::places::Places;
use k8sctl_rpc::unix::{self, Held, UnixError};
use k8sctl_types::failure::Failure;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;
use tonic::transport::server::Connected as _;

use super::{Exporter, text};
use crate::config::HostConfig;
use crate::control::roles::{OPERATOR_GROUP, is_root, peer_role};

/// Connections of the socket, and requests of the port; further ones are closed, or refused.
const CONNECTIONS: usize = 16;
/// Connections of the port, to which anybody on the host may connect and say nothing; further ones are closed.
const PORT_CONNECTIONS: usize = 256;
/// Those of the socket that one user may have, so that who reads slowly leaves some to Prometheus.
const PER_USER: usize = 8;
/// Connections of the socket of users without a role, besides: they are only told so, and take no place of the others.
const STRANGERS: usize = 4;
/// How long the header of a request may take.
const HEADER_TIME: Duration = Duration::from_secs(3);
/// How long all of a connection may take, an answer that is read slowly included.
const CONNECTION_TIME: Duration = Duration::from_secs(15);
/// Largest header of a request, in bytes. The library wants no less.
const HEADER_BYTES: usize = 8192;
/// Lines of it.
const HEADER_LINES: usize = 32;
/// Between two tries to listen on a port that somebody else has.
const BIND_PAUSE: Duration = Duration::from_secs(30);

/// What prometheus-client writes, for those who know it.
const OPEN_METRICS_TYPE: &str = "application/openmetrics-text";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What all others get.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Makes the text; `None` where that broke off.
type Source = Arc<dyn Fn() -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// On what grounds somebody may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Who connected to the socket has this role, or one that may more.
    Role(Role),
    /// Who connected to the port is on this host.
    Loopback,
}

/// Makes the socket and begins to serve, on the port too where one is configured.
pub fn start(config: &HostConfig, exporter: Arc<Exporter>) -> Result<(), UnixError> {
    let source: Source = Arc::new(move || Arc::clone(&exporter).text().boxed());
    let group = config.reader_group.clone();
    let incoming = unix::listen(&config.metrics_socket(), is_root, move |peer| {
        peer_role(peer, group.as_deref()) != Role::Unspecified
    })?;
    k8sctl_rpc::task::spawn("metrics-socket", serve_socket(incoming, Arc::clone(&source)));
    if let Some(address) = config.metrics_listen {
        k8sctl_rpc::task::spawn("metrics-port", async move {
            serve_port(bind(address).await, source).await;
        });
    }
    Ok(())
}

async fn serve_socket(mut incoming: unix::Incoming, source: Source) {
    let (readers, strangers) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(Semaphore::new(STRANGERS)));
    let users = Places::new(PER_USER);
    while let Some(Ok(connection)) = incoming.next().await {
        let (role, places) = match connection.held() {
            Held::User(_) => (Role::Reader, &readers),
            Held::Stranger(_) => (Role::Unspecified, &strangers),
        };
        let Some(of_user) = users.take(connection.connect_info().uid) else { continue };
        let Ok(of_all) = Arc::clone(places).try_acquire_owned() else { continue };
        let access = Access::Role(role);
        let source = Arc::clone(&source);
        k8sctl_rpc::task::spawn("metrics-reader", async move {
            converse(connection, access, source, None).await;
            drop((of_user, of_all));
        });
    }
}

/// Waits until the port is free: a host agent has more to do than to be measured.
async fn bind(address: SocketAddr) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                tracing::info!(%address, "serving metrics");
                return listener;
            }
            Err(error) if is_told => tracing::debug!(%address, %error, "still cannot serve metrics"),
            Err(error) => tracing::error!(%address, %error, "cannot serve metrics; trying again"),
        }
        is_told = true;
        sleep(BIND_PAUSE).await;
    }
}

async fn serve_port(listener: TcpListener, source: Source) {
    let places = Arc::new(Semaphore::new(PORT_CONNECTIONS));
    let requests = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Without free file descriptors the next try would fail as well, and at once.
                tracing::warn!(%error, "cannot accept a reader of metrics");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (source, requests) = (Arc::clone(&source), Arc::clone(&requests));
        k8sctl_rpc::task::spawn("metrics-reader", async move {
            converse(stream, Access::Loopback, source, Some(requests)).await;
            drop(place);
        });
    }
}

/// One request and its answer, which has a place among `requests`, where these are bounded.
async fn converse<S>(stream: S, access: Access, source: Source, requests: Option<Arc<Semaphore>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, access, Arc::clone(&source), requests.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADER_LINES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a reader of metrics broke off"),
        Err(_) => tracing::debug!("a reader of metrics took too long"),
    }
}

async fn answer(
    request: Request<Incoming>,
    access: Access,
    source: Source,
    requests: Option<Arc<Semaphore>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let place = match requests.map(Semaphore::try_acquire_owned).transpose() {
        Ok(place) => place,
        Err(_) => return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "too many read the metrics".to_owned())),
    };
    Ok(match decide(&request, access) {
        Err((status, why)) => {
            let mut refusal = plain(status, why);
            if status == StatusCode::METHOD_NOT_ALLOWED {
                refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            refusal
        }
        Ok(()) => match source().await {
            Some(text) => metrics(&request, text, place),
            None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be read".to_owned()),
        },
    })
}

/// A text that is being read, and its reader's place.
struct Text {
    text: String,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// The text in the format that was asked for.
fn metrics<B>(
    request: &Request<B>,
    text: String,
    place: Option<OwnedSemaphorePermit>,
) -> Response<Full<Bytes>> {
    let (kind, text) = match knows_open_metrics(request) {
        true => (OPEN_METRICS, text),
        false => (CLASSIC, text::classic(&text)),
    };
    let mut response = response(StatusCode::OK, kind, Bytes::from_owner(Text { text, _place: place }));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// Whether it is among what may come, and not as what may not: `q=0`.
fn knows_open_metrics<B>(request: &Request<B>) -> bool {
    let told = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    told.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_it = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(OPEN_METRICS_TYPE));
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        is_it && quality.is_none_or(|quality| quality.parse::<f64>().is_ok_and(|quality| quality > 0.0))
    })
}

/// Whether a request gets the metrics, or why not.
fn decide<B>(request: &Request<B>, access: Access) -> Result<(), (StatusCode, String)> {
    match access {
        Access::Role(Role::Unspecified) => {
            let failure = Failure::new(
                "AUTH-ROLE",
                "metrics",
                "they need the role reader, you have none",
                format!("read them as root, or have an administrator add you to the group {OPERATOR_GROUP}"),
            );
            return Err((StatusCode::FORBIDDEN, format!("error {failure}\nnext: {}", failure.next_step)));
        }
        // A page in a browser of this host must not read them by a name of its own that leads here.
        Access::Loopback if !is_meant(request) => {
            let why = "ask by the address, as 127.0.0.1, or as localhost";
            return Err((StatusCode::FORBIDDEN, why.to_owned()));
        }
        _ => {}
    }
    if request.uri().path() != "/metrics" {
        return Err((StatusCode::NOT_FOUND, "there is /metrics and nothing else".to_owned()));
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "there are GET and HEAD and nothing else".to_owned()));
    }
    Ok(())
}

/// Whether the host that is asked for is this one by an address of its own. HTTP/1.0 names none.
fn is_meant<B>(request: &Request<B>) -> bool {
    request.headers().get_all(HOST).iter().all(|host| {
        let host = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
        host.is_some_and(|host| {
            let name = host.host().trim_start_matches('[').trim_end_matches(']');
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        })
    })
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    response(status, PLAIN, Bytes::from(text + "\n"))
}

fn response(status: StatusCode, kind: &'static str, text: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
