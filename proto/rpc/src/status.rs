//! [`Failure`] to and from [`Status`]. The only place that makes a status: whatever a service refuses or fails,
//! the caller gets a stable id, the object, the reason and the next step.

use k8sctl_types::failure::Failure;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Metadata key that carries the failure as JSON.
const KEY: &str = "k8sctl-failure-bin";
/// Longest JSON; as base64 it must leave room in [`crate::limits::HEADER_LIST_BYTES`].
const JSON_BYTES: usize = 8 * 1024;
/// Longest single field other than evidence, and longest message, in bytes.
const FIELD_BYTES: usize = 1024;

/// The status that carries a failure. Long texts are cut so that it always fits into the headers; of evidence
/// the end is kept.
#[expect(clippy::disallowed_methods, reason = "the one place that makes a status")]
pub fn status(code: Code, failure: &Failure) -> Status {
    let mut carried = Failure {
        id: head(&failure.id, 64).to_owned(),
        object: head(&failure.object, 256).to_owned(),
        reason: head(&failure.reason, FIELD_BYTES).to_owned(),
        next_step: head(&failure.next_step, FIELD_BYTES).to_owned(),
        evidence: tail(&failure.evidence, JSON_BYTES).to_owned(),
    };
    let mut json = encode(&carried);
    while json.len() > JSON_BYTES && !carried.evidence.is_empty() {
        // Escapes make the JSON longer than the text, so the cut is found in steps.
        carried.evidence = tail(&carried.evidence, carried.evidence.len() / 2).to_owned();
        json = encode(&carried);
    }
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(KEY, MetadataValue::from_bytes(&json));
    Status::with_metadata(code, head(&carried.to_string(), FIELD_BYTES), metadata)
}

/// The failure that a status carries; `None` means that the peer is no program of ours, or that the status was
/// made by the transport.
pub fn failure_from(status: &Status) -> Option<Failure> {
    let bytes = status.metadata().get_bin(KEY)?.to_bytes().ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn encode(failure: &Failure) -> Vec<u8> {
    serde_json::to_vec(failure).expect("five strings become JSON")
}

fn head(text: &str, limit: usize) -> &str {
    &text[..(0..=limit.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0)]
}

fn tail(text: &str, limit: usize) -> &str {
    let begin = text.len().saturating_sub(limit);
    &text[(begin..=text.len()).find(|&begin| text.is_char_boundary(begin)).unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_back_whole() {
        let failure =
            Failure::new("NODE-SILENT", "node ä", "no report for 30 s", "look at it").with_evidence("x\ny");
        let status = status(Code::Unavailable, &failure);
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "NODE-SILENT: node ä: no report for 30 s");
        assert_eq!(failure_from(&status), Some(failure));
    }

    #[test]
    fn a_long_failure_fits_and_keeps_the_end_of_its_evidence() {
        let evidence = format!("{}THE END", "\u{1}é".repeat(9_000));
        let failure = Failure::new("A-B", "o", "r".repeat(9_000), "n").with_evidence(evidence);
        let status = status(Code::Internal, &failure);
        let back = failure_from(&status).expect("it carries the failure");
        assert!(back.evidence.ends_with("THE END") && back.evidence.len() > 100, "{}", back.evidence.len());
        let size: usize =
            status.metadata().clone().into_headers().iter().map(|(k, v)| k.as_str().len() + v.len()).sum();
        assert!(size + 3 * status.message().len() < 15 * 1024, "{size}");
    }

    #[test]
    fn a_strange_status_has_no_failure() {
        assert_eq!(failure_from(&Status::unavailable("connection refused")), None);
    }
}
