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
    by_path(concat!(env!("PROBE_FOLDER"), "/world-writable"));
    report("socket-pair", UnixStream::pair());
    report("thread", std::thread::Builder::new().spawn(|| ()));
    let mut names: Vec<_> = std::env::vars().map(|(name, _)| name).collect();
    names.sort();
    eprintln!("environment: {}", names.join(" "));
    eprintln!("arguments: {}", std::env::args().collect::<Vec<_>>().join(" "));
}

/// What changes a file without opening it, by the kernel's own numbers: the C library has newer calls for some of them.
#[allow(dead_code)]
fn by_path(file: &str) {
    use std::ffi::{CString, c_long};
    unsafe extern "C" {
        fn syscall(number: c_long, ...) -> c_long;
    }
    const HERE: c_long = -100;
    let file = CString::new(file).expect("a path");
    let (file, attribute, now) = (file.as_ptr(), c"user.probe".as_ptr(), std::ptr::null::<u8>());
    let tell = |what: &str, result: c_long| {
        report(what, if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) });
    };
    unsafe {
        tell("truncate", syscall(76, file, 0 as c_long));
        tell("utime", syscall(132, file, now));
        tell("utimes", syscall(235, file, now));
        tell("futimesat", syscall(261, HERE, file, now));
        tell("removexattr", syscall(197, file, attribute));
        tell("lremovexattr", syscall(198, file, attribute));
        tell("fchmodat2", syscall(452, HERE, file, 0o600 as c_long, 0 as c_long));
        tell("setxattrat", syscall(463, HERE, file, 0 as c_long, attribute, now, 0 as c_long));
        tell("removexattrat", syscall(466, HERE, file, 0 as c_long, attribute));
        tell("file_setattr", syscall(469, HERE, file, now, 0 as c_long, 0 as c_long));
    }
}

fn main() {
    behave();
    let _ = std::io::stderr().flush();
}
