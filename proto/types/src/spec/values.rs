//! One string of the file at a time: names, sizes, addresses, networks, ranges, versions, suites.
//! Pure; where a value stands is the caller's knowledge.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::model::AddressRange;
use crate::suite::{self, SUITES, Suite};
use crate::version::KubernetesVersion;

/// Bytes of a MiB.
pub(super) const MIB: u64 = 1024 * 1024;
/// Bytes of a GiB.
pub(super) const GIB: u64 = 1024 * MIB;

/// Something wrong with one value.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) id: &'static str,
    pub(super) message: String,
    pub(super) hint: String,
    pub(super) warning: bool,
}

/// Everything wrong with one value.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn error(&mut self, id: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Fault { id, message: message.into(), hint: hint.into(), warning: false });
    }

    pub(super) fn warning(&mut self, id: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Fault { id, message: message.into(), hint: hint.into(), warning: true });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_inner(self) -> Vec<Fault> {
        self.0
    }
}

/// The user's text in a message: quoted, control characters visible, cut when long.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 64;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A DNS label (RFC 1123) of at most `longest` characters, refused under this id.
pub(super) fn label(text: &str, longest: usize, id: &'static str, faults: &mut Faults) -> Option<String> {
    let before = faults.0.len();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() {
        faults.error(id, "got an empty name, expected a DNS label", "give a name, \"home\"");
    } else if !text.chars().all(allowed) || text.starts_with('-') || text.ends_with('-') {
        let message = format!(
            "got {}, expected a DNS label: lower-case letters, digits and -, not first or last -",
            quoted(text)
        );
        faults.error(id, message, rename(text, longest));
    } else if text.len() > longest {
        let message = format!("got {} characters, expected at most {longest}", text.len());
        faults.error(id, message, rename(text, longest));
    } else if text == "localhost" {
        faults.error(id, "localhost is the name of every machine for itself", "take another name");
    }
    (faults.0.len() == before).then(|| text.to_owned())
}

/// A hint with the nearest name that is allowed.
fn rename(text: &str, longest: usize) -> String {
    let near: String = text
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(longest)
        .collect();
    match near.trim_matches('-') {
        "" => "take letters and digits, \"home\"".to_owned(),
        near => format!("{near:?} would do"),
    }
}

/// A libvirt network's name.
pub(super) fn network_name(text: &str, faults: &mut Faults) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 50
        && text.chars().all(allowed);
    if !good {
        let message = format!(
            "got {}, expected 1 to 50 letters, digits, - _ . beginning with a letter or digit",
            quoted(text)
        );
        faults.error(
            "SPEC-NAME",
            message,
            "`virsh net-list --all` shows the names; libvirt's own is \"default\"",
        );
    }
    good.then(|| text.to_owned())
}

/// A size with its unit, in bytes, whole MiB.
pub(super) fn size(text: &str, faults: &mut Faults) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim());
    if number.is_empty() || unit.starts_with(['.', ',', '_']) {
        let message = format!("got {}, expected a whole number with a unit", quoted(text));
        faults.error("SPEC-SIZE", message, "write it like \"8GiB\" or \"1536MiB\"");
        return None;
    }
    let factor = match unit {
        "KiB" => 1024,
        "MiB" => MIB,
        "GiB" => GIB,
        "TiB" => 1024 * GIB,
        _ => {
            let got =
                if unit.is_empty() { "no unit".to_owned() } else { format!("the unit {}", quoted(unit)) };
            let near = match unit.chars().next().map(|c| c.to_ascii_uppercase()) {
                Some(letter @ ('K' | 'M' | 'G' | 'T')) => format!("\"{number}{letter}iB\""),
                _ => format!("\"{number}MiB\" or \"{number}GiB\""),
            };
            let message = format!("got {got}, expected KiB, MiB, GiB or TiB");
            faults.error("SPEC-SIZE-UNIT", message, format!("write {near}"));
            return None;
        }
    };
    let Some(bytes) = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) else {
        let message = format!("{} is too large for any machine", quoted(text));
        faults.error("SPEC-SIZE", message, "write it like \"8GiB\"");
        return None;
    };
    if !bytes.is_multiple_of(MIB) {
        let message = format!("got {}, expected whole MiB", quoted(text));
        faults.error("SPEC-SIZE-WHOLE", message, format!("write \"{}MiB\"", bytes.div_ceil(MIB)));
        return None;
    }
    Some(bytes)
}

/// A size in the unit that a person would write.
pub(super) fn show_size(bytes: u64) -> String {
    if bytes.is_multiple_of(GIB) { format!("{}GiB", bytes / GIB) } else { format!("{}MiB", bytes / MIB) }
}

/// An IPv4 address.
pub(super) fn ip(text: &str, faults: &mut Faults) -> Option<Ipv4Addr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let message = format!("got {}, expected an IPv4 address", quoted(text));
        let hint = if text.contains('/') {
            "leave out the prefix: \"192.168.122.10\""
        } else {
            "four numbers from 0 to 255: \"192.168.122.10\""
        };
        faults.error("SPEC-IP", message, hint);
    }
    parsed
}

