//! A hostile plugin: tries what a plugin must not be able to do, says on standard error how each try ended, and
//! then misbehaves as its first line of source says. Compiled by `tests/sandbox.rs` with rustc alone, statically,
//! so that it runs in the sandbox that real plugins get.

use std::ffi::{CString, c_long};
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

include!(concat!(env!("PROBE_BEHAVIOUR"), ".rs"));

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// A system call by its number: the C library has newer ones for some, and its own ideas of others.
#[allow(dead_code)]
fn call(number: c_long, arguments: [c_long; 5]) -> std::io::Result<c_long> {
    let [a, b, c, d, e] = arguments;
    match unsafe { syscall(number, a, b, c, d, e) } {
        -1 => Err(std::io::Error::last_os_error()),
        result => Ok(result),
    }
}

#[allow(dead_code)]
fn at<T>(value: &T) -> c_long {
    std::ptr::from_ref(value) as c_long
}

fn report<T>(what: &str, result: std::io::Result<T>) {
    match result {
        Ok(_) => eprintln!("{what}: allowed"),
        Err(error) => eprintln!("{what}: {:?}", error.kind()),
    }
}

#[allow(dead_code)]
fn probes() {
    files();
    by_path(concat!(env!("PROBE_FOLDER"), "/world-writable"));
    sockets();
    programs();
    kernel();
    others();
    report("socket-pair", UnixStream::pair());
    report("thread", std::thread::Builder::new().spawn(|| ()));
    let open: Vec<_> =
        (0..1024).filter(|fd| call(72, [*fd, 1, 0, 0, 0]).is_ok()).map(|fd| fd.to_string()).collect();
    eprintln!("descriptors: {}", open.join(" "));
    let mut names: Vec<_> = std::env::vars().map(|(name, _)| name).collect();
    names.sort();
    eprintln!("environment: {}", names.join(" "));
    eprintln!("arguments: {}", std::env::args().collect::<Vec<_>>().join(" "));
}

fn files() {
    report("read-file", std::fs::File::open("/etc/passwd"));
    report("read-agent", std::fs::File::open("/proc/1/environ"));
    report("read-parent", std::fs::File::open(format!("/proc/{}/maps", std::os::unix::process::parent_id())));
    report("list-folder", std::fs::read_dir("/"));
    report("create-file", std::fs::File::create("/tmp/k8sctl-probe"));
    report("chmod", std::fs::set_permissions("/tmp", std::os::unix::fs::PermissionsExt::from_mode(0o700)));
}

fn sockets() {
    report("tcp-connect", TcpStream::connect("127.0.0.1:1"));
    report("tcp-listen", TcpListener::bind("127.0.0.1:0"));
    report("udp", UdpSocket::bind("127.0.0.1:0"));
    report("unix-connect", UnixStream::connect("/run/k8sctl-probe.sock"));
    report("unix-listen", UnixListener::bind("/tmp/k8sctl-probe.sock"));
    for (what, family, kind) in [("netlink", 16, 3), ("packet", 17, 3), ("vsock", 40, 1)] {
        report(what, call(41, [family, kind, 0, 0, 0]));
    }
    let pair = [0_i32; 2];
    for (what, family, kind) in
        [("datagram-pair", 1, 2), ("seqpacket-pair", 1, 5), ("raw-pair", 1, 3), ("tipc-pair", 30, 1)]
    {
        report(what, call(53, [family, kind, 0, at(&pair), 0]));
    }
}

fn programs() {
    report("run-program", Command::new("/bin/true").status());
    let (empty, nothing) = (c"".as_ptr() as c_long, [0 as c_long]);
    report("exec-descriptor", call(322, [0, empty, at(&nothing), at(&nothing), 0x1000]));
    report("memory-file", call(319, [c"probe".as_ptr() as c_long, 0, 0, 0, 0]));
    // Where it may after all, there is one more of it, which goes.
    for (what, number, flags) in [("fork", 57, 0), ("clone-process", 56, 17)] {
        let forked = call(number, [flags, 0, 0, 0, 0]);
        if matches!(forked, Ok(0)) {
            std::process::exit(0);
        }
        report(what, forked);
    }
    report("clone3", call(435, [0, 0, 0, 0, 0]));
}

