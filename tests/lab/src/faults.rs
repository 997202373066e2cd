//! What the soak does to a cluster: kinds of faults, how soon each is to be over, and their order. Pure.
//!
//! The order comes from a seed, so that a run can be had again. Faults are dealt like cards: each of the deck once before
//! any comes twice, so that a run of some length has had them all, and no limit of the nodes' repairs is reached.

use std::fmt;
use std::time::Duration;

use crate::pace::Pace;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL for a node's agent.
    AgentKilled,
    /// `systemctl stop containerd`.
    ContainerdStopped,
    /// SIGSTOP for the kubelet.
    KubeletHangs,
    /// A VM without power.
    VmEnds,
    /// Nothing passes between the host and a node.
    LinkCut,
    /// A node shows another time.
    ClockJumps,
    /// A node without free disk.
    DiskFull,
    /// SIGTERM for libvirtd.
    LibvirtdEnds,
    /// SIGKILL for the host agent.
    HostAgentKilled,
    /// All VMs, libvirt and the host agent at once.
    HostReboots,
}

/// How soon a fault is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// After it, or, where somebody must undo it, after that.
    Seconds(u64),
    /// In clean boots of the same VM.
    Boots(f64),
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::AgentKilled,
        Self::ContainerdStopped,
        Self::KubeletHangs,
        Self::VmEnds,
        Self::LinkCut,
        Self::ClockJumps,
        Self::DiskFull,
        Self::LibvirtdEnds,
        Self::HostAgentKilled,
        Self::HostReboots,
    ];
    /// Those that are over in less than a boot.
    pub const QUICK: [Self; 7] = [
        Self::AgentKilled,
        Self::ContainerdStopped,
        Self::KubeletHangs,
        Self::ClockJumps,
        Self::DiskFull,
        Self::LibvirtdEnds,
        Self::HostAgentKilled,
    ];

    /// As `docs/reliability.md` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentKilled => "a node's agent is killed",
            Self::ContainerdStopped => "containerd is stopped",
            Self::KubeletHangs => "the kubelet hangs",
            Self::VmEnds => "a VM ends",
            Self::LinkCut => "the network between the host and a node is cut",
            Self::ClockJumps => "a node's clock jumps",
            Self::DiskFull => "a node's disk is full",
            Self::LibvirtdEnds => "libvirtd ends",
            Self::HostAgentKilled => "the host agent is killed",
            Self::HostReboots => "the host is rebooted",
        }
    }

    /// As `docs/reliability.md` promises it.
    pub fn bound(self) -> Bound {
        match self {
            Self::AgentKilled | Self::HostAgentKilled => Bound::Seconds(10),
            Self::ContainerdStopped | Self::LinkCut | Self::LibvirtdEnds => Bound::Seconds(15),
            Self::KubeletHangs | Self::ClockJumps => Bound::Seconds(60),
            Self::DiskFull => Bound::Seconds(90),
            Self::VmEnds | Self::HostReboots => Bound::Boots(1.5),
        }
    }

    /// Whether it happens to a node, and not to the host.
    pub fn is_of_node(self) -> bool {
        !matches!(self, Self::LibvirtdEnds | Self::HostAgentKilled | Self::HostReboots)
    }

    /// How long it may take on a machine of this pace, on which a clean boot of what is to boot takes so long.
    pub fn deadline(self, pace: Pace, boot: Duration) -> Duration {
        match self.bound() {
            Bound::Seconds(seconds) => pace.allow(Duration::from_secs(seconds)),
            Bound::Boots(times) => boot.mul_f64(times),
        }
    }
}

/// A fault that is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub fault: Fault,
    /// To which of the nodes; `None` means: to the host.
    pub node: Option<usize>,
    /// How much of it, where there is more or less of it.
    pub size: u64,
}

impl Planned {
    /// A number of `from..=to`, always the same of the same fault.
    pub fn between(self, from: u64, to: u64) -> u64 {
        from + self.size % (to - from + 1)
    }
}

/// All faults of a run, without end.
#[derive(Clone, Debug)]
pub struct Deck {
    random: Random,
    all: Vec<Planned>,
    left: Vec<Planned>,
}

impl Deck {
    /// These faults, each to each of so many nodes, in the order that the seed gives.
    pub fn new(seed: u64, faults: &[Fault], nodes: usize) -> Self {
        let cards = |fault: Fault| -> Vec<Planned> {
            let all: Vec<Option<usize>> =
                if fault.is_of_node() { (0..nodes).map(Some).collect() } else { vec![None] };
            all.into_iter().map(|node| Planned { fault, node, size: 0 }).collect()
        };
        let all = faults.iter().copied().flat_map(cards).collect();
        Self { random: Random(seed), all, left: Vec::new() }
    }
}

impl Iterator for Deck {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
        }
        let count = u64::try_from(self.left.len()).ok().filter(|count| *count > 0)?;
        let place = usize::try_from(self.random.draw() % count).unwrap_or_default();
        Some(Planned { size: self.random.draw(), ..self.left.swap_remove(place) })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds} s"),
            Self::Boots(times) => write!(f, "{times} × its clean boot"),
        }
    }
}

/// SplitMix64: whatever is built from it stays the same with every release of every library.
#[derive(Clone, Copy, Debug)]
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/reliability.md");

    #[test]
    fn the_page_promises_what_the_soak_judges_by() {
        for fault in Fault::ALL {
            let row = format!("| {} | {}", fault.name(), fault.bound());
            assert!(PAGE.lines().any(|line| line.starts_with(&row)), "docs/reliability.md has no row {row}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_faults_again_and_another_one_others() {
        let run = |seed| Deck::new(seed, &Fault::ALL, 3).take(60).collect::<Vec<_>>();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn every_fault_comes_to_every_node_before_any_comes_again() {
        let mut deck = Deck::new(7, &Fault::ALL, 3);
        let size = 7 * 3 + 3;
        for _ in 0..4 {
            let dealt: Vec<Planned> = deck.by_ref().take(size).collect();
            for fault in Fault::ALL {
                let nodes = dealt.iter().filter(|it| it.fault == fault).map(|it| it.node);
                let mut nodes: Vec<_> = nodes.collect();
                nodes.sort_unstable();
                let expected = if fault.is_of_node() { vec![Some(0), Some(1), Some(2)] } else { vec![None] };
                assert_eq!(nodes, expected, "{fault:?}");
            }
        }
    }

    #[test]
    fn a_size_is_within_its_bounds() {
        let sizes = Deck::new(3, &Fault::QUICK, 1).take(200).map(|it| it.between(10, 20));
        let sizes: Vec<u64> = sizes.collect();
        assert!(sizes.iter().all(|size| (10..=20).contains(size)));
        assert!(sizes.contains(&10) && sizes.contains(&20), "{sizes:?}");
    }

    #[test]
    fn a_slow_machine_has_longer_and_a_boot_is_its_own_measure() {
        let pace = Pace::of_boot(Duration::from_secs(60));
        let deadline = |fault: Fault| fault.deadline(pace, Duration::from_secs(200));
        assert_eq!(deadline(Fault::ContainerdStopped), Duration::from_secs(30));
        assert_eq!(deadline(Fault::VmEnds), Duration::from_secs(300));
    }
}
