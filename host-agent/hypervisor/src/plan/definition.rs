//! The definition of a node's VM, and whether it runs.

use std::path::{Path, PathBuf};

use k8sctl_types::spec::Role;

use super::{change, destructive};
use crate::accelerator::Accelerator;
use crate::change::{Action, DomainRef, HostChange, HostOp, Kind};
use crate::desired::{DesiredHost, DesiredNode, image_file_names, image_of_base, volume_name};
use crate::observed::{DomainState, ObservedDomain, ObservedHost, ObservedVolume};
use crate::xml::domain::DomainPlan;
use crate::xml::owner::Owner;

pub(super) fn short_id(desired: &DesiredHost) -> String {
    let [base, ..] = desired.image.pool_names();
    image_of_base(&base).unwrap_or_default().to_owned()
}

pub(super) fn image_of(volume: &ObservedVolume) -> Option<&str> {
    image_of_base(volume.backing.as_ref()?.file_name()?.to_str()?)
}

/// A busy host gives an emulated VM no timer interrupt in time, and the kernel's check of it then
/// panics: "IO-APIC + timer doesn't work". Under KVM the kernel leaves the check out by itself.
fn for_accelerator(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "",
        Accelerator::Tcg => "no_timer_check",
    }
}

/// The word that tells an emulated VM's kernel how fast its time stamp counter counts, see [`crate::counter`]. It counts
/// without being looked after (`tsc=reliable`), so that a wrong guess would stay.
const COUNTER: &str = "tsc_early_khz=";

/// That word. Each host agent measures anew, and finds a little more or less: what a VM was told before, and is the same
/// but for that, stays.
fn counter_word(observed: &ObservedHost, domain: Option<&ObservedDomain>) -> Option<String> {
    let khz = observed.counter_khz.filter(|_| observed.accelerator == Accelerator::Tcg)?;
    let words = domain.into_iter().flat_map(|domain| domain.cmdline.split_whitespace());
    let mut told = words.filter_map(|word| word.strip_prefix(COUNTER)?.parse::<u64>().ok());
    let same = told.rfind(|told| told.abs_diff(khz) <= khz / 1_000);
    Some(format!("{COUNTER}{}", same.unwrap_or(khz)))
}

/// Kernel, initrd and command line: of the image that the disk was made from.
fn boot_files(
    desired: &DesiredHost,
    node: &DesiredNode,
    observed: &ObservedHost,
    domain: Option<&ObservedDomain>,
    volume: Option<&ObservedVolume>,
) -> (PathBuf, PathBuf, String) {
    let accelerator = observed.accelerator;
    let current = short_id(desired);
    let short = volume.and_then(image_of).unwrap_or(&current);
    let [_, kernel, initrd] = image_file_names(short);
    let words = match domain {
        Some(domain) if short != current => recorded_cmdline(node, domain, accelerator),
        _ => [desired.image.cmdline.as_str(), &node.cmdline, for_accelerator(accelerator)].join(" "),
    };
    let words = words.split_whitespace().filter(|word| !word.starts_with(COUNTER)).map(str::to_owned);
    let cmdline = words.chain(counter_word(observed, domain)).collect::<Vec<_>>().join(" ");
    (desired.pool.path.join(kernel), desired.pool.path.join(initrd), cmdline)
}

/// The command line of a node of an older image, whose own words are nowhere else. Where its VM gets another
/// accelerator, the words for the one before go.
fn recorded_cmdline(node: &DesiredNode, domain: &ObservedDomain, accelerator: Accelerator) -> String {
    let Some(before) = domain.accelerator.filter(|it| *it != accelerator) else {
        return domain.cmdline.clone();
    };
    let gone: Vec<&str> =
        [before.cmdline(), for_accelerator(before)].into_iter().flat_map(str::split_whitespace).collect();
    let mut words: Vec<&str> =
        domain.cmdline.split_whitespace().filter(|word| !gone.contains(word)).collect();
    for word in
        [node.cmdline.as_str(), for_accelerator(accelerator)].into_iter().flat_map(str::split_whitespace)
    {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" ")
}

