//! How much a plugin may say. Who reads from a process, who checks a plan and who writes a plugin look here.

/// Largest object, in bytes of JSON: etcd takes 1.5 MiB.
pub const OBJECT_BYTES: usize = 1 << 20;
/// What a plugin says in one plan, in bytes.
pub const PLAN_BYTES: usize = 16 << 20;
/// Objects of a plan, those of its manifests included.
pub const OBJECTS: usize = 2000;
/// Manifests of a plan.
pub const REMOTES: usize = 32;
/// Largest manifest, in bytes.
pub const REMOTE_BYTES: u64 = 16 << 20;
/// The same where a plugin does not say how large it is.
pub const REMOTE_DEFAULT_BYTES: u64 = 4 << 20;
/// Keys, values, begins and ends of lists in one manifest.
pub const REMOTE_EVENTS: usize = 1_000_000;
/// All objects of a plan, in bytes of JSON.
pub const ALL_OBJECT_BYTES: usize = 64 << 20;
/// Maps and lists within each other. Definitions of real projects have up to 40; each level takes room on the stack of who
/// reads them, and the store reads no more than 128 back.
pub const DEPTH: usize = 64;
/// Operations in all patches of a plan.
pub const PATCHES: usize = 500;
/// How often they may apply, to one object each.
pub const PATCHED: usize = 5000;
/// Readiness rules of a plan.
pub const READINESS: usize = 200;
/// Node requirements of a plan.
pub const NODE_REQUIREMENTS: usize = 100;
/// Secrets that a plan has generated.
pub const SECRETS: usize = 100;
/// Diagnostics that are shown.
pub const DIAGNOSTICS: usize = 100;
/// Longest text for people, in bytes.
pub const TEXT_BYTES: usize = 2048;
/// Largest schema of a config, in bytes.
pub const SCHEMA_BYTES: usize = 256 << 10;
/// Files of its package that a program is told, in bytes.
pub const FILES_BYTES: usize = 2 << 20;
/// Largest message on the socket, in bytes.
pub const MESSAGE_BYTES: usize = (1 << 20) + (64 << 10);
/// Outputs of a plugin.
pub const OUTPUTS: usize = 64;
/// Longest output, in bytes.
pub const OUTPUT_BYTES: usize = 1024;
/// Objects that a plugin is told for judging them, in bytes.
pub const ASSESS_BYTES: usize = 3 << 20;
