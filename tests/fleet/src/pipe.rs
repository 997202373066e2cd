//! TLS on loopback with nothing around it: what logs that go over TLS are measured against.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

const NAME: &str = "pipe.k8sctl.internal";
/// Written and read at once.
const CHUNK: usize = 64 * 1024;
/// Longest that one read or write may take.
const STALL: Duration = Duration::from_secs(30);

/// Moves so many bytes; gives how many a second.
pub fn bytes_a_second(bytes: u64) -> Result<f64> {
    k8sctl_rpc::provider::install();
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?.der().to_vec();
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let chain = vec![CertificateDer::from(certificate.clone())];
    let server = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate))?;
    let client = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let reader = thread::spawn(move || read(&listener, server, bytes));
    let stream = configured(TcpStream::connect(address)?)?;
    let connection = ClientConnection::new(Arc::new(client), ServerName::try_from(NAME)?)?;
    let mut stream = StreamOwned::new(connection, stream);
    // The reader's first word: the handshake is done.
    stream.read_exact(&mut [0])?;
    let began = Instant::now();
    let (chunk, mut left) = ([b'.'; CHUNK], bytes);
    while left > 0 {
        let now = left.min(CHUNK as u64) as usize;
        stream.write_all(&chunk[..now])?;
        left -= now as u64;
    }
    stream.flush()?;
    let count = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let took = began.elapsed();
    ensure!(count == bytes, "{count} of {bytes} bytes came");
    Ok(bytes as f64 / took.as_secs_f64())
}

fn read(listener: &TcpListener, config: ServerConfig, bytes: u64) -> Result<u64> {
    let stream = configured(listener.accept()?.0)?;
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config))?, stream);
    stream.write_all(&[0])?;
    stream.flush()?;
    let (mut chunk, mut count) = (vec![0; CHUNK], 0);
    while count < bytes {
        let read = stream.read(&mut chunk).context("the pipe broke")?;
        ensure!(read > 0, "the pipe ended");
        count += read as u64;
    }
    Ok(count)
}

fn configured(stream: TcpStream) -> Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_come_through() {
        assert!(bytes_a_second(3 * CHUNK as u64 + 7).expect("it works") > 0.0);
    }
}
