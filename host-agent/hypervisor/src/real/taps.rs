//! The host's ends of VMs' interfaces: on which bridge each is, and putting one there.
//!
//! libvirt itself does that when it starts a VM or when its daemon starts, but not when a network that was
//! stopped under a running VM starts again. Asked is `ip`, which answers for the network namespace that it
//! runs in. /sys may show another one: it is read where `ip` does not answer, and only links that are here, too, count.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use k8sctl_command::{CommandError, Program};
use nix::net::if_::if_nametoindex;
use serde::Deserialize;

use super::error::{LibvirtError, Result};
use crate::change::Outcome;
use crate::observed::ObservedDomain;

const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// One of the host's links.
#[derive(Deserialize)]
struct Link {
    ifname: String,
    #[serde(default)]
    master: Option<String>,
}

/// Masters by link; a link on no bridge has none.
type Masters = BTreeMap<String, Option<String>>;

async fn ip(args: &[&str]) -> std::result::Result<String, CommandError> {
    Program::new("ip", COMMAND_DEADLINE).args(args.iter().copied()).run().await
}

async fn masters() -> std::result::Result<Masters, CommandError> {
    let told = match ip(&["-j", "link", "show"]).await {
        Ok(text) => parse(&text),
        // There is none.
        Err(CommandError::Start { .. }) => None,
        Err(error) => return Err(error),
    };
    let index = |name: &str| if_nametoindex(name).ok();
    Ok(told.unwrap_or_else(|| masters_in(Path::new("/sys/class/net"), index)))
}

/// The documents of `ip -j link show`; `None` of another `ip` that writes no JSON.
fn parse(text: &str) -> Option<Masters> {
    let links: Vec<Link> = serde_json::from_str(text).ok()?;
    Some(links.into_iter().map(|link| (link.ifname, link.master)).collect())
}

/// The links in a `/sys/class/net` that have the index that `index_here` gives for their name.
fn masters_in(net: &Path, index_here: impl Fn(&str) -> Option<u32>) -> Masters {
    let name_of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let link = |entry: fs::DirEntry| {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let index: u32 = fs::read_to_string(path.join("ifindex")).ok()?.trim().parse().ok()?;
        let master = fs::read_link(path.join("master")).ok().and_then(|master| name_of(&master));
        (index_here(&name)? == index).then_some((name, master))
    };
    fs::read_dir(net).into_iter().flatten().flatten().filter_map(link).collect()
}

/// Adds where the ends are that libvirt has told. Ends that the host does not have are left out, and so are
/// those of strangers, and all of them where nobody can be asked: what is not seen is not changed.
pub(super) async fn observe_masters(domains: &mut [ObservedDomain]) {
    let is_asked = |domain: &ObservedDomain| domain.ours.is_some() && !domain.taps.is_empty();
    let mut found = Masters::new();
    if domains.iter().any(is_asked) {
        found = masters().await.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "cannot see on which bridges VMs are");
            Masters::new()
        });
    }
    for domain in domains {
        let ours = domain.ours.is_some();
        domain.taps.retain_mut(|tap| match found.get(&tap.device) {
            Some(master) if ours => {
                tap.master.clone_from(master);
                true
            }
            _ => false,
        });
    }
}

