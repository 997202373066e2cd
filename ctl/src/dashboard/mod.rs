//! A cluster as a whole, live: nodes, conditions, the operation that runs, plugins, logs.
//!
//! ```text
//!  host agent ─► source ─► model ─► picture ─┬─► tui   the terminal
//!                (watch)   (pure)   (pure)   └─► web   a browser of this host
//! ```
//!
//! - [`source`]: listens to the host agent, through its restarts
//! - [`model`]: what is known, and how old it is
//! - [`picture`]: what is to be seen of it at a moment, for both
//! - [`tui`]: draws it in the terminal
//! - [`web`]: serves it to a browser
//!
//! Nothing here changes anything: of the host agent it is only asked what a reader may ask.

pub mod model;
pub mod picture;
pub mod source;
pub mod tui;
pub mod web;

#[cfg(test)]
mod fake;
