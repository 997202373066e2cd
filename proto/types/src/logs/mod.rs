//! What both agents need to select and order log lines.
//!
//! - [`merge`]: one stream of several, in the order of time
//! - [`grep`]: a regular expression of a stranger, with bounds

pub mod grep;
pub mod merge;
