//! Our metadata element on domains and networks, their mark: whose each is. Without it nothing is ours.
//!
//! Whoever copies a domain or a network copies its mark too, so that the mark also says on which object it was put.

use quick_xml::NsReader;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use serde::{Deserialize, Serialize};

use super::XmlError;

/// Namespace of our element.
pub const NAMESPACE: &str = "https://k8s-myhome.dev/libvirt/1";

/// Whose a domain or a network is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Id of the cluster.
    pub cluster_id: String,
    /// Id of the node; empty for networks.
    pub node_id: String,
    /// Spec generation of the last definition.
    pub generation: u64,
    /// The node's address; empty for networks.
    pub ip: String,
}

/// The element as it is written inside `<metadata>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Metadata {
    #[serde(rename = "k8s-myhome:owner")]
    owner: OwnerElement,
}

#[derive(Clone, Debug, Serialize)]
struct OwnerElement {
    #[serde(rename = "@xmlns:k8s-myhome")]
    namespace: &'static str,
    #[serde(rename = "@cluster")]
    cluster: String,
    #[serde(rename = "@node", skip_serializing_if = "String::is_empty")]
    node: String,
    #[serde(rename = "@generation")]
    generation: u64,
    #[serde(rename = "@ip", skip_serializing_if = "String::is_empty")]
    ip: String,
    #[serde(rename = "@object")]
    object: String,
}

impl Metadata {
    /// `object` is the domain's UUID or the network's name.
    pub(super) fn new(owner: &Owner, object: &str) -> Self {
        Self {
            owner: OwnerElement {
                namespace: NAMESPACE,
                cluster: owner.cluster_id.clone(),
                node: owner.node_id.clone(),
                generation: owner.generation,
                ip: owner.ip.clone(),
                object: object.to_owned(),
            },
        }
    }
}

/// Our element as it was read.
struct Mark {
    owner: Owner,
    /// On what it was put; `None` where it is of a version that did not say.
    object: Option<String>,
}

/// The owner out of a domain's or network's XML, if it is ours. `object` is the domain's UUID or the network's name as
/// libvirt has it: a copy, which has the mark of another one, is not ours.
pub fn owner_of(xml: &str, object: &str) -> Result<Option<Owner>, XmlError> {
    let mark = read_mark(xml)?.filter(|mark| mark.object.as_ref().is_none_or(|marked| marked == object));
    Ok(mark.map(|mark| mark.owner))
}

/// Our element, directly in the root's `<metadata>`, in our namespace under whatever prefix, with a cluster id.
/// Anything else is not ours.
fn read_mark(xml: &str) -> Result<Option<Mark>, XmlError> {
    let failed = |reason: String| XmlError::Read { what: "metadata", reason };
    let mut reader = NsReader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    loop {
        let (namespace, event) = reader.read_resolved_event().map_err(|error| failed(error.to_string()))?;
        let ours = matches!(namespace, ResolveResult::Bound(bound) if bound.0 == NAMESPACE);
        match event {
            Event::Start(element) => {
                if ours && is_owner(&path, &element) {
                    return attributes(&element).map_err(failed);
                }
                path.push(element.local_name().as_ref().to_owned());
            }
            Event::Empty(element) if ours && is_owner(&path, &element) => {
                return attributes(&element).map_err(failed);
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Eof => return Ok(None),
            _ => {}
        }
    }
}

fn is_owner(path: &[String], element: &BytesStart<'_>) -> bool {
    path.len() == 2 && path[1] == "metadata" && element.local_name().as_ref() == "owner"
}

fn attributes(element: &BytesStart<'_>) -> Result<Option<Mark>, String> {
    let (mut owner, mut object) = (Owner::default(), None);
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.value.clone().into_owned();
        match attribute.key.as_ref() {
            "cluster" => owner.cluster_id = value,
            "node" => owner.node_id = value,
            "ip" => owner.ip = value,
            "generation" => owner.generation = value.parse().unwrap_or_default(),
            "object" => object = Some(value),
            _ => {}
        }
    }
    Ok((!owner.cluster_id.is_empty()).then_some(Mark { owner, object }))
}

#[cfg(test)]
mod tests {
    use super::owner_of;

    #[test]
    fn only_our_namespace_at_its_place_counts() {
        let ours = r#"<domain><metadata><x:owner xmlns:x="https://k8s-myhome.dev/libvirt/1" cluster="c" node="n" generation="7" ip="10.0.0.2"/></metadata></domain>"#;
        let owner = owner_of(ours, "u").expect("it is XML").expect("it is ours");
        assert_eq!((owner.cluster_id.as_str(), owner.node_id.as_str(), owner.generation), ("c", "n", 7));

        for foreign in [
            r#"<domain><metadata><k8s-myhome:owner xmlns:k8s-myhome="https://example.org" cluster="c"/></metadata></domain>"#,
            r#"<domain><metadata><owner cluster="c"/></metadata></domain>"#,
            r#"<domain><description>cluster="c"</description></domain>"#,
            r#"<domain><devices><metadata><x:owner xmlns:x="https://k8s-myhome.dev/libvirt/1" cluster="c"/></metadata></devices></domain>"#,
            r#"<domain><metadata><x:owner xmlns:x="https://k8s-myhome.dev/libvirt/1" node="n"/></metadata></domain>"#,
        ] {
            assert_eq!(owner_of(foreign, "u").expect("it is XML"), None, "{foreign}");
        }
    }

    #[test]
    fn a_copy_is_not_ours() {
        let is_ours = |marked: &str, name: &str| {
            let xml = format!(
                r#"<network><metadata><x:owner xmlns:x="https://k8s-myhome.dev/libvirt/1" cluster="c" {marked}/></metadata></network>"#
            );
            owner_of(&xml, name).expect("it is XML").is_some()
        };
        assert!(is_ours("object='k8s'", "k8s"));
        assert!(!is_ours("object='k8s'", "k8s-copy"));
        assert!(!is_ours("object=''", "k8s"));
        // Of a version that did not say on what it was put.
        assert!(is_ours("", "k8s"));
    }
}
