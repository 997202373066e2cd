//! Values that only nodes have: roles, MAC addresses, labels and taints. Pure.

use super::model::Role;
use super::values::{Faults, quoted};
use crate::node_label;

/// First byte of the addresses that libvirt gives to tap devices: it starts no VM that has one of its own.
const HOST_END: u8 = 0xfe;

/// A role.
pub(super) fn role(text: &str, faults: &mut Faults) -> Option<Role> {
    match text {
        "control-plane" => return Some(Role::ControlPlane),
        "worker" => return Some(Role::Worker),
        _ => {}
    }
    let plain: String = text.to_ascii_lowercase().chars().filter(char::is_ascii_alphabetic).collect();
    let hint = if matches!(plain.as_str(), "master" | "controlplane" | "control" | "server" | "cp") {
        "write \"control-plane\""
    } else if matches!(plain.as_str(), "node" | "agent" | "workers" | "minion" | "worker") {
        "write \"worker\""
    } else {
        "write \"control-plane\" or \"worker\""
    };
    let message = format!("got {}, expected control-plane or worker", quoted(text));
    faults.error("SPEC-ROLE", message, hint);
    None
}

/// A unicast MAC address, in lower case.
pub(super) fn mac(text: &str, faults: &mut Faults) -> Option<String> {
    let octet = |part: &str| {
        (part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))
            .then(|| u8::from_str_radix(part, 16).ok())
            .flatten()
    };
    let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
    let Some(octets) = octets.filter(|octets| octets.len() == 6) else {
        let message = format!("got {}, expected six hex pairs with colons", quoted(text));
        faults.error("SPEC-MAC", message, "write it like \"52:54:00:12:34:56\", or leave it out");
        return None;
    };
    let (id, fault) = if octets[0] & 1 == 1 {
        ("SPEC-MAC-MULTICAST", "is a multicast address: the first byte is odd; expected a unicast address")
    } else if octets.iter().all(|octet| *octet == 0) {
        ("SPEC-MAC-MULTICAST", "is all zeros; expected a unicast address")
    } else if octets[0] == HOST_END {
        ("SPEC-MAC-RESERVED", "begins with fe: libvirt has those for the host's ends of the VMs' interfaces")
    } else {
        return Some(text.to_ascii_lowercase());
    };
    faults.error(id, format!("{text} {fault}"), "begin with 52:54:00, or leave it out");
    None
}

/// Reports what is wrong with one label.
pub(super) fn check_label(key: &str, value: &str, faults: &mut Faults) {
    if let Err(why) = qualified_name(key) {
        let message = format!("the label key {} {why}", quoted(key));
        faults.error("SPEC-LABEL", message, "write NAME or DOMAIN/NAME, \"example.com/zone\"");
    } else if node_label::is_given(key) {
        let message = format!("a node has {} in any case, from its machine or its role", quoted(key));
        faults.error(
            "SPEC-LABEL-RESERVED",
            message,
            "leave it out, or take a key of your own, \"example.com/role\"",
        );
    } else if value.is_empty() && node_label::needs_value(key) {
        let message = format!("the label {} has no value: the kubelet would remove it", quoted(key));
        faults.error("SPEC-LABEL", message, "write a value, or leave the label out");
    }
    if let Err(why) = label_value(value) {
        let message = format!("the label value {} {why}", quoted(value));
        faults.error("SPEC-LABEL", message, "letters, digits, - _ . in the middle, at most 63");
    }
}

/// A taint as `key=value:Effect` or `key:Effect`.
pub(super) fn taint(text: &str, faults: &mut Faults) -> Option<String> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let before = faults.is_empty();
    let (name, effect) = text.rsplit_once(':').unwrap_or((text, ""));
    let (key, value) = name.split_once('=').unwrap_or((name, ""));
    if !EFFECTS.contains(&effect) {
        let got =
            if effect.is_empty() { "no effect".to_owned() } else { format!("effect {}", quoted(effect)) };
        let near =
            EFFECTS.iter().find(|known| known.eq_ignore_ascii_case(effect)).copied().unwrap_or("NoSchedule");
        let message = format!(
            "got {got} in {}, expected key=value:Effect with NoSchedule, PreferNoSchedule or NoExecute",
            quoted(text)
        );
        let name = if key.is_empty() { "key=value" } else { name };
        faults.error("SPEC-TAINT", message, format!("write {}", quoted(&format!("{name}:{near}"))));
    }
    if let Err(why) = qualified_name(key) {
        let message = format!("the taint key {} {why}", quoted(key));
        faults.error("SPEC-TAINT", message, "write it like \"dedicated=db:NoSchedule\"");
    }
    if let Err(why) = label_value(value) {
        let message = format!("the taint value {} {why}", quoted(value));
        faults.error("SPEC-TAINT", message, "write it like \"dedicated=db:NoSchedule\"");
    }
    (before && faults.is_empty()).then(|| text.to_owned())
}

/// Key and effect: what a node may have only once.
pub(super) fn taint_identity(taint: &str) -> (&str, &str) {
    let (name, effect) = taint.rsplit_once(':').unwrap_or((taint, ""));
    (name.split('=').next().unwrap_or(name), effect)
}

/// `[DOMAIN/]NAME` as Kubernetes has it.
fn qualified_name(key: &str) -> Result<(), &'static str> {
    let (domain, name) = match key.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, key),
    };
    if let Some(domain) = domain {
        let part = |part: &str| {
            !part.is_empty()
                && part.len() <= 63
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        if domain.len() > 253 || !domain.split('.').all(part) {
            return Err("has no DNS name before its /");
        }
    }
    if name.is_empty() {
        return Err("is empty");
    }
    label_value(name)
}

/// A label's value or the name in its key; may be empty.
fn label_value(value: &str) -> Result<(), &'static str> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.len() > 63 {
        Err("is longer than 63 characters")
    } else if !value.chars().all(inner) {
        Err("holds a character other than letters, digits, - _ .")
    } else if value.starts_with(['-', '_', '.']) || value.ends_with(['-', '_', '.']) {
        Err("does not begin and end with a letter or digit")
    } else {
        Ok(())
    }
}
