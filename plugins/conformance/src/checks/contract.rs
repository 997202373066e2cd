//! Does it shake hands as the protocol says, and is it what its plugin.toml says?

use k8sctl_proto::plugin::v1::{DescribeRequest, HandshakeRequest, HandshakeResponse};
use plugin_process::connect;
use tonic::{Code, Status};

use crate::context::Context;

/// A version that nobody speaks.
const NOBODYS: u32 = 4711;
const NONCE: [u8; 16] = *b"conformance test";

/// Versions, nonce, and the version that must be chosen.
const OFFERS: [(&[u32], &[u8], u32); 6] = [
    (&[1], &NONCE, 1),
    (&[1, NOBODYS], &NONCE, 1),
    (&[1], &[], 1),
    (&[1], &[0xff; 64], 1),
    (&[NOBODYS], &NONCE, 0),
    (&[], &NONCE, 0),
];

/// 1: versions in common and none, and nonces of all kinds, each in a process of its own.
pub(super) async fn versions(context: &Context) -> Vec<String> {
    let mut wrong = Vec::new();
    let request = |versions: &[u32], nonce: &[u8]| HandshakeRequest {
        versions: versions.to_vec(),
        host_version: "conformance".to_owned(),
        nonce: nonce.to_vec(),
        capabilities: vec!["remote".to_owned(), "no-such-capability".to_owned()],
        limits: None,
    };
    for (versions, nonce, expected) in OFFERS {
        let asked = format!("offered the versions {versions:?} and {} bytes of nonce", nonce.len());
        match greet(context, request(versions, nonce)).await {
            Ok(Ok(answer)) => {
                wrong.extend(judge(&answer, expected, nonce).map(|why| format!("{asked}: {why}")))
            }
            // A nonce that is none may be refused; whoever sends such a one is no host.
            Ok(Err(status)) if nonce.len() != NONCE.len() && status.code() == Code::InvalidArgument => {}
            Ok(Err(status)) => {
                wrong.push(format!("{asked}: it answered {:?}: {}", status.code(), status.message()));
            }
            Err(why) => wrong.push(format!("{asked}: {why}")),
        }
    }
    wrong.extend(describe_first(context).await);
    wrong
}

fn judge(answer: &HandshakeResponse, expected: u32, nonce: &[u8]) -> Option<String> {
    if answer.version != expected {
        return Some(format!("it chose version {}, expected {expected}", answer.version));
    }
    if expected == 0 {
        let supported = &answer.supported;
        return (!supported.contains(&1))
            .then(|| format!("it says that it speaks {supported:?}, expected 1 in it"));
    }
    if answer.nonce != nonce {
        return Some(format!("it echoed {} bytes that are not the nonce", answer.nonce.len()));
    }
    let unknown = answer.capabilities.iter().find(|name| *name != "remote");
    unknown.map(|name| format!("it makes use of {name:?}, which was not offered or is unknown"))
}

async fn greet(
    context: &Context,
    request: HandshakeRequest,
) -> Result<Result<HandshakeResponse, Status>, String> {
    let run = context.runner.bare(&context.subject.package, |started| async move {
        let mut client = connect(started.stream).await?;
        Ok(client.handshake(request).await.map(tonic::Response::into_inner))
    });
    run.await.map(|run| run.answer).map_err(|error| error.to_string())
}

/// The handshake has to be the first call.
async fn describe_first(context: &Context) -> Option<String> {
    let run = context.runner.bare(&context.subject.package, |started| async move {
        let mut client = connect(started.stream).await?;
        Ok(client.describe(DescribeRequest::default()).await.map(|_| ()))
    });
    match run.await {
        Ok(run) => match run.answer {
            Err(status) if status.code() == Code::FailedPrecondition => None,
            Err(status) => Some(format!(
                "asked to describe itself before the handshake, it answered {:?}, expected FailedPrecondition",
                status.code()
            )),
            Ok(()) => {
                Some("it describes itself before the handshake, expected FailedPrecondition".to_owned())
            }
        },
        Err(error) => Some(format!("asked to describe itself before the handshake: {error}")),
    }
}

/// 2: the program says the same as plugin.toml and schema.json.
pub(super) async fn manifest(context: &Context) -> Vec<String> {
    let mut wrong = context.description().err().unwrap_or_default();
    if let Err(error) = context.subject.package.verify() {
        wrong.push(error.failure(&context.subject.package.manifest.name).to_string());
    }
    wrong
}
