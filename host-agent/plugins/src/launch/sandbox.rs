//! The rules of the sandbox, made before the fork so that the child only has to apply them: a Landlock ruleset
//! that grants nothing, system call filters, resource limits, environment.
//!
//! A plugin computes and talks over the socket that it has. It cannot open a file, make a network socket, start a
//! program or a process. Both Landlock and seccomp are required; a kernel without them runs no plugins.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, Scope};
use libc::{c_long, rlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// User and group of plugin processes where the host agent is root: below the range that systemd hands out
/// (61184 and up) and above that of its containers, so that nobody else has it.
pub(super) const PLUGIN_USER: u32 = 61099;

const MIB: u64 = 1024 * 1024;

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
    pub(super) filters: Vec<BpfProgram>,
    pub(super) limits: Vec<(libc::__rlimit_resource_t, rlimit)>,
}

impl Rules {
    /// `own_user`: the process gets a user of its own, whose processes can be counted.
    pub(super) fn new(own_user: bool) -> Result<Self, SandboxError> {
        let mut limits = vec![
            limit(libc::RLIMIT_CORE, 0),
            limit(libc::RLIMIT_FSIZE, 0),
            limit(libc::RLIMIT_NOFILE, 64),
            limit(libc::RLIMIT_MEMLOCK, 0),
            // Address space, not memory in use: roomy, because Go reserves far more than it touches.
            limit(libc::RLIMIT_AS, 2048 * MIB),
            // Seconds of processor time; the deadline comes first unless it spins on several threads.
            limit(libc::RLIMIT_CPU, 60),
        ];
        if own_user {
            // Threads of all plugin processes together.
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

/// Three filters that stack: what ends the process, what it may not do, and what it should think does not exist.
fn filters() -> Result<Vec<BpfProgram>, SandboxError> {
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
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
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
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_personality,
        libc::SYS_kcmp,
        libc::SYS_kill,
        libc::SYS_tkill,
    ]);
    denied.extend(always(&BY_PATH));
    let unix = libc::AF_UNIX as u64;
    denied.insert(
        libc::SYS_socketpair,
        vec![rule(vec![condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, unix)?])?],
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
