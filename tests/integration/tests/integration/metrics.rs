//! The metrics of a running host agent: on their socket to whoever may look, on a port where one is configured.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::control_roles::{CALLER, GROUP, PASSWD};
use super::host::{Host, Setup, wait_for};
use super::root::is_root;

/// Who asks, as a test of the control socket has them: uid, gid, whether they may look.
const ASKERS: [(u32, u32, bool); 6] = [
    (61999, 61999, false),
    (61001, 61001, false),
    (61002, 61001, true),
    (61003, 61001, true),
    (61004, 61001, true),
    (0, 0, true),
];

#[test]
fn who_has_a_role_reads_them_and_nobody_else() -> Result<()> {
    if !is_root("metrics::who_has_a_role_reads_them_and_nobody_else")? {
        return Ok(());
    }
    let host = Host::start(&Setup { config: "reader_group = \"lookers\"\n", users: Some((PASSWD, GROUP)) })?;
    for (uid, gid, may) in ASKERS {
        let output = Command::new(CALLER)
            .arg(host.file("run/metrics.sock"))
            .args([uid.to_string(), gid.to_string(), "--http".to_owned()])
            .output()
            .context("cannot start the caller")?;
        let answer = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{uid}: {}", String::from_utf8_lossy(&output.stderr));
        let (code, has) = if may {
            ("HTTP/1.1 200 ", "\nk8s_myhome_clusters 0.0\n")
        } else {
            ("HTTP/1.1 403 ", "error AUTH-ROLE: ")
        };
        ensure!(answer.starts_with(code) && answer.contains(has), "{uid}: {answer}");
        ensure!(may == answer.contains("process_resident_memory_bytes"), "{uid}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_port_serves_them_where_one_is_configured() -> Result<()> {
    let host = Host::start(&Setup { config: "metrics_listen = \"127.0.0.1:0\"\n", ..Setup::default() })?;
    // Which port the kernel has given is in the log.
    let address = wait_for("the port of the metrics", || async {
        let log = std::fs::read_to_string(host.file("host-agent.log"))?;
        let line = log.lines().find(|line| line.contains("serving metrics"));
        let word = line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next());
        Ok(word.and_then(|word| word.parse::<SocketAddr>().ok()))
    })
    .await?;
    let mut stream = TcpStream::connect(address)?;
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1";
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n{accept}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("# EOF\n"), "{answer}");
    Ok(())
}
