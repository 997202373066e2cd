//! The types of events: the one list of what the host agent can record and of what `k8sctl events --type` takes.
//! `docs/events.md` has a row of each, with the same words.

use std::fmt;

macro_rules! event_types {
    ($($(#[doc = $meaning:literal])+ $name:ident,)+) => {
        /// What happened, as one CamelCase word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventType {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl EventType {
            /// All of them, in the order of the page.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// `NodeJoined`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What it means, in a few words.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($meaning),+).trim_ascii(),)+
                }
            }
        }
    };
}

event_types! {
    /// an `up` or `down` has reached its end
    OperationSucceeded,
    /// an `up` or `down` ended badly, or gave way to another one, which is no warning
    OperationFailed,
    /// all that was ours of a cluster is gone
    ClusterRemoved,
    /// a cluster's record cannot be read back
    RecordDamaged,
    /// a node got its certificate
    NodeJoined,
    /// an attempt to join was refused, or several
    JoinRefused,
    /// a certificate was shown after it had been replaced
    OldCertificate,
    /// a node's agent opened a session
    NodeConnected,
    /// the session of a node's agent ended
    NodeDisconnected,
    /// pods have left a node, and Kubernetes has forgotten it
    NodeDrained,
    /// VM and disk of a node that left are gone
    NodeRemoved,
    /// a step of a node began
    StepStarted,
    /// a step of a node is done
    StepDone,
    /// a step of a node failed
    StepFailed,
    /// the status of a node's condition is another one
    ConditionChanged,
    /// a node's agent put something right
    RepairSucceeded,
    /// a node's agent tried to put something right, and tries again
    RepairFailed,
    /// a node's agent tried too often, and rests
    RepairGaveUp,
    /// a node's agent was replaced by the host's
    AgentReplaced,
    /// a node's agent was to be replaced, and is not
    AgentNotReplaced,
    /// libvirt does not answer any more
    LibvirtLost,
    /// libvirt answers again
    LibvirtBack,
    /// so many others were left out, since there were too many at once
    EventsLeftOut,
    /// a VM was defined
    VMDefined,
    /// a VM was started
    VMStarted,
    /// a VM was restarted for another size
    VMRestarted,
    /// a VM was reset, or its guest rebooted
    VMRebooted,
    /// a VM was put back onto its network's bridge
    VMReattached,
    /// a VM was shut down or turned off
    VMStopped,
    /// a VM's definition is gone
    VMDeleted,
    /// a node's disk was made
    VolumeCreated,
    /// a node's disk grew
    VolumeGrown,
    /// a node's disk is gone
    VolumeDeleted,
    /// a network was defined
    NetworkDefined,
    /// a network was started
    NetworkStarted,
    /// addresses that a network gives changed
    NetworkUpdated,
    /// a network was stopped
    NetworkStopped,
    /// a network's definition is gone
    NetworkDeleted,
    /// nobody else answers for the addresses of new nodes
    AddressesChecked,
    /// the pool of the disks was defined
    PoolDefined,
    /// the pool of the disks was started
    PoolStarted,
    /// the pool's definition is gone
    PoolDeleted,
    /// a file of a node image was copied into the pool
    ImageInstalled,
    /// a file of a node image was taken out of the pool
    ImageRemoved,
    /// a plugin was installed
    PluginInstalled,
    /// a plugin got another config
    PluginConfigured,
    /// a plugin got another version
    PluginUpgraded,
    /// a plugin got its revision before back
    PluginRolledBack,
    /// a plugin and its objects are gone
    PluginRemoved,
    /// a change of a plugin ended badly
    PluginFailed,
    /// an installed plugin is not ready any more
    PluginDegraded,
    /// an installed plugin is ready again
    PluginRecovered,
    /// somebody else's change of a plugin's object was undone
    PluginDriftCorrected,
    /// somebody changes a plugin's object again and again; it is left to them
    PluginFight,
    /// a plugin's program is not started any more
    PluginQuarantined,
    /// the permissions of a plugin were approved
    PluginApproved,
    /// another pod network took a node over, and its pods were restarted
    PodNetworkChanged,
    /// what plugins need of the nodes is something else
    NodeRequirementsChanged,
}

impl EventType {
    /// The type of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.as_str() == name)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// All names in one line.
pub fn names() -> String {
    EventType::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_type_with_its_meaning() {
        let page = include_str!("../../../docs/events.md");
        let section = page.split("\n## Every type\n").nth(1).expect("the page has the section");
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let row = |one: &EventType| format!("| `{one}` | {} |", one.meaning());
        assert_eq!(rows, EventType::ALL.iter().map(row).collect::<Vec<_>>());
    }

    #[test]
    fn every_name_leads_to_its_type() {
        for one in EventType::ALL {
            assert_eq!(EventType::find(one.as_str()), Some(*one));
        }
        assert_eq!(EventType::find("nodejoined"), None);
    }
}
