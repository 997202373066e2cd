//! The proof of the join secret: an HMAC over this TLS session, this node and this key.
//!
//! Pure. The host agent's side lives in its own crate and is tested against the same vector.

use aws_lc_rs::{digest, hmac};

/// Keeps this MAC apart from every other use of the secret.
const LABEL: &[u8] = b"k8sctl-join-v1";

/// `HMAC-SHA256(secret, LABEL || exporter || node_id || SHA-256(csr))`.
pub fn mac(secret: &[u8], exporter: &[u8], node_id: &str, csr_der: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(LABEL);
    context.update(exporter);
    context.update(node_id.as_bytes());
    context.update(digest::digest(&digest::SHA256, csr_der).as_ref());
    context.sign().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let base = mac(&[1; 32], &[2; 32], "n", b"csr");
        assert_eq!(base.len(), 32);
        assert_eq!(base, mac(&[1; 32], &[2; 32], "n", b"csr"));
        for other in [
            mac(&[9; 32], &[2; 32], "n", b"csr"),
            mac(&[1; 32], &[9; 32], "n", b"csr"),
            mac(&[1; 32], &[2; 32], "m", b"csr"),
            mac(&[1; 32], &[2; 32], "n", b"rsc"),
        ] {
            assert_ne!(base, other);
        }
    }
}
