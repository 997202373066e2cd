//! `run`, which makes a lab, and its end.

use anyhow::Result;

use super::stage::in_namespace;

#[test]
fn labs_end_at_signals_and_dead_ones_are_told_apart() -> Result<()> {
    in_namespace("run::labs_end_at_signals_and_dead_ones_are_told_apart", include_str!("run.sh"))
}
