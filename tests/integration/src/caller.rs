//! `integration-caller SOCKET UID GID [PATH…]`: becomes that user, calls every control method once with an empty
//! request, then the other paths, and prints a line of each: path, gRPC code, id of the failure.
//!
//! `integration-caller SOCKET UID GID --http`: becomes that user, asks for the metrics, and prints the answer.
//!
//! Started by the tests of the control socket and of the metrics, because a process has one user: the kernel's word on
//! it is what is tested. Which methods there are it takes from the table that the build makes of the `.proto` files.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8sctl_proto::roles::CONTROL_METHODS;
use k8sctl_rpc::status::failure_from;
use k8sctl_rpc::unix::connect_unix;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// How long the first answer on a stream is waited for. A stream that has begun was allowed.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, uid, gid, others @ ..] = arguments.as_slice() else {
        bail!("usage: integration-caller SOCKET UID GID [--http | PATH…]");
    };
    // No groups but the one: others are the host agent's to look up.
    setgroups(&[]).context("cannot drop the groups (is this root?)")?;
    setgid(Gid::from_raw(gid.parse()?)).context("cannot change the group")?;
    setuid(Uid::from_raw(uid.parse()?)).context("cannot change the user")?;
    if others.first().is_some_and(|first| first == "--http") {
        return ask_metrics(Path::new(socket));
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(call_all(Path::new(socket), others))
}

fn ask_metrics(socket: &Path) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: host-agent\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    print!("{answer}");
    Ok(())
}

async fn call_all(socket: &Path, others: &[String]) -> anyhow::Result<()> {
    let channel = connect_unix(socket).await?;
    let methods = CONTROL_METHODS.iter().map(|(path, _)| *path);
    for path in methods.chain(others.iter().map(String::as_str)) {
        match call(channel.clone(), path.parse()?).await {
            Ok(()) => println!("{path} Ok -"),
            Err(status) => {
                let id = failure_from(&status).map_or("-".to_owned(), |failure| failure.id);
                println!("{path} {:?} {id}", status.code());
            }
        }
    }
    Ok(())
}

/// Messages are taken for empty ones whatever they are.
async fn call(channel: Channel, path: PathAndQuery) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<(), ()>::default();
    // On the wire a single answer is a stream of one.
    let mut answers = grpc.server_streaming(Request::new(()), path, codec).await?.into_inner();
    match tokio::time::timeout(FIRST_ANSWER, answers.message()).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Ok(()),
    }
}
