//! Single phases, for whoever works on one: on a cluster that stays, so that the next run of it begins at once.
//!
//! In a lab (`tests/lab/shell`): `LAB_PHASES=repairs,soak cargo test -p lab-tests --test cluster -- --nocapture`.

use anyhow::{Context as _, Result, bail};
use lab_tests::pace::Pace;
use lab_tests::{Lab, Running, wait_until};

use super::{
    MINUTE, follow, inside, k8sctl, live, plugins, repairs, soak, survival, told, upgrade, workload,
};

/// Phases by their names, with commas between them, behind an `up`. `worker` wants `workload` before it.
pub fn these(lab: &Lab, names: &str) -> Result<()> {
    let home = lab.repo("examples/home.toml").to_string_lossy().into_owned();
    let mut agent = lab.host_agent(None)?;
    k8sctl(lab, &["up", "-f", &home, "--yes"])?;
    wait_until("all is well", 20 * MINUTE, || told::is_well(lab))?;
    let pace = survival::a_vm_crashes(lab)?;
    for name in names.split(',') {
        agent = one(lab, &home, agent, pace, name).with_context(|| format!("phase {name}"))?;
    }
    Ok(())
}

fn one(lab: &Lab, home: &str, agent: Running, pace: Pace, name: &str) -> Result<Running> {
    match name {
        "well" => live::it_is_well(lab)?,
        "live" => live::conditions_and_logs_are_live(lab, pace)?,
        "repairs" => repairs::nodes_mend_themselves(lab, home, pace)?,
        "back-off" => repairs::a_control_plane_waits_for_no_back_off(lab, pace)?,
        "follow" => {
            follow::markers_come_in_order(lab, pace)?;
            follow::bounds_are_exact(lab)?;
            follow::nothing_is_lost_or_doubled(lab, pace)?;
        }
        "upgrade" => upgrade::agents_are_replaced_and_bad_ones_go_back(lab)?,
        "support" => upgrade::a_bundle_tells_of_all_of_it(lab)?,
        "workload" => workload::workload_answers(lab)?,
        "plugin" => plugins::plugins_live(lab, pace)?,
        "pod-network" => {
            workload::workload_answers(lab)?;
            plugins::another_pod_network(lab)?;
        }
        "secrets" => inside::no_secret_lies_open(lab)?,
        "worker" => return super::a_worker_joins_and_leaves(lab, home, agent, Some(pace)),
        "network" => super::vms_come_back_onto_their_network(lab, home)?,
        "killed" => return survival::host_agent_is_killed(lab, agent, pace),
        "libvirtd" => survival::libvirtd_is_restarted(lab, pace)?,
        "suspended" => survival::host_is_suspended(lab, &agent, pace)?,
        "full" => return survival::host_agent_has_no_room(lab, agent, pace),
        "soak" => return soak::for_a_while(lab, agent, pace),
        "long-soak" => return soak::of_all_kinds(lab, agent),
        _ => bail!("there is no such phase: those that there are stand in {}", file!()),
    }
    Ok(agent)
}
