//! Faults between the engine and the API server, as a layer of the client: the n-th request gets this answer, or none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use kube::client::{Body, DynBody};
use serde_json::json;
use tokio::sync::Semaphore;
use tower::{BoxError, Layer, Service};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server answers this, and does nothing.
    Answer(u16, &'static str),
    /// 429, and come back in so many seconds.
    Busy(u32),
    /// The connection breaks before the request.
    Reset,
    /// The server does it, and the answer is lost.
    Lost,
    /// No answer, ever.
    Hang,
    /// The server does it, later.
    Slow(Duration),
    /// The server does it when the test lets it go.
    Held,
}

/// All that may pass by itself.
pub const STORM: [Fault; 6] = [
    Fault::Answer(500, "InternalError"),
    Fault::Answer(503, "ServiceUnavailable"),
    Fault::Answer(409, "Conflict"),
    Fault::Busy(1),
    Fault::Reset,
    Fault::Lost,
];

type Script = dyn Fn(usize, &http::Request<Body>) -> Option<Fault> + Send + Sync;

/// A script of faults, which all clients that have it share.
#[derive(Clone)]
pub struct Faults {
    script: Arc<Mutex<Arc<Script>>>,
    asked: Arc<AtomicUsize>,
    held: Arc<Semaphore>,
    free: Arc<Semaphore>,
}

impl Faults {
    /// No fault at all.
    pub fn none() -> Self {
        let script: Arc<Script> = Arc::new(|_, _| None);
        let none = || Arc::new(Semaphore::new(0));
        Self { script: Arc::new(Mutex::new(script)), asked: Arc::default(), held: none(), free: none() }
    }

    /// Until a request is held.
    pub async fn held(&self) {
        self.held.acquire().await.expect("nobody closes it").forget();
    }

    /// Lets one that is held go.
    pub fn let_go(&self) {
        self.free.add_permits(1);
    }

    /// From now on: by the number of the request, from 0 on, and the request itself.
    pub fn follow(
        &self,
        script: impl Fn(usize, &http::Request<Body>) -> Option<Fault> + Send + Sync + 'static,
    ) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
        self.asked.store(0, Ordering::SeqCst);
    }

    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn next(&self, request: &http::Request<Body>) -> Option<Fault> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let script = self.script.lock().unwrap_or_else(PoisonError::into_inner).clone();
        script(number, request)
    }
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty { inner, faults: self.clone() }
    }
}

/// A service with faults before it.
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

type Answer = http::Response<Box<DynBody>>;

impl<S> Service<http::Request<Body>> for Faulty<S>
where
    S: Service<http::Request<Body>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.faults.next(&request) {
            None => Box::pin(self.inner.call(request)),
            Some(Fault::Answer(code, reason)) => answer(code, reason, 0),
            Some(Fault::Busy(seconds)) => answer(429, "TooManyRequests", seconds),
            Some(Fault::Reset) => Box::pin(async { Err(BoxError::from("connection reset by the test")) }),
            Some(Fault::Lost) => {
                let asked = self.inner.call(request);
                Box::pin(async move {
                    asked.await?;
                    Err(BoxError::from("the answer was lost by the test"))
                })
            }
            Some(Fault::Hang) => Box::pin(std::future::pending()),
            Some(Fault::Held) => {
                let asked = self.inner.call(request);
                let (held, free) = (self.faults.held.clone(), self.faults.free.clone());
                Box::pin(async move {
                    held.add_permits(1);
                    free.acquire().await?.forget();
                    asked.await
                })
            }
            Some(Fault::Slow(delay)) => {
                let asked = self.inner.call(request);
                Box::pin(async move {
                    tokio::time::sleep(delay).await;
                    asked.await
                })
            }
        }
    }
}

fn answer(code: u16, reason: &'static str, seconds: u32) -> BoxFuture<'static, Result<Answer, BoxError>> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": format!("{reason} by the test"), "details": {"retryAfterSeconds": seconds},
    });
    let body = Full::new(Bytes::from(status.to_string())).map_err(BoxError::from);
    let body: Box<DynBody> = Box::new(body);
    Box::pin(async move { Ok(http::Response::builder().status(code).body(body)?) })
}
