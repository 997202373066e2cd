//! Reading libvirt's documents of what is ours. What goes away meanwhile is left out.

use virt::connect::Connect;

use super::error::{Context, Result};
use crate::documents::{Document, Wanted};
use crate::xml::owner::owner_of;

pub(super) fn documents_impl(connect: &Connect, wanted: &Wanted) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    let is_ours = |xml: &str, object: &str| matches!(owner_of(xml, object), Ok(Some(owner)) if wanted.clusters.contains(&owner.cluster_id));
    for domain in connect.list_all_domains(0).call("list", "domains of", "libvirt")? {
        if let (Ok(name), Ok(uuid), Ok(xml)) = (domain.name(), domain.uuid(), domain.xml_desc(0))
            && is_ours(&xml, &uuid.to_string())
        {
            documents.push(Document { kind: "domain", name, xml });
        }
    }
    for network in connect.list_all_networks(0).call("list", "networks of", "libvirt")? {
        if let (Ok(name), Ok(xml)) = (network.name(), network.xml_desc(0))
            && (wanted.networks.contains(&name) || is_ours(&xml, &name))
        {
            documents.push(Document { kind: "network", name, xml });
        }
    }
    if let Ok(pool) = connect.lookup_storage_pool_by_name(&wanted.pool)
        && let Ok(xml) = pool.xml_desc(0)
    {
        documents.push(Document { kind: "pool", name: wanted.pool.clone(), xml });
    }
    Ok(documents)
}
