//! The dashboard in a browser of this host: a page of this process, on the loopback, for whoever has its URL.
//!
//! - `door`: who is let in, to what
//! - `serve`: connections, their limits, and answers
//! - `live`: the picture and the lines as they change
//!
//! It only shows: there is no request that changes anything, here or at the host agent.

mod door;
mod live;
mod serve;

use std::io;
use std::sync::Arc;

use k8sctl_types::failure::Failure;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::model::Model;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, styles, visible};
use door::Door;
use serve::Site;

/// Nobody but this host.
const ADDRESS: &str = "127.0.0.1";

/// `dashboard --web -o json`.
#[derive(Debug, Serialize)]
struct Document {
    /// Name of the cluster.
    cluster_name: String,
    /// Where it is to be seen, with the secret.
    url: String,
    /// The port in it.
    port: u16,
}

/// Runs until Ctrl-C; `sources` feed the model.
pub async fn run(
    context: &Context,
    cluster: &str,
    port: Option<u16>,
    models: watch::Receiver<Model>,
    sources: impl Future<Output = ()>,
) -> Result<Exit, Ended> {
    let mut terminate = signal(SignalKind::terminate())?;
    // That its terminal goes away ends it as it is, unless `nohup` says otherwise.
    let (listener, port) = listen(port.unwrap_or(0)).await?;
    let token = token()?;
    let url = format!("http://{ADDRESS}:{port}/{token}/");
    tell(context, Document { cluster_name: cluster.to_owned(), url, port })?;
    let site = Arc::new(Site::new(Door::new(port, token), models));
    // All are cancel-safe, and whichever ends first ends it all.
    tokio::select! {
        () = serve::serve(listener, site) => Ok(Exit::Ok),
        () = sources => Ok(Exit::Ok),
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        _ = terminate.recv() => Ok(Exit::Interrupted),
    }
}

fn tell(context: &Context, document: Document) -> io::Result<()> {
    if context.format.is_structured() {
        return output::document(context, &document);
    }
    let out = &context.out;
    let url = out.paint(styles::NAME, &document.url);
    out.line(format!("dashboard of cluster {}: {url}", visible(&document.cluster_name)))?;
    out.line("it only shows, and only to who has that URL, on this host; Ctrl-C ends it")
}

async fn listen(port: u16) -> Result<(TcpListener, u16), Ended> {
    let failure = |error: io::Error| {
        let object = if port == 0 { ADDRESS.to_owned() } else { format!("{ADDRESS}:{port}") };
        let next = "name a port that is free and above 1023 with --port, or leave it out for any";
        Failure::new("HOST-PORT", object, format!("cannot listen there: {error}"), next)
    };
    let listener = TcpListener::bind((ADDRESS, port)).await.map_err(failure)?;
    let port = listener.local_addr().map_err(failure)?.port();
    Ok((listener, port))
}

/// 256 bits that nobody guesses.
fn token() -> Result<String, Ended> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| {
        let next = "try again; if it stays so, this system has no source of random numbers";
        Failure::new("HOST-RUNTIME", "k8sctl", "the system gives no random numbers", next)
    })?;
    Ok(hex::encode(bytes))
}
