//! Asks a container runtime whether it answers, over its CRI socket: the one call of the CRI that the agent needs.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tower::service_fn;

/// Longest that the call may take.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, prost::Message)]
struct VersionRequest {
    #[prost(string, tag = "1")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct VersionResponse {
    #[prost(string, tag = "2")]
    runtime_name: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
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
}

/// Name and version of the runtime, `containerd 1.6.20`.
pub async fn version(socket: &Path) -> Result<String, CriError> {
    let socket = socket.to_owned();
    let connector = service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://cri.invalid")
        .connect_timeout(DEADLINE)
        .timeout(DEADLINE)
        .connect_with_connector(connector)
        .await
        .map_err(CriError::Connect)?;
    let mut grpc = Grpc::new(channel);
    let refused = |status| CriError::Call(Box::new(status));
    grpc.ready().await.map_err(CriError::Connect)?;
    let path = http::uri::PathAndQuery::from_static("/runtime.v1.RuntimeService/Version");
    let codec: tonic_prost::ProstCodec<VersionRequest, VersionResponse> = tonic_prost::ProstCodec::default();
    let answer =
        grpc.unary(tonic::Request::new(VersionRequest::default()), path, codec).await.map_err(refused)?;
    let answer = answer.into_inner();
    Ok(format!("{} {}", answer.runtime_name, answer.runtime_version))
}
