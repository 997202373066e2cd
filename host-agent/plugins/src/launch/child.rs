//! The few calls that a plugin's process makes between fork and exec: takes the socket as fd 3, applies the
//! sandbox, executes the sealed program. Called by `spawn`; decides nothing.
#![allow(unsafe_code)] // fork's child may only make system calls; there is no safe interface for that.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

use tokio::process::Command;

use super::sandbox::Rules;

/// Where the plugin finds its socket.
const PLUGIN_FD: RawFd = 3;

/// What the child needs, owned so that the descriptors live until the command is dropped.
pub(super) struct Setup {
    pub(super) socket: OwnedFd,
    pub(super) program: OwnedFd,
    pub(super) rules: Rules,
}

/// The same file under a number that the child's fd 3 cannot collide with.
///
/// Also makes sure that 3 is taken in this process: were it free, the pipe over which the standard library learns
/// of a failed exec could get it, and the child would overwrite it with the socket.
pub(super) fn away_from_fd_3(fd: OwnedFd) -> io::Result<OwnedFd> {
    static TAKEN: OnceLock<OwnedFd> = OnceLock::new();
    let placeholder = rustix::io::fcntl_dupfd_cloexec(&fd, PLUGIN_FD)?;
    if placeholder.as_raw_fd() == PLUGIN_FD {
        // A file without meaning stays there; the socket itself must not, or its end would never be seen.
        drop(placeholder);
        let null = std::fs::File::open("/dev/null")?;
        TAKEN.get_or_init(|| null.into());
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 10)?)
}

/// Lets the child enter the sandbox and the program. `spawn` reports the first call that fails.
pub(super) fn enter_before_exec(command: &mut Command, setup: Setup) {
    // SAFETY: `enter` makes system calls on values that exist already; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(move || Err(enter(&setup))) };
}

/// Returns only if something failed: its last call replaces the program.
fn enter(setup: &Setup) -> io::Error {
    match sandbox(setup) {
        Ok(()) => exec(setup.program.as_raw_fd()),
        Err(error) => error,
    }
}

fn sandbox(setup: &Setup) -> io::Result<()> {
    let Rules { landlock, filters, limits } = &setup.rules;
    // SAFETY: plain system calls on numbers and on memory that `setup` owns; all of them async-signal-safe.
    unsafe {
        check(i64::from(libc::setsid()))?;
        check(i64::from(libc::dup2(setup.socket.as_raw_fd(), PLUGIN_FD)))?;
        // Whatever a library of the host agent left open without close-on-exec.
        let flag = libc::CLOSE_RANGE_CLOEXEC;
        check(libc::syscall(libc::SYS_close_range, PLUGIN_FD + 1, libc::c_uint::MAX, flag))?;
        for (resource, limit) in limits {
            check(i64::from(libc::setrlimit(*resource, limit)))?;
        }
        check(i64::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)))?;
        check(libc::syscall(libc::SYS_landlock_restrict_self, landlock.as_raw_fd(), 0))?;
        for filter in filters {
            // seccompiler's instruction has the kernel's layout, and a filter has at most 4096 of them.
            let program =
                libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut().cast() };
            check(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program))?;
        }
    }
    Ok(())
}

fn exec(program: RawFd) -> io::Error {
    let arguments = [c"k8sctl-plugin".as_ptr(), ptr::null()];
    let environment = [
        c"K8SCTL_PLUGIN_FD=3".as_ptr(),
        c"K8SCTL_PROTOCOLS=1".as_ptr(),
        c"RUST_BACKTRACE=1".as_ptr(),
        c"TZ=UTC".as_ptr(),
        c"LC_ALL=C.UTF-8".as_ptr(),
        ptr::null(),
    ];
    // SAFETY: both lists end with a null pointer and hold static strings.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