pub(super) fn plan_domain(
    desired: &DesiredHost,
    node: &DesiredNode,
    observed: &ObservedHost,
    domain: Option<&ObservedDomain>,
    volume: Option<&ObservedVolume>,
    action: Action,
    changes: &mut Vec<HostChange>,
) {
    let (kernel, initrd, cmdline) = boot_files(desired, node, observed, domain, volume);
    let spec = &node.spec;
    let plan = DomainPlan {
        name: spec.name.clone(),
        uuid: node.machine_uuid.clone(),
        description: format!("node of the Kubernetes cluster {}", desired.cluster_name),
        owner: Owner {
            cluster_id: desired.cluster_id.clone(),
            node_id: node.node_id.clone(),
            generation: desired.generation,
            ip: spec.ip.to_string(),
        },
        accelerator: observed.accelerator,
        vcpus: spec.vcpus,
        memory_bytes: spec.memory_bytes,
        disk: desired.pool.path.join(volume_name(&desired.cluster_id, &spec.name)),
        kernel,
        initrd,
        cmdline,
        network: desired.network.name.clone(),
        mac: spec.mac.to_ascii_lowercase(),
        // The others are started behind it: libvirt knows no order.
        autostart: spec.role == Role::ControlPlane,
    };
    let reference = DomainRef {
        name: spec.name.clone(),
        uuid: node.machine_uuid.clone(),
        cluster_id: desired.cluster_id.clone(),
    };
    let push = |changes: &mut Vec<HostChange>, action, reason: &str, op| {
        changes.push(change(action, Kind::Domain, &spec.name, reason, op));
    };
    let Some(domain) = domain else {
        let reason = format!("{} vCPU, {} MiB, {}", spec.vcpus, spec.memory_bytes >> 20, spec.ip);
        push(changes, action, &reason, HostOp::DefineDomain { domain: plan });
        if node.powered {
            push(changes, action, "it shall run", HostOp::StartDomain { domain: reference });
        }
        return;
    };
    let differences = differences(&plan, domain);
    if !differences.is_empty() {
        let op = HostOp::DefineDomain { domain: plan };
        push(changes, Action::Update, &differences.join(", "), op);
    }
    let running = domain.state == DomainState::Running;
    let has_new_sizes = (domain.vcpus, domain.memory_bytes) != (spec.vcpus, spec.memory_bytes);
    let has_new_accelerator = changes_accelerator(observed.accelerator, domain);
    let stale = domain.live_vcpus.is_some_and(|live| live != spec.vcpus)
        || domain.live_memory_bytes.is_some_and(|live| live != spec.memory_bytes)
        // A saved one would go on with what it had before.
        || (domain.has_managed_save && (has_new_sizes || has_new_accelerator));
    match (node.powered, running) {
        // One that is paused, too: it would go on with its old sizes, and be restarted then, which the
        // plan that was agreed to does not show.
        (true, _) if stale => {
            let op = HostOp::RestartDomain { domain: reference };
            let reason = match (domain.has_managed_save, has_new_accelerator) {
                (true, true) => "another accelerator needs a start without its saved state",
                (true, false) => "new sizes need a start without its saved state",
                (false, _) => "new sizes need a restart of the VM",
            };
            let restart = change(Action::Update, Kind::Domain, &spec.name, reason, op);
            changes.push(destructive(restart));
        }
        (true, false) => {
            let reason = match domain.state {
                DomainState::Paused => "it is paused",
                DomainState::IoError => "an I/O error has stopped it",
                _ => "it does not run",
            };
            push(changes, Action::Update, reason, HostOp::StartDomain { domain: reference });
        }
        (false, _) if domain.state != DomainState::Off => {
            let op = HostOp::ShutDownDomain { domain: reference };
            let stop = change(Action::Update, Kind::Domain, &spec.name, "it shall be off", op);
            changes.push(destructive(stop));
        }
        _ => {}
    }
}

/// Whether the VM is for KVM on a host that has none, or emulated on one that has it.
fn changes_accelerator(accelerator: Accelerator, domain: &ObservedDomain) -> bool {
    domain.accelerator.is_some_and(|it| it != accelerator)
}

/// What of the definition is to be changed in place.
fn differences(plan: &DomainPlan, domain: &ObservedDomain) -> Vec<String> {
    let mut found = Vec::new();
    if plan.vcpus != domain.vcpus {
        found.push(format!("vCPUs {} to {}", domain.vcpus, plan.vcpus));
    }
    if plan.memory_bytes != domain.memory_bytes {
        found.push(format!("memory {} to {} MiB", domain.memory_bytes >> 20, plan.memory_bytes >> 20));
    }
    if changes_accelerator(plan.accelerator, domain) {
        let before = domain.accelerator.map_or("none", Accelerator::domain_type);
        let now = plan.accelerator.domain_type();
        found.push(format!("type {before} to {now}, from the next boot on"));
    }
    let is = |path: &Option<PathBuf>, wanted: &Path| path.as_deref() == Some(wanted);
    if !is(&domain.kernel, &plan.kernel)
        || !is(&domain.initrd, &plan.initrd)
        || plan.cmdline != domain.cmdline
    {
        found.push("kernel, initrd or command line, from the next boot on".to_owned());
    }
    match (plan.autostart, domain.autostart) {
        (true, false) => found.push("it shall start with the host".to_owned()),
        (false, true) => found.push("it shall start behind the control plane".to_owned()),
        _ => {}
    }
    found
}
