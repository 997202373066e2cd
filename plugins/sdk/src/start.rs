//! How a plugin's program starts and ends. Called by its `main`; the service in between is `serve.rs`.

use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use k8sctl_proto::plugin::v1::plugin_service_server::PluginServiceServer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tonic::transport::server::Connected;

use crate::plugin::Plugin;
use crate::raw::{RawPlugin, Typed};
use crate::serve::{REQUEST_BYTES, Service};

/// `EX_USAGE`: started by hand.
const EXIT_USAGE: u8 = 64;
/// As of a program that ends by a panic.
const EXIT_PANIC: u8 = 101;

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The other side hung up.
    HungUp,
    /// So it did, and the plugin's code had panicked before.
    Panicked,
}

/// Runs a plugin: serves the host agent on fd 3 and ends when it hangs up. Started any other way, says so and
/// ends with 64.
pub fn main<P: Plugin>(plugin: P) -> ExitCode {
    main_raw(Typed::new(plugin))
}

/// The same for a plugin whose schema is data.
pub fn main_raw(plugin: impl RawPlugin) -> ExitCode {
    let Some(stream) = crate::inherited::take() else {
        let name = plugin.name();
        eprintln!("{name} is a plugin of k8sctl and is started by its host agent: k8sctl plugin add {name}");
        return ExitCode::from(EXIT_USAGE);
    };
    let run = || -> Result<Ending, Box<dyn std::error::Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Ok(serve_raw(plugin, UnixStream::from_std(stream)?).await?) })
    };
    match run() {
        Ok(Ending::HungUp) => ExitCode::SUCCESS,
        Ok(Ending::Panicked) => ExitCode::from(EXIT_PANIC),
        Err(error) => {
            eprintln!("cannot serve the host agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves one connection until the other side closes it.
pub async fn serve<P: Plugin>(plugin: P, stream: UnixStream) -> Result<Ending, tonic::transport::Error> {
    serve_raw(Typed::new(plugin), stream).await
}

/// The same for a plugin whose schema is data.
pub async fn serve_raw(
    plugin: impl RawPlugin,
    stream: UnixStream,
) -> Result<Ending, tonic::transport::Error> {
    let (open, closed) = oneshot::channel();
    let connection = Connection { stream, _open: open };
    // Without the pending tail the server would end, and drop the connection, as soon as it has accepted it.
    let incoming = tokio_stream::once(Ok::<_, io::Error>(connection)).chain(tokio_stream::pending());
    let panicked = Arc::new(AtomicBool::new(false));
    let service = PluginServiceServer::new(Service::new(plugin, Arc::clone(&panicked)))
        .max_decoding_message_size(REQUEST_BYTES);
    let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
    // Both arms end the process; a dropped server loses nothing that anybody could still read.
    tokio::select! {
        result = server => result?,
        _ = closed => {}
    }
    Ok(if panicked.load(Ordering::Acquire) { Ending::Panicked } else { Ending::HungUp })
}

/// The socket; dropping it, which the server does when the other side is gone, is heard by [`serve_raw`].
struct Connection {
    stream: UnixStream,
    _open: oneshot::Sender<()>,
}

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
