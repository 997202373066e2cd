//! Malformed traffic on every socket that a host agent listens on, beside a fleet that is well. What is sent comes from a
//! seed, so that a run can be had again, but for what TLS draws itself and for the moment at which anything arrives.
//!
//! - [`random`] and [`mutate`]: the seed, and what becomes of sound bytes by it; [`messages`]: a sound message of every
//!   method
//! - [`line`](mod@line): connections, as which user and with which certificate; [`frames`]: HTTP/2 by hand, since a
//!   library would not send what is wrong; [`conversation`]: one connection of it, and what is heard
//! - [`hello`], [`floods`], [`held`], [`calls`] and [`plain`]: what is sent; [`targets`]: to whom
//! - [`attack`]: sends it for a while; [`pulse`]: how soon those who are well are answered meanwhile; [`verdict`]: whether
//!   that is as promised
//!
//! `tests/malformed.rs` runs all of them: some seconds each in `make test`, ten minutes each in `make fuzz`.

pub mod attack;
pub mod calls;
pub mod conversation;
pub mod floods;
pub mod frames;
pub mod held;
pub mod hello;
pub mod line;
pub mod messages;
pub mod mutate;
pub mod plain;
pub mod pulse;
pub mod random;
pub mod targets;
pub mod verdict;
