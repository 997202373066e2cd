//! The few calls of a container runtime that the agent needs, over its CRI socket: whether it answers, which images and
//! containers there are, and removing an image.
//!
//! One connection per [`Cri`]; used by step `containerd`, health and repair.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Longest that a call may take.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct VersionResponse {
    #[prost(string, tag = "2")]
    runtime_name: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageList {
    #[prost(message, repeated, tag = "1")]
    images: Vec<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerList {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RemoveImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

/// An image that the runtime has.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Image {
    /// `sha256:…`
    #[prost(string, tag = "1")]
    pub id: String,
    /// `registry.k8s.io/pause:3.10`
    #[prost(string, repeated, tag = "2")]
    pub repo_tags: Vec<String>,
    /// `registry.k8s.io/pause@sha256:…`
    #[prost(string, repeated, tag = "3")]
    pub repo_digests: Vec<String>,
    /// In bytes.
    #[prost(uint64, tag = "4")]
    pub size: u64,
    /// Never to be removed.
    #[prost(bool, tag = "8")]
    pub pinned: bool,
}

impl Image {
    /// All that it may be called.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let all = std::iter::once(&self.id).chain(&self.repo_tags).chain(&self.repo_digests);
        all.map(String::as_str).filter(|name| !name.is_empty())
    }
}

/// A container, whatever its state.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    /// As the runtime calls it.
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "4")]
    image: Option<ImageSpec>,
    #[prost(string, tag = "5")]
    image_ref: String,
    /// Of the CRI's `ContainerState`.
    #[prost(int32, tag = "6")]
    state: i32,
    /// In nanoseconds, by the clock of then.
    #[prost(int64, tag = "7")]
    pub created_at: i64,
    /// The kubelet's, which say whose it is.
    #[prost(map = "string, string", tag = "8")]
    labels: HashMap<String, String>,
}

/// `CONTAINER_EXITED`
const EXITED: i32 = 2;

impl Container {
    /// What it calls its image: as it was asked for, and as it was found.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        let asked = self.image.as_ref().map(|image| image.image.as_str());
        asked.into_iter().chain([self.image_ref.as_str()]).filter(|name| !name.is_empty())
    }

    /// It has ended.
    pub fn has_ended(&self) -> bool {
        self.state == EXITED
    }

    /// It is this one of a pod in this namespace.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        // k8s.io/kubernetes/pkg/kubelet/types/labels.go
        let has = |label: &str, value: &str| self.labels.get(label).is_some_and(|it| it == value);
        has("io.kubernetes.pod.namespace", namespace) && has("io.kubernetes.container.name", name)
    }

    /// A container of this image, for tests.
    #[cfg(test)]
    pub fn example(image: &str, image_ref: &str) -> Self {
        let image = Some(ImageSpec { image: image.to_owned() });
        Self { image, image_ref: image_ref.to_owned(), ..Self::default() }
    }

    /// A static pod's container, for tests.
    #[cfg(test)]
    pub fn of_pod(id: &str, namespace: &str, name: &str, created_at: i64, has_ended: bool) -> Self {
        let labels = [("io.kubernetes.pod.namespace", namespace), ("io.kubernetes.container.name", name)];
        let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
        let state = if has_ended { EXITED } else { 1 };
        Self { id: id.to_owned(), created_at, state, labels, ..Self::default() }
    }
}

/// The runtime does not answer.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// Nobody listens.
    #[error("cannot connect to the CRI socket")]
    Connect(#[source] tonic::transport::Error),
    /// It refused.
    #[error("the CRI socket answered {:?}: {}", .0.code(), .0.message())]
    Call(Box<tonic::Status>),
    /// It is silent.
    #[error("no answer from the CRI socket within {deadline:?}")]
    Slow {
        /// How long it was waited for.
        deadline: Duration,
    },
}

/// Name and version of the runtime, `containerd 1.6.20`.
pub async fn version(socket: &Path) -> Result<String, CriError> {
    version_within(socket, DEADLINE).await
}

/// The same with another deadline.
pub async fn version_within(socket: &Path, deadline: Duration) -> Result<String, CriError> {
    let asked = async { Cri::connect(socket, deadline).await?.version().await };
    timeout(deadline, asked).await.map_err(|_| CriError::Slow { deadline })?
}

/// A connection to the runtime.
#[derive(Debug)]
pub struct Cri {
    grpc: Grpc<Channel>,
    deadline: Duration,
}

impl Cri {
    /// Connects; each call may take so long.
    pub async fn connect(socket: &Path, deadline: Duration) -> Result<Self, CriError> {
        let socket = socket.to_owned();
        let connector = service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://cri.invalid");
        let connecting = endpoint.connect_with_connector(connector);
        let channel = timeout(deadline, connecting).await.map_err(|_| CriError::Slow { deadline })?;
        Ok(Self { grpc: Grpc::new(channel.map_err(CriError::Connect)?), deadline })
    }

    /// Name and version of the runtime, `containerd 1.6.20`.
    pub async fn version(&mut self) -> Result<String, CriError> {
        let answer: VersionResponse = self.call("/runtime.v1.RuntimeService/Version", Empty {}).await?;
        Ok(format!("{} {}", answer.runtime_name, answer.runtime_version))
    }

    /// All images.
    pub async fn images(&mut self) -> Result<Vec<Image>, CriError> {
        let list: ImageList = self.call("/runtime.v1.ImageService/ListImages", Empty {}).await?;
        Ok(list.images)
    }

    /// All containers.
    pub async fn containers(&mut self) -> Result<Vec<Container>, CriError> {
        let list: ContainerList = self.call("/runtime.v1.RuntimeService/ListContainers", Empty {}).await?;
        Ok(list.containers)
    }

    /// Removes an image; one that is not there is no error.
    pub async fn remove_image(&mut self, id: &str) -> Result<(), CriError> {
        let request = RemoveImageRequest { image: Some(ImageSpec { image: id.to_owned() }) };
        let _: Empty = self.call("/runtime.v1.ImageService/RemoveImage", request).await?;
        Ok(())
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, CriError>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let deadline = self.deadline;
        let codec: tonic_prost::ProstCodec<Q, A> = tonic_prost::ProstCodec::default();
        let work = async {
            self.grpc.ready().await.map_err(CriError::Connect)?;
            let request = tonic::Request::new(request);
            let answer = self.grpc.unary(request, PathAndQuery::from_static(path), codec).await;
            answer.map(tonic::Response::into_inner).map_err(|status| CriError::Call(Box::new(status)))
        };
        timeout(deadline, work).await.map_err(|_| CriError::Slow { deadline })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_silent_and_none_is_away() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = dir.path().join("cri.sock");
        let error = version(&socket).await.expect_err("no socket");
        assert!(matches!(error, CriError::Connect(_)), "{error:?}");
        // A stopped process: connections are taken by the kernel, nobody reads them.
        let _listener = tokio::net::UnixListener::bind(&socket).expect("bound");
        let error = version_within(&socket, Duration::from_millis(50)).await.expect_err("silence");
        assert!(matches!(error, CriError::Slow { .. }), "{error:?}");
    }
}
