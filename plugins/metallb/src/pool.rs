//! The addresses that Services get: those of the config, or else of the cluster file; in the nodes' network, and nobody
//! else's.

use plugin_sdk::{Diagnostic, Facts};

use crate::range::Range;

/// Most ranges of a pool.
pub(crate) const RANGES: usize = 16;

/// One range of a pool.
struct Part {
    /// Where it is in the config; empty: it is the cluster file's.
    at: String,
    text: String,
    range: Range,
}

/// The ranges as MetalLB takes them, and remarks on them.
pub(crate) fn pool(
    addresses: Option<&[String]>,
    facts: &Facts,
) -> Result<(Vec<String>, Vec<Diagnostic>), Vec<Diagnostic>> {
    let parts = match (addresses, &facts.load_balancer) {
        (Some(addresses), _) => of_config(addresses)?,
        (None, Some((first, last))) => of_cluster_file(first, last)?,
        (None, None) => {
            let hint = "addresses = [\"FIRST-LAST\"] here, or network.load_balancer in the cluster file";
            let mistake = Diagnostic::error("/addresses", "there is no pool of addresses", hint);
            return Err(vec![mistake.code("METALLB-POOL-MISSING")]);
        }
    };
    let mut mistakes = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        mistakes.extend(outside(part, facts));
        mistakes.extend(taken(part, facts));
        for before in parts[..index].iter().filter(|before| before.range.overlaps(part.range)) {
            mistakes.push(overlap(part, &format!("{} of the same pool", before.text)));
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let count: u64 = parts.iter().map(|part| part.range.count()).sum();
    let mut remarks = Vec::new();
    if count < 2 {
        let at = parts.first().map(|part| part.at.clone()).unwrap_or_default();
        let hint = "each Service of type LoadBalancer takes one";
        let remark = Diagnostic::warning(at, format!("the pool has {count} address"), hint);
        remarks.push(remark.code("METALLB-POOL-SMALL"));
    }
    Ok((parts.into_iter().map(|part| part.text).collect(), remarks))
}

fn of_config(addresses: &[String]) -> Result<Vec<Part>, Vec<Diagnostic>> {
    if addresses.is_empty() || addresses.len() > RANGES {
        let message = format!("{} ranges, expected 1 to {RANGES}", addresses.len());
        let hint = "leave it out for the pool of the cluster file, network.load_balancer";
        return Err(vec![Diagnostic::error("/addresses", message, hint).code("METALLB-POOL-FORMAT")]);
    }
    let (mut parts, mut mistakes) = (Vec::new(), Vec::new());
    for (index, text) in addresses.iter().enumerate() {
        let (at, text) = (format!("/addresses/{index}"), text.clone());
        match Range::parse(&text) {
            Ok(range) => parts.push(Part { at, text, range }),
            Err(why) => {
                let hint =
                    "FIRST-LAST, like 192.168.122.100-192.168.122.150, or a network, like 192.168.122.96/28";
                mistakes.push(Diagnostic::error(at, why, hint).code("METALLB-POOL-FORMAT"));
            }
        }
    }
    if mistakes.is_empty() { Ok(parts) } else { Err(mistakes) }
}

fn of_cluster_file(first: &str, last: &str) -> Result<Vec<Part>, Vec<Diagnostic>> {
    let text = format!("{first}-{last}");
    let range = Range::parse(&text).map_err(|why| {
        let mistake = Diagnostic::error("", why, "network.load_balancer in the cluster file is FIRST-LAST");
        vec![mistake.code("METALLB-POOL-FORMAT")]
    })?;
    Ok(vec![Part { at: String::new(), text, range }])
}

/// What to change: a pool is in one of two places.
fn hint(part: &Part) -> &'static str {
    if part.at.is_empty() {
        "change network.load_balancer in the cluster file, or name others as addresses"
    } else {
        "name addresses of the nodes' network that nobody else has"
    }
}

/// A pool that is not in the nodes' network is announced to nobody.
fn outside(part: &Part, facts: &Facts) -> Option<Diagnostic> {
    let network = Range::network(&facts.node_cidr)?.usable();
    let message = format!("{} is not in the nodes' network {}", part.text, facts.node_cidr);
    let mistake = Diagnostic::error(part.at.clone(), message, hint(part)).code("METALLB-POOL-OUTSIDE");
    (!network.contains(part.range)).then_some(mistake)
}

fn overlap(part: &Part, whose: &str) -> Diagnostic {
    let message = format!("{} overlaps with {whose}", part.text);
    Diagnostic::error(part.at.clone(), message, hint(part)).code("METALLB-POOL-OVERLAP")
}

/// Everybody whose address it has.
fn taken(part: &Part, facts: &Facts) -> Vec<Diagnostic> {
    let mut others = vec![(format!("the host's address {}", facts.gateway), Range::single(&facts.gateway))];
    for node in &facts.nodes {
        others.push((format!("node {} ({})", node.name, node.ip), Range::single(&node.ip)));
    }
    if let Some((first, last)) = &facts.dhcp {
        others.push((format!("DHCP's {first}-{last}"), Range::of(first, last)));
    }
    others.push((format!("the pods' network {}", facts.pod_cidr), Range::network(&facts.pod_cidr)));
    others
        .push((format!("the Services' network {}", facts.service_cidr), Range::network(&facts.service_cidr)));
    let taken = others.into_iter().filter(|(_, range)| range.is_some_and(|range| range.overlaps(part.range)));
    taken.map(|(whose, _)| overlap(part, &whose)).collect()
}
