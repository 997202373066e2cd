//! The rules of the sandbox, made before the fork so that the child only has to apply them: a Landlock ruleset
//! that grants nothing, system call filters, resource limits, environment.
//!
//! A plugin computes and talks over the socket that it has. It cannot open a file, make a network socket, start a
//! program or a process. Both Landlock and seccomp are required; a kernel without them runs no plugins.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, Scope};
use libc::{c_long, rlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// In bytes: roomy, because Go reserves far more than it touches.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Of processor time; the deadline comes first unless it spins on several threads.
pub(super) const CPU_SECONDS: u64 = 60;

// Newer than the libc crate knows. They have one number on all architectures.
const SYS_SETXATTRAT: c_long = 463;
const SYS_REMOVEXATTRAT: c_long = 466;
const SYS_FILE_SETATTR: c_long = 469;

/// What changes a file by its path without opening it, and is not Landlock's: all of a file's metadata, and its length,
/// which is Landlock's from Linux 6.2 on only; Debian 12 has 6.1.
const BY_PATH: [c_long; 18] = [
    libc::SYS_truncate,
    libc::SYS_chmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_fchownat,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    SYS_SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    SYS_REMOVEXATTRAT,
    SYS_FILE_SETATTR,
];

/// What reaches other processes of the same user, which it has where the host agent is not root. `tgkill` is bounded to
/// its own threads by the child itself, which knows its number.
const OTHERS: [c_long; 18] = [
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_kcmp,
];

/// What has no path and outlives its process: shared memory, semaphores and queues stay in the kernel's memory, uncounted,
/// until somebody takes them away, and those of the same user are there for each of its processes.
const OUTLIVING: [c_long; 18] = [
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_mq_timedsend,
    libc::SYS_mq_timedreceive,
    libc::SYS_mq_notify,
    libc::SYS_mq_getsetattr,
];

/// Calls, and the commands of theirs that name a process which gets a descriptor's signals, whichever these are: `F_SETOWN`
/// and `F_SETOWN_EX`, `FIOSETOWN` and `SIOCSPGRP`.
const OWNERS: [(c_long, [u64; 2]); 2] = [(libc::SYS_fcntl, [8, 15]), (libc::SYS_ioctl, [0x8901, 0x8902])];

/// The sandbox cannot be made on this machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// The kernel has no Landlock, or it is switched off.
    #[error("this kernel offers no Landlock")]
    NoLandlock,
    /// Landlock refused the ruleset.
    #[error("cannot make the Landlock ruleset")]
    Landlock(#[from] landlock::RulesetError),
    /// The filter does not compile.
    #[error("cannot make the system call filter")]
    Seccomp(#[from] seccompiler::Error),
    /// The filters know no numbers of this architecture.
    #[error("plugins do not run on {0} yet")]
    Architecture(&'static str),
}

/// Everything that the child applies to itself.
pub(super) struct Rules {
    pub(super) landlock: OwnedFd,
    pub(super) filters: &'static [BpfProgram],
    pub(super) limits: Vec<(libc::__rlimit_resource_t, rlimit)>,
}

impl Rules {
    /// `own_user`: the process gets a user of its own, whose threads can be counted.
    pub(super) fn new(own_user: bool, memory_bytes: u64) -> Result<Self, SandboxError> {
        let mut limits = vec![
            limit(libc::RLIMIT_CORE, 0),
            limit(libc::RLIMIT_FSIZE, 0),
            limit(libc::RLIMIT_NOFILE, 64),
            limit(libc::RLIMIT_MEMLOCK, 0),
            // Memory that it may write to and that is its own alone. What Go only reserves does not count.
            limit(libc::RLIMIT_DATA, memory_bytes),
            // Address space: the outer bound, also of memory that is shared with nobody but could be.
            limit(libc::RLIMIT_AS, ADDRESS_SPACE.max(memory_bytes)),
            // At the first of them the signal tells why; nobody sees a second that is caught.
            (libc::RLIMIT_CPU, rlimit { rlim_cur: CPU_SECONDS, rlim_max: CPU_SECONDS + 1 }),
        ];
        if own_user {
            // Threads of all processes of this user: another host agent on this machine, as tests start them, may have
            // the same one.
            limits.push(limit(libc::RLIMIT_NPROC, 256));
        }
        Ok(Self { landlock: landlock_ruleset()?, filters: filters()?, limits })
    }
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) -> (libc::__rlimit_resource_t, rlimit) {
    (resource, rlimit { rlim_cur: value, rlim_max: value })
}

/// Handles every right that this kernel knows and grants none.
fn landlock_ruleset() -> Result<OwnedFd, SandboxError> {
    let abi = ABI::V6;
    let created = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    Option::<OwnedFd>::from(created).ok_or(SandboxError::NoLandlock)
}

/// Made once: they are the same for all.
fn filters() -> Result<&'static [BpfProgram], SandboxError> {
    static MADE: OnceLock<Vec<BpfProgram>> = OnceLock::new();
    if let Some(filters) = MADE.get() {
        return Ok(filters);
    }
    let filters = new_filters()?;
    Ok(MADE.get_or_init(|| filters))
}

/// Three filters that stack: what ends the process, what it may not do, and what it should think does not exist.
fn new_filters() -> Result<Vec<BpfProgram>, SandboxError> {
    if !cfg!(target_arch = "x86_64") {
        return Err(SandboxError::Architecture(std::env::consts::ARCH));
    }
    let killed = always(&[
        libc::SYS_ptrace,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_bpf,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_quotactl,
        libc::SYS_swapon,
        libc::SYS_reboot,
        libc::SYS_acct,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
    ]);
    let mut denied = always(&[
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept,
        libc::SYS_accept4,
        // Landlock lets memory files be executed.
        libc::SYS_memfd_create,
        libc::SYS_memfd_secret,
        libc::SYS_execve,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_chroot,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_open_by_handle_at,
        libc::SYS_name_to_handle_at,
        libc::SYS_fsopen,
        libc::SYS_fsmount,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        // They tell of files by their path, which Landlock does not look at.
        libc::SYS_inotify_init,
        libc::SYS_inotify_init1,
        libc::SYS_fanotify_init,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_syslog,
        libc::SYS_personality,
    ]);
    denied.extend(always(&BY_PATH));
    denied.extend(always(&OTHERS));
    denied.extend(always(&OUTLIVING));
    for (call, commands) in OWNERS {
        let command = |it| rule(vec![condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, it)?]);
        denied.insert(call, commands.into_iter().map(command).collect::<Result<Vec<_>, _>>()?);
    }
    denied.insert(libc::SYS_socketpair, all_but_stream_pairs()?);
    // It ends with its parent, and cannot choose not to.
    let end_with_parent = libc::PR_SET_PDEATHSIG as u64;
    denied.insert(
        libc::SYS_prctl,
        vec![rule(vec![condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, end_with_parent)?])?],
    );
    // Limits of its own it may lower; others' are none of its business.
    denied.insert(
        libc::SYS_prlimit64,
        vec![rule(vec![condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?])?],
    );
    // Only the launcher's own exec, of a descriptor.
    let by_descriptor = libc::AT_EMPTY_PATH as u64;
    denied.insert(
        libc::SYS_execveat,
        vec![rule(vec![condition(4, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, by_descriptor)?])?],
    );
    // Threads yes, processes no.
    let thread = libc::CLONE_THREAD as u64;
    denied.insert(
        libc::SYS_clone,
        vec![rule(vec![condition(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?])?],
    );
    // clone3 hides its flags behind a pointer, and io_uring its operations: libraries fall back when they are told
    // that there is no such call.
    let absent = always(&[
        libc::SYS_clone3,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ]);
    [
        (killed, SeccompAction::KillProcess),
        (denied, SeccompAction::Errno(libc::EPERM as u32)),
        (absent, SeccompAction::Errno(libc::ENOSYS as u32)),
    ]
    .into_iter()
    .map(|(rules, action)| {
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, TargetArch::x86_64)
            .map_err(seccompiler::Error::Backend)?;
        Ok(BpfProgram::try_from(filter).map_err(seccompiler::Error::Backend)?)
    })
    .collect()
}

/// A pair of Unix stream sockets is what tokio waits for signals with. Every other pair is denied: by its family, or by any
/// bit of its type that a stream has not, beside the flags.
fn all_but_stream_pairs() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let (family, kind) = (libc::AF_UNIX as u64, libc::SOCK_STREAM as u64);
    let masked =
        |mask: u64, value| condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value);
    let mut rules = vec![
        rule(vec![condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)?])?,
        rule(vec![masked(kind, 0)?])?,
    ];
    for bit in [2, 4, 8] {
        rules.push(rule(vec![masked(bit, bit)?])?);
    }
    Ok(rules)
}

fn always(calls: &[c_long]) -> BTreeMap<c_long, Vec<SeccompRule>> {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, seccompiler::Error> {
    SeccompRule::new(conditions).map_err(seccompiler::Error::Backend)
}

fn condition(
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::Error> {
    SeccompCondition::new(argument, length, operator, value).map_err(seccompiler::Error::Backend)
}
