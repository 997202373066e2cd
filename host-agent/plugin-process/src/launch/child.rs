//! The few calls that a plugin's process makes between fork and exec: enters its control group, takes the socket as fd 3,
//! applies the sandbox, executes the sealed program. Called by [`super::process`]; decides nothing.
#![allow(unsafe_code)] // fork's child may only make system calls; there is no safe interface for that.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;

use libc::sock_filter;
use tokio::process::Command;

use super::sandbox::Rules;

/// Where the plugin finds its socket.
const PLUGIN_FD: RawFd = 3;

/// What the child needs, owned so that the descriptors live until the command is dropped. None of them is 3.
pub(super) struct Setup {
    pub(super) socket: OwnedFd,
    pub(super) program: Arc<OwnedFd>,
    /// `cgroup.procs` of its control group, where it has one.
    pub(super) group: Option<OwnedFd>,
    pub(super) rules: Rules,
}

/// The same file under a number that the child's fd 3 cannot collide with.
///
/// Also makes sure that 3 is taken in this process: were it free, the pipe over which the standard library learns
/// of a failed exec could get it, and the child would overwrite it with the socket.
pub(super) fn away_from_fd_3(fd: OwnedFd) -> io::Result<OwnedFd> {
    let placeholder = rustix::io::fcntl_dupfd_cloexec(&fd, PLUGIN_FD)?;
    if placeholder.as_raw_fd() == PLUGIN_FD {
        // A file without meaning stays there for good; the socket itself must not, or its end would never be seen.
        drop(placeholder);
        let _stays = std::fs::File::open("/dev/null")?.into_raw_fd();
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 10)?)
}

/// Lets the child enter the sandbox and the program. `spawn` reports the first call that fails.
pub(super) fn enter_before_exec(command: &mut Command, setup: Setup) {
    let parent = std::process::id();
    // SAFETY: `enter` makes system calls on values that exist already; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(move || Err(enter(&setup, parent))) };
}

/// Returns only if something failed: its last call replaces the program.
fn enter(setup: &Setup, parent: u32) -> io::Error {
    match sandbox(setup, parent) {
        Ok(()) => exec(setup.program.as_raw_fd()),
        Err(error) => error,
    }
}

fn sandbox(setup: &Setup, parent: u32) -> io::Result<()> {
    let Rules { landlock, filters, limits } = &setup.rules;
    // SAFETY: plain system calls on numbers and on memory that `setup` owns; all of them async-signal-safe.
    unsafe {
        check(i64::from(libc::setsid()))?;
        // The process ends with the thread that made it; one whose parent is gone already would never hear of it.
        check(i64::from(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0)))?;
        if libc::getppid() as u32 != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        if let Some(group) = &setup.group {
            // 0 stands for whoever writes it.
            check(libc::write(group.as_raw_fd(), c"0".as_ptr().cast(), 1) as i64)?;
        }
        check(i64::from(libc::dup2(setup.socket.as_raw_fd(), PLUGIN_FD)))?;
        // Whatever a library of the host agent left open without close-on-exec.
        let flag = libc::CLOSE_RANGE_CLOEXEC;
        check(libc::syscall(libc::SYS_close_range, PLUGIN_FD + 1, libc::c_uint::MAX, flag))?;
        for (resource, limit) in limits {
            check(i64::from(libc::setrlimit(*resource, limit)))?;
        }
        check(i64::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)))?;
        check(libc::syscall(libc::SYS_landlock_restrict_self, landlock.as_raw_fd(), 0))?;
        for filter in *filters {
            // seccompiler's instruction has the kernel's layout, and a filter has at most 4096 of them.
            add_filter(filter.len() as u16, filter.as_ptr().cast())?;
        }
        let own = of_its_own_number(libc::getpid() as u32);
        add_filter(own.len() as u16, own.as_ptr())?;
    }
    Ok(())
}

/// # Safety
/// There are so many instructions there.
unsafe fn add_filter(len: u16, filter: *const sock_filter) -> io::Result<()> {
    let program = libc::sock_fprog { len, filter: filter.cast_mut() };
    // SAFETY: the kernel only reads what the caller promises to be there.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
}

/// What nobody can write down before the fork: signals go to threads of this process only. And no call by the numbers of
/// the x32 interface, under which the other filters would not know it; trying one ends the process.
fn of_its_own_number(pid: u32) -> [sock_filter; 8] {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const IS_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Of what the kernel shows a filter: the call's number, and the lower half of its first argument.
    const CALL: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;
    const X32: u32 = 0x4000_0000;
    // How many instructions are passed over if it is so, and if it is not.
    let step = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    [
        step(LOAD, CALL, 0, 0),
        step(IS_AT_LEAST, X32, 5, 0),
        step(IS, libc::SYS_tgkill as u32, 0, 2),
        step(LOAD, FIRST_ARGUMENT, 0, 0),
        step(IS, pid, 0, 1),
        step(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(ANSWER, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        step(ANSWER, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
    ]
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
