//! Reads the one cluster and user of a kubeconfig that the host made. `Debug` shows no key.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Credentials and server of a kubeconfig, with everything embedded.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// `https://192.168.122.10:6443`
    pub server: String,
    /// Certificates of the cluster's CA.
    pub ca_pem: Vec<u8>,
    /// The user's certificate.
    pub certificate_pem: Vec<u8>,
    /// The user's key.
    pub key_pem: Vec<u8>,
}

/// The text is no such kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// Not YAML of this shape.
    #[error("it is no kubeconfig")]
    Shape(#[source] serde_yaml_ng::Error),
    /// A list is empty.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// Bytes that are not base64.
    #[error("its {0} is no base64")]
    Base64(&'static str),
}

#[derive(Deserialize)]
struct File {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Kubeconfig {
    /// Reads YAML or JSON.
    pub fn parse(text: &[u8]) -> Result<Self, KubeconfigError> {
        let file: File = serde_yaml_ng::from_slice(text).map_err(KubeconfigError::Shape)?;
        let cluster = file.clusters.into_iter().next().ok_or(KubeconfigError::Missing("cluster"))?.cluster;
        let user = file.users.into_iter().next().ok_or(KubeconfigError::Missing("user"))?.user;
        let bytes = |name, text: Option<String>| {
            let text = text.ok_or(KubeconfigError::Missing(name))?;
            STANDARD.decode(text.trim()).map_err(|_| KubeconfigError::Base64(name))
        };
        Ok(Self {
            server: cluster.server,
            ca_pem: bytes("certificate-authority-data", cluster.certificate_authority_data)?,
            certificate_pem: bytes("client-certificate-data", user.client_certificate_data)?,
            key_pem: bytes("client-key-data", user.client_key_data)?,
        })
    }

    /// The kubelet's kubeconfig with its certificate in a file, which the kubelet replaces when it rotates it.
    pub fn with_certificate_file(&self, path: &str) -> Vec<u8> {
        let file = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "kubernetes", "cluster": {
                "server": self.server,
                "certificate-authority-data": STANDARD.encode(&self.ca_pem),
            }}],
            "users": [{"name": "kubelet", "user": {"client-certificate": path, "client-key": path}}],
            "contexts": [{"name": "kubelet", "context": {"cluster": "kubernetes", "user": "kubelet"}}],
            "current-context": "kubelet",
        });
        serde_yaml_ng::to_string(&file).expect("JSON values are YAML").into_bytes()
    }
}

impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubeconfig").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A kubeconfig with these parts, for tests.
#[cfg(test)]
pub fn example(certificate: &str, key: &str) -> Vec<u8> {
    let encode = |text: &str| STANDARD.encode(text);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: https://192.168.122.10:6443\n    \
         certificate-authority-data: {}\nusers:\n- name: u\n  user:\n    client-certificate-data: {}\n    \
         client-key-data: {}\n",
        encode("CA"),
        encode(certificate),
        encode(key)
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_credentials_are_read() {
        let kubeconfig = Kubeconfig::parse(&example("CERT", "KEY")).expect("a kubeconfig");
        assert_eq!(kubeconfig.server, "https://192.168.122.10:6443");
        assert_eq!((kubeconfig.ca_pem.as_slice(), kubeconfig.key_pem.as_slice()), (&b"CA"[..], &b"KEY"[..]));
        assert!(!format!("{kubeconfig:?}").contains("75, 69"));
    }

    #[test]
    fn the_file_form_refers_to_the_file() {
        let kubeconfig = Kubeconfig::parse(&example("CERT", "KEY")).expect("a kubeconfig");
        let text = String::from_utf8(kubeconfig.with_certificate_file("/x.pem")).expect("text");
        assert!(text.contains("client-certificate: /x.pem") && !text.contains("client-key-data"), "{text}");
        let error = Kubeconfig::parse(text.as_bytes()).expect_err("nothing embedded");
        assert_eq!(error.to_string(), "it has no client-certificate-data");
    }
}
