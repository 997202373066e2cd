//! Carries out a change to the host. Everything was decided before; each change is one idempotent side effect, so a
//! kill between any two of them only means that the next run does the rest.

use host_hypervisor::change::{HostChange, HostOp, Outcome};
use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;

use super::crash;
use super::shared::Shared;
use crate::events::NewEvent;
use crate::records::OperationRecord;
use crate::trace::spans;

/// Executes one change; of an operation, it is part of its trace. An event tells of it where it is news.
pub async fn execute_change(
    shared: &Shared,
    operation: Option<&OperationRecord>,
    cluster: &str,
    change: &HostChange,
    is_news: bool,
) -> Result<(), Failure> {
    let name = change.op.name();
    crash::point(&format!("before-{name}"));
    let begun = jiff::Timestamp::now();
    let result = shared.hypervisor.execute(&change.op).await;
    if let Some(operation) = operation {
        let now = jiff::Timestamp::now();
        shared.tracer.tell(|| spans::host_change(&operation.id, change, (begun, now), result.as_ref().err()));
    }
    let outcome = result?;
    crash::point(&format!("after-{name}"));
    if outcome == Outcome::Done
        && is_news
        && let Some(kind) = event_type(&change.op)
    {
        shared
            .events
            .record(NewEvent {
                cluster: cluster.to_owned(),
                object: format!("{} {}", change.kind, change.name),
                kind,
                message: change.reason.clone(),
                warning: false,
            })
            .await;
    }
    Ok(())
}

/// What is told of it. That a run of a VM comes first at the processors goes without saying.
fn event_type(op: &HostOp) -> Option<EventType> {
    Some(match op {
        HostOp::PreferDomain { .. } => return None,
        HostOp::DefineNetwork { .. } => EventType::NetworkDefined,
        HostOp::StartNetwork { .. } => EventType::NetworkStarted,
        HostOp::SetDhcpRanges { .. } | HostOp::AddDhcpHost { .. } | HostOp::RemoveDhcpHost { .. } => {
            EventType::NetworkUpdated
        }
        HostOp::StopNetwork { .. } => EventType::NetworkStopped,
        HostOp::DeleteNetwork { .. } => EventType::NetworkDeleted,
        HostOp::DefinePool { .. } => EventType::PoolDefined,
        HostOp::StartPool { .. } => EventType::PoolStarted,
        HostOp::DeletePool { .. } => EventType::PoolDeleted,
        HostOp::InstallFile { .. } => EventType::ImageInstalled,
        HostOp::RemoveFile { .. } => EventType::ImageRemoved,
        HostOp::CreateVolume { .. } => EventType::VolumeCreated,
        HostOp::GrowVolume { .. } => EventType::VolumeGrown,
        HostOp::DeleteVolume { .. } => EventType::VolumeDeleted,
        HostOp::CheckAddresses { .. } => EventType::AddressesChecked,
        HostOp::DefineDomain { .. } => EventType::VMDefined,
        HostOp::StartDomain { .. } => EventType::VMStarted,
        HostOp::AttachTap { .. } => EventType::VMReattached,
        HostOp::RestartDomain { .. } => EventType::VMRestarted,
        HostOp::ShutDownDomain { .. } | HostOp::PowerOffDomain { .. } => EventType::VMStopped,
        HostOp::DeleteDomain { .. } => EventType::VMDeleted,
    })
}
