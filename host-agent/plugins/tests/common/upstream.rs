//! Upstream's manifests, read where they lie (`K8S_MYHOME_UPSTREAM`, else beside the repository), and an https server on
//! loopback that serves them as upstream would, or worse.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream;
use http::Response;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::https::{Body, Identity};

/// The folder of upstream's files. `None`: there is none here, which is said, and with `CI=true` is a failure.
pub fn folder() -> Option<PathBuf> {
    let given = std::env::var_os("K8S_MYHOME_UPSTREAM").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| super::workspace().join("../shared/upstream"));
    if folder.is_dir() {
        return Some(folder);
    }
    let why = format!("no upstream manifests in {}", folder.display());
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "{why}");
    eprintln!("not tested: {why}");
    None
}

/// How a path is served.
#[derive(Clone, Debug)]
pub enum Serving {
    Whole(Vec<u8>),
    /// Announced whole, and broken off after so many bytes.
    Cut(Vec<u8>, usize),
    /// Without a length, and without an end.
    Endless,
    /// The first bytes, and then nothing.
    Stalled(Vec<u8>),
    /// Elsewhere.
    Redirect(String),
    Status(u16),
}

/// An https server with an authority of its own.
pub struct Upstream {
    /// `https://localhost:1234`
    pub base: String,
    /// Its authority, DER.
    pub root: Vec<u8>,
    paths: Arc<Mutex<Paths>>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Paths {
    served: HashMap<String, Serving>,
    asked: Vec<String>,
}

impl Upstream {
    pub async fn start() -> Self {
        let identity = Identity::of("localhost");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("https://localhost:{}", listener.local_addr().expect("it is bound").port());
        let paths = Arc::<Mutex<Paths>>::default();
        let served = paths.clone();
        let task = identity.serve(listener, move |request| {
            let response = answer(&served, request.uri().path());
            Box::pin(async move { response })
        });
        Self { base, root: identity.root, paths, _task: task }
    }

    /// Serves a path from now on; gives its URL.
    pub fn serve(&self, path: &str, serving: Serving) -> String {
        locked(&self.paths).served.insert(path.to_owned(), serving);
        format!("{}{path}", self.base)
    }

    /// Paths that were asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        locked(&self.paths).asked.clone()
    }
}

fn locked(paths: &Mutex<Paths>) -> MutexGuard<'_, Paths> {
    paths.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(paths: &Mutex<Paths>, path: &str) -> Response<Body> {
    let serving = {
        let mut paths = locked(paths);
        paths.asked.push(path.to_owned());
        paths.served.get(path).cloned().unwrap_or(Serving::Status(404))
    };
    let response = Response::builder();
    let response = match serving {
        Serving::Whole(bytes) => response.body(whole(bytes)),
        Serving::Cut(bytes, after) => {
            let broken = Err(std::io::Error::other("broken off by the test"));
            let body = stream::iter([data(bytes[..after].to_vec()), broken]);
            response.header("content-length", bytes.len()).body(BodyExt::boxed(StreamBody::new(body)))
        }
        Serving::Endless => {
            let body = stream::repeat_with(|| data(vec![b'#'; 1 << 16]));
            response.body(BodyExt::boxed(StreamBody::new(body)))
        }
        Serving::Stalled(bytes) => {
            let body = stream::iter([data(bytes)]).chain(stream::pending());
            response.body(BodyExt::boxed(StreamBody::new(body)))
        }
        Serving::Redirect(to) => response.status(302).header("location", to).body(whole(Vec::new())),
        Serving::Status(code) => response.status(code).body(whole(Vec::new())),
    };
    response.expect("a response")
}

fn whole(bytes: Vec<u8>) -> Body {
    BodyExt::boxed(Full::new(Bytes::from(bytes)).map_err(|never| match never {}))
}

fn data(bytes: Vec<u8>) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::from(bytes)))
}