/// A link that is gone went with its VM; the next start makes another one in its place.
pub(super) async fn execute_attach(device: &str, bridge: &str) -> Result<Outcome> {
    let failed = |source| LibvirtError::Tap { device: device.to_owned(), bridge: bridge.to_owned(), source };
    match masters().await.map_err(failed)?.get(device) {
        None => Ok(Outcome::AlreadySo),
        Some(Some(master)) if master == bridge => Ok(Outcome::AlreadySo),
        Some(_) => {
            ip(&["link", "set", "dev", device, "master", bridge, "up"]).await.map_err(failed)?;
            Ok(Outcome::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::namespace;
    use super::*;
    use crate::observed::ObservedTap;
    use crate::xml::owner::Owner;

    fn domain(ours: Option<Owner>, devices: &[&str]) -> ObservedDomain {
        let tap = |device: &&str| ObservedTap {
            device: (*device).to_owned(),
            network: "default".into(),
            master: None,
        };
        ObservedDomain { ours, taps: devices.iter().map(tap).collect(), ..ObservedDomain::default() }
    }

    #[tokio::test]
    async fn an_end_is_seen_and_put_onto_its_bridge() {
        if namespace::has_run_inside("real::taps::tests::an_end_is_seen_and_put_onto_its_bridge").await {
            return;
        }
        for link in [
            &["link", "add", "br-test", "type", "bridge"][..],
            &["link", "add", "br-other", "type", "bridge"],
            &["link", "add", "vnet0", "type", "veth", "peer", "name", "vnet1"],
            &["link", "set", "vnet1", "master", "br-other"],
        ] {
            ip(link).await.expect("a namespace takes links");
        }
        let mut domains =
            [domain(Some(Owner::default()), &["vnet0", "vnet1", "no-such-link"]), domain(None, &["vnet0"])];
        observe_masters(&mut domains).await;
        let masters = |domain: &ObservedDomain| -> Vec<_> {
            domain.taps.iter().map(|tap| (tap.device.clone(), tap.master.clone())).collect()
        };
        let on = |bridge: &str| Some(bridge.to_owned());
        assert_eq!(masters(&domains[0]), [("vnet0".to_owned(), None), ("vnet1".to_owned(), on("br-other"))]);
        assert_eq!(masters(&domains[1]), [], "nobody looks at strangers");

        for device in ["vnet0", "vnet1"] {
            assert_eq!(execute_attach(device, "br-test").await.expect("it can be"), Outcome::Done);
            assert_eq!(execute_attach(device, "br-test").await.expect("it is so"), Outcome::AlreadySo);
        }
        observe_masters(&mut domains).await;
        assert!(domains[0].taps.iter().all(|tap| tap.master == on("br-test")), "{:?}", domains[0].taps);
        let up = ip(&["link", "show", "up"]).await.expect("it can be asked");
        assert!(up.contains("vnet0") && up.contains("vnet1"), "{up}");

        assert_eq!(execute_attach("no-such-link", "br-test").await.expect("it is gone"), Outcome::AlreadySo);
        let failed = execute_attach("vnet0", "no-such-bridge").await.expect_err("there is none");
        assert_eq!(k8sctl_types::failure::Failure::from(failed).id, "HOST-LINK-FAILED");
    }

    #[test]
    fn links_are_read_as_ip_tells_them() {
        let text = r#"[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK"]},
                       {"ifindex":7,"ifname":"vnet0","flags":["UP"],"mtu":1500,"master":"virbr0"}]"#;
        let seen = parse(text).expect("it is JSON");
        assert_eq!(seen.get("vnet0"), Some(&Some("virbr0".to_owned())));
        assert_eq!((seen.get("lo"), seen.get("vnet1")), (Some(&None), None));
        assert_eq!(parse("1: lo: <LOOPBACK,UP> mtu 65536"), None, "of a busybox");
    }

    #[test]
    fn without_ip_links_of_this_namespace_are_found_in_sys() {
        let sys = tempfile::tempdir().expect("a directory");
        for (name, index, master) in [
            ("virbr0", 5, None),
            ("vnet0", 7, Some("../virbr0")),
            ("vnet1", 8, None),
            ("vnet2", 9, Some("../virbr0")),
            ("elsewhere", 10, Some("../virbr0")),
        ] {
            let link = sys.path().join(name);
            fs::create_dir(&link).expect("a directory");
            fs::write(link.join("ifindex"), format!("{index}\n")).expect("writes");
            if let Some(master) = master {
                std::os::unix::fs::symlink(master, link.join("master")).expect("a link");
            }
        }
        fs::write(sys.path().join("bonding_masters"), "").expect("writes");
        let index_here = |name: &str| match name {
            "virbr0" => Some(5),
            "vnet0" => Some(7),
            "vnet1" => Some(8),
            // Another link of that name.
            "vnet2" => Some(99),
            _ => None,
        };
        let found: Vec<_> = masters_in(sys.path(), index_here).into_iter().collect();
        let link = |name: &str, master: Option<&str>| (name.to_owned(), master.map(str::to_owned));
        assert_eq!(found, [link("virbr0", None), link("vnet0", Some("virbr0")), link("vnet1", None)]);
    }
}
