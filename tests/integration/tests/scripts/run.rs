//! `run`, which makes a lab, and its end.

use anyhow::Result;

use super::stage::in_namespace;

#[test]
fn a_signal_ends_a_lab_wherever_it_is() -> Result<()> {
    in_namespace("run::a_signal_ends_a_lab_wherever_it_is", include_str!("run.sh"))
}