/// An IPv4 network whose prefix lies in these bounds.
pub(super) fn cidr(text: &str, prefixes: (u8, u8), faults: &mut Faults) -> Option<Ipv4Net> {
    let Ok(net) = text.parse::<Ipv4Net>() else {
        let message = format!("got {}, expected an IPv4 network", quoted(text));
        faults.error("SPEC-CIDR", message, "write address/prefix, \"192.168.122.0/24\"");
        return None;
    };
    let canonical = net.trunc();
    if canonical != net {
        let message = format!("{net} has bits set behind its prefix");
        faults.error("SPEC-CIDR-HOST-BITS", message, format!("write \"{canonical}\""));
    }
    let (shortest, longest) = prefixes;
    if !(shortest..=longest).contains(&net.prefix_len()) {
        let size = if net.prefix_len() < shortest { "large" } else { "small" };
        let message =
            format!("{net} is too {size}: got /{}, expected /{shortest} to /{longest}", net.prefix_len());
        let near = net.prefix_len().clamp(shortest, longest);
        faults.error("SPEC-CIDR-SIZE", message, format!("take a prefix like /{near}"));
        return None;
    }
    const UNUSABLE: [(&str, [u8; 4], u8); 5] = [
        ("this network", [0, 0, 0, 0], 8),
        ("loopback", [127, 0, 0, 0], 8),
        ("link-local", [169, 254, 0, 0], 16),
        ("multicast", [224, 0, 0, 0], 4),
        ("reserved", [240, 0, 0, 0], 4),
    ];
    const PRIVATE: [([u8; 4], u8); 4] =
        [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([100, 64, 0, 0], 10)];
    let holds =
        |address: [u8; 4], prefix| Ipv4Net::new_assert(Ipv4Addr::from(address), prefix).contains(&canonical);
    if let Some((name, ..)) = UNUSABLE.iter().find(|(_, address, prefix)| holds(*address, *prefix)) {
        let message = format!("{net} lies in the {name} range");
        faults.error("SPEC-CIDR-RESERVED", message, "take a private network, \"192.168.122.0/24\"");
        return None;
    }
    if !PRIVATE.iter().any(|(address, prefix)| holds(*address, *prefix)) {
        let message = format!("{net} is outside of the private ranges: its real owner is out of reach");
        let hint = "take one from 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16";
        faults.warning("SPEC-CIDR-PUBLIC", message, hint);
    }
    Some(canonical)
}

/// `FIRST-LAST`, both included.
pub(super) fn range(text: &str, faults: &mut Faults) -> Option<AddressRange> {
    let ends = text.split_once('-').and_then(|(first, last)| {
        Some((first.trim().parse::<Ipv4Addr>().ok()?, last.trim().parse::<Ipv4Addr>().ok()?))
    });
    let Some((first, last)) = ends else {
        let message = format!("got {}, expected FIRST-LAST with two IPv4 addresses", quoted(text));
        faults.error("SPEC-RANGE", message, "write it like \"192.168.122.100-192.168.122.150\"");
        return None;
    };
    if last < first {
        let message = format!("{first}-{last} ends before it begins");
        faults.error("SPEC-RANGE-REVERSED", message, format!("write \"{last}-{first}\""));
        return None;
    }
    Some(AddressRange { first, last })
}

/// A Kubernetes version that this program can install.
pub(super) fn kubernetes(text: &str, faults: &mut Faults) -> Option<KubernetesVersion> {
    let Ok(version) = text.parse::<KubernetesVersion>() else {
        let with_v = format!("v{text}");
        let hint = if with_v.parse::<KubernetesVersion>().is_ok() {
            format!("with a leading v: {with_v:?}")
        } else {
            "write it like \"v1.29.0\", or leave the key out for the newest bundle installed".to_owned()
        };
        let message = format!("got {}, expected a Kubernetes version", quoted(text));
        faults.error("SPEC-VERSION", message, hint);
        return None;
    };
    if version.minor() < 20 {
        let message = format!("{version} is too old: expected at least v1.20.0");
        faults.error("SPEC-VERSION-OLD", message, "take v1.20.0 or newer");
        return None;
    }
    Some(version)
}

/// A Debian or Ubuntu suite that images can be made of.
pub(super) fn suite(text: &str, faults: &mut Faults) -> Option<String> {
    if let Some(known) = Suite::find(text) {
        return Some(known.name.to_owned());
    }
    let near = SUITES
        .iter()
        .map(|suite| (distance(suite.name, &text.to_ascii_lowercase()), suite.name))
        .filter(|(distance, _)| *distance <= 2)
        .min();
    let hint = match near {
        Some((_, near)) => format!("did you mean {near:?}? There are {}", suite::names()),
        None => format!("take one of {}", suite::names()),
    };
    let message = format!("got {}, expected a suite that images can be made of", quoted(text));
    faults.error("SPEC-SUITE", message, hint);
    None
}

/// How far a word of ours and what was written are from each other; a long text is no slip of a short word.
pub(super) fn distance(ours: &str, written: &str) -> usize {
    const LONGEST: usize = 32;
    if written.len() > LONGEST { usize::MAX } else { strsim::damerau_levenshtein(ours, written) }
}
