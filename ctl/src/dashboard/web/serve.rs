//! Connections, their limits, and answers. Each connection is for one request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8sctl_rpc::limits::ACCEPT_PAUSE;
use k8sctl_rpc::patient::Patient;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

use super::door::{Door, Wanted};
use super::live;
use crate::dashboard::model::Model;

#[cfg(test)]
mod tests;

/// Connections at a time, most of which anybody on the host may open and say nothing; whoever comes then is hung up on.
const CONNECTIONS: usize = 256;
/// Pages that are kept up to date; the rest of the connections are for what is read once. A browser has six connections to
/// one server at most: a page that is refused is one that it can show.
const WATCHERS: usize = 5;
/// How long a request may take to be sent.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest head of a request.
const HEAD_BYTES: usize = 16 * 1024;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Nothing but ours is loaded, run or sent to, nobody frames it, and no text becomes code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What is served.
pub struct Site {
    door: Door,
    models: watch::Receiver<Model>,
    watchers: Arc<Semaphore>,
}

impl Site {
    /// The model behind this door.
    pub fn new(door: Door, models: watch::Receiver<Model>) -> Self {
        Self { door, models, watchers: Arc::new(Semaphore::new(WATCHERS)) }
    }

    /// The answer to a request.
    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        match self.door.admit(request) {
            Ok(Wanted::Page) => text(StatusCode::OK, "text/html; charset=utf-8", PAGE),
            Ok(Wanted::Style) => text(StatusCode::OK, "text/css; charset=utf-8", STYLE),
            Ok(Wanted::Script) => text(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
            Ok(Wanted::Live { after }) => match Arc::clone(&self.watchers).try_acquire_owned() {
                Ok(place) => {
                    let messages = live::messages(self.models.clone(), after, place);
                    respond(StatusCode::OK, "text/event-stream", StreamBody::new(messages).boxed_unsync())
                }
                Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "too many pages look at it"),
            },
            Ok(Wanted::Slash) => {
                let mut response = plain(StatusCode::PERMANENT_REDIRECT, "");
                let there = HeaderValue::try_from(format!("{}/", request.uri().path()));
                // It is the token.
                response.headers_mut().extend(there.ok().map(|there| (LOCATION, there)));
                response
            }
            Err((status, why)) => plain(status, why),
        }
    }
}

fn plain(status: StatusCode, why: &'static str) -> Response<Body> {
    text(status, "text/plain; charset=utf-8", why)
}

fn text(status: StatusCode, kind: &'static str, text: &'static str) -> Response<Body> {
    respond(status, kind, Full::<Bytes>::from(text).boxed_unsync())
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        // The URL is a secret.
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

/// Accepts until it is dropped.
pub async fn serve(listener: TcpListener, site: Arc<Site>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Without free file descriptors the next try would fail as well, and at once.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let site = Arc::clone(&site);
        k8sctl_rpc::task::spawn("dashboard connection", async move {
            let answer = move |request: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(site.answer(&request)))
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(Patient::new(stream)), service_fn(answer));
            // A browser that goes away is no news.
            let _ = connection.await;
            drop(place);
        });
    }
}
