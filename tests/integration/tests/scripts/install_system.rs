//! `install-system`, which puts the programs where a user finds them.

use anyhow::Result;

use super::stage::in_namespace;

#[test]
fn programs_are_installed_once_and_replaced_where_they_changed() -> Result<()> {
    in_namespace(
        "install_system::programs_are_installed_once_and_replaced_where_they_changed",
        include_str!("install_system.sh"),
    )
}
