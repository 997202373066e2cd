//! A hostile plugin: tries what a plugin must not be able to do, says on standard error how each try ended, and
//! then misbehaves as its first line of source says. Compiled by `tests/sandbox.rs` with rustc alone, statically,
//! so that it runs in the sandbox that real plugins get.

use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

include!(concat!(env!("PROBE_BEHAVIOUR"), ".rs"));

fn report<T>(what: &str, result: std::io::Result<T>) {
    match result {
        Ok(_) => eprintln!("{what}: allowed"),
        Err(error) => eprintln!("{what}: {:?}", error.kind()),
    }
}

#[allow(dead_code)]
fn probes() {
    report("read-file", std::fs::File::open("/etc/passwd"));
    report("read-agent", std::fs::File::open("/proc/1/environ"));
    report("list-folder", std::fs::read_dir("/"));
    report("create-file", std::fs::File::create("/tmp/k8sctl-probe"));
    report("tcp-connect", TcpStream::connect("127.0.0.1:1"));
    report("tcp-listen", TcpListener::bind("127.0.0.1:0"));
    report("udp", UdpSocket::bind("127.0.0.1:0"));
    report("unix-connect", UnixStream::connect("/run/k8sctl-probe.sock"));
    report("unix-listen", UnixListener::bind("/tmp/k8sctl-probe.sock"));
    report("run-program", Command::new("/bin/true").status());
    report("chmod", std::fs::set_permissions("/tmp", std::os::unix::fs::PermissionsExt::from_mode(0o700)));
    report("socket-pair", UnixStream::pair());
    report("thread", std::thread::Builder::new().spawn(|| ()));
    let mut names: Vec<_> = std::env::vars().map(|(name, _)| name).collect();
    names.sort();
    eprintln!("environment: {}", names.join(" "));
    eprintln!("arguments: {}", std::env::args().collect::<Vec<_>>().join(" "));
}

fn main() {
    behave();
    let _ = std::io::stderr().flush();
}
