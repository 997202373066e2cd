//! The pure decision on one attempt to join. It touches no clock, no database and no key.

use jiff::Timestamp;

/// What the table knows of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Cluster of the node.
    pub cluster_id: String,
    /// DMI UUID of the VM that the secret was given to.
    pub machine_uuid: String,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// When it ends.
    pub expires: Timestamp,
    /// How far it is used.
    pub state: TokenState,
}

/// How far a token is used. It only ever moves down this list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// Not at all.
    Unused,
    /// Given to one request.
    Burned(Grant),
    /// The node came in with its certificate: nothing more is given.
    Closed,
}

/// What a burned token was given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// SHA-256 of the request.
    pub csr_hash: [u8; 32],
    /// Serial of its certificate.
    pub serial: [u8; 16],
    /// Time of its certificate.
    pub issued: Timestamp,
    /// The certificate, once it was signed and stored.
    pub certificate: Option<Vec<u8>>,
}

/// One attempt, with everything checked that needs more than the record.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The node was removed.
    pub revoked: bool,
    /// SHA-256 of the secret that the proof was checked with. `None` means that this process gave out no secret, or
    /// that the proof is wrong.
    pub proven: Option<[u8; 32]>,
    /// DMI UUID that the peer names.
    pub machine_uuid: String,
    /// Our VM for this node has that UUID and runs.
    pub machine_running: bool,
    /// SHA-256 of the request; `None` means that the request is unusable.
    pub csr_hash: Option<[u8; 32]>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Burn the token for this request, then sign.
    Burn,
    /// The token was burned for this request, but nothing was stored: sign with this serial and time.
    Finish(Grant),
    /// Give this certificate again.
    Again(Vec<u8>, Timestamp),
    /// Give nothing.
    Refuse(Refusal),
}

/// Why an attempt is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many attempts from this address, or of this node.
    #[error("too many attempts")]
    Rate,
    /// Another protocol.
    #[error("the node agent speaks another join protocol")]
    Protocol,
    /// The node was removed.
    #[error("the node was removed from its cluster")]
    Removed,
    /// There is no secret for this node, or the proof is not of it, not of this session or not of this request.
    #[error("the proof does not match a current join secret and this connection")]
    Proof,
    /// The secret is too old.
    #[error("the join secret is older than ten minutes")]
    Expired,
    /// The VM is another one, or does not run.
    #[error("the machine is not the running VM that the secret was given to")]
    Machine,
    /// The request is unusable.
    #[error("the certificate request is unusable")]
    Csr,
    /// The secret was used by another key.
    #[error("the join secret was already used with another key")]
    OtherKey,
    /// The secret was used, and the node is in.
    #[error("the join secret was already used and the node has joined")]
    Used,
}

impl Refusal {
    /// Whether the secret was right and yet used a second time: somebody knows it who should not.
    pub fn is_second_use(self) -> bool {
        matches!(self, Self::OtherKey | Self::Used)
    }
}

/// Decides on one attempt. Refusals never change the record.
pub fn decide_join(record: Option<&TokenRecord>, attempt: &Attempt, now: Timestamp) -> Decision {
    let refuse = Decision::Refuse;
    if attempt.revoked {
        return refuse(Refusal::Removed);
    }
    let (Some(record), Some(proven)) = (record, attempt.proven) else {
        return refuse(Refusal::Proof);
    };
    // Between the check of the proof and now another secret may have been given out.
    if proven != record.secret_hash {
        return refuse(Refusal::Proof);
    }
    if now >= record.expires {
        return refuse(Refusal::Expired);
    }
    if !attempt.machine_running || !attempt.machine_uuid.eq_ignore_ascii_case(&record.machine_uuid) {
        return refuse(Refusal::Machine);
    }
    let Some(csr_hash) = attempt.csr_hash else {
        return refuse(Refusal::Csr);
    };
    match &record.state {
        TokenState::Unused => Decision::Burn,
        TokenState::Burned(grant) if grant.csr_hash != csr_hash => refuse(Refusal::OtherKey),
        TokenState::Burned(Grant { certificate: Some(certificate), issued, .. }) => {
            Decision::Again(certificate.clone(), *issued)
        }
        TokenState::Burned(grant) => Decision::Finish(grant.clone()),
        TokenState::Closed => refuse(Refusal::Used),
    }
}
