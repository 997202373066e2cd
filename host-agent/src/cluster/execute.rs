//! Carries out a change to the host. Everything was decided before; each change is one idempotent side effect, so a
//! kill between any two of them only means that the next run does the rest.

use host_hypervisor::Hypervisor;
use host_hypervisor::change::{HostChange, Outcome};
use k8sctl_types::failure::Failure;

use super::crash;
use crate::events::{EventLog, NewEvent};

/// Executes one change.
pub async fn execute_change(
    hypervisor: &dyn Hypervisor,
    events: &EventLog,
    cluster: &str,
    change: &HostChange,
) -> Result<(), Failure> {
    let name = change.op.name();
    crash::point(&format!("before-{name}"));
    let outcome = hypervisor.execute(&change.op).await?;
    crash::point(&format!("after-{name}"));
    if outcome == Outcome::Done {
        events
            .record(NewEvent {
                cluster: cluster.to_owned(),
                object: format!("{} {}", change.kind, change.name),
                kind: event_kind(name),
                message: change.reason.clone(),
                warning: false,
            })
            .await;
    }
    Ok(())
}

fn event_kind(op: &str) -> &'static str {
    match op {
        "define-network" => "NetworkDefined",
        "start-network" => "NetworkStarted",
        "set-dhcp-ranges" | "add-dhcp-host" | "remove-dhcp-host" => "NetworkUpdated",
        "stop-network" => "NetworkStopped",
        "delete-network" => "NetworkDeleted",
        "define-pool" => "PoolDefined",
        "start-pool" => "PoolStarted",
        "delete-pool" => "PoolDeleted",
        "install-file" => "ImageInstalled",
        "remove-file" => "ImageRemoved",
        "create-volume" => "VolumeCreated",
        "grow-volume" => "VolumeGrown",
        "delete-volume" => "VolumeDeleted",
        "check-addresses" => "AddressesChecked",
        "define-domain" => "VMDefined",
        "start-domain" => "VMStarted",
        "attach-tap" => "VMReattached",
        "restart-domain" => "VMRestarted",
        "shut-down-domain" => "VMStopped",
        "delete-domain" => "VMDeleted",
        _ => "HostChanged",
    }
}