fn kernel() {
    let room = [0 as c_long; 64];
    report("io-uring", call(425, [1, at(&room), 0, 0, 0]));
    report("keyctl", call(250, [0, -3, 0, 0, 0]));
    report("add-key", call(248, [c"user".as_ptr() as c_long, c"probe".as_ptr() as c_long, at(&room), 1, -3]));
    report("user-namespace", call(272, [0x1000_0000, 0, 0, 0, 0]));
    report("perf-event", call(298, [at(&room), 0, -1, -1, 0]));
    report("userfaultfd", call(323, [0, 0, 0, 0, 0]));
    report("set-clock", call(227, [0, at(&room), 0, 0, 0]));
    // What stays when its process has gone.
    report("shared-segment", call(29, [0, 4096, 0o1600, 0, 0]));
    report("semaphores", call(64, [0, 1, 0o1600, 0, 0]));
    report("message-queue", call(68, [0, 0o1600, 0, 0, 0]));
    report("named-queue", call(240, [c"k8sctl-probe".as_ptr() as c_long, 0o102, 0o600, 0, 0]));
    report("watch-files", call(294, [0; 5]));
    report("kernel-log", call(103, [3, at(&room), 64, 0, 0]));
}

fn others() {
    let (parent, room) = (c_long::from(std::os::unix::process::parent_id()), [0 as c_long; 64]);
    let own = c_long::from(std::process::id());
    report("signal-parent", call(62, [parent, 0, 0, 0, 0]));
    report("signal-parents-thread", call(234, [parent, parent, 0, 0, 0]));
    report("queue-signal", call(129, [parent, 0, at(&room), 0, 0]));
    report("limit-parent", call(302, [parent, 7, 0, at(&room), 0]));
    report("renice-parent", call(141, [0, parent, 19, 0, 0]));
    report("schedule-parent", call(144, [parent, 5, at(&0_i32), 0, 0]));
    // Whoever owns a descriptor gets its signals, and which these are is for the process to say.
    let owner = [1, parent as i32];
    report("own-by-parent", call(72, [3, 8, parent, 0, 0]));
    report("own-by-parents-thread", call(72, [3, 15, at(&owner), 0, 0]));
    report("own-by-ioctl", call(16, [3, 0x8901, at(&owner[1]), 0, 0]));
    report("outlive-parent", call(157, [1, 0, 0, 0, 0]));
    report("own-thread", call(234, [own, own, 0, 0, 0]));
    report("own-limit", call(302, [0, 7, 0, at(&room), 0]));
}

/// What changes a file without opening it.
fn by_path(file: &str) {
    const HERE: c_long = -100;
    let file = CString::new(file).expect("a path");
    let (file, attribute) = (file.as_ptr() as c_long, c"user.probe".as_ptr() as c_long);
    report("truncate", call(76, [file, 0, 0, 0, 0]));
    report("utime", call(132, [file, 0, 0, 0, 0]));
    report("utimes", call(235, [file, 0, 0, 0, 0]));
    report("futimesat", call(261, [HERE, file, 0, 0, 0]));
    report("removexattr", call(197, [file, attribute, 0, 0, 0]));
    report("lremovexattr", call(198, [file, attribute, 0, 0, 0]));
    report("fchmodat2", call(452, [HERE, file, 0o600, 0, 0]));
    report("setxattrat", call(463, [HERE, file, 0, attribute, 0]));
    report("removexattrat", call(466, [HERE, file, 0, attribute, 0]));
    report("file_setattr", call(469, [HERE, file, 0, 0, 0]));
}

fn main() {
    behave();
    let _ = std::io::stderr().flush();
}
