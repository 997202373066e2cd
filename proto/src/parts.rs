//! How many parts a message may have that a stranger wrote. A limit of its bytes alone bounds little: an empty part takes
//! two bytes on the wire and some two hundred in memory. So parts are counted before anything is decoded.
//!
//! Called by [`crate::codec`], which all generated services use. What is sent to a server is bounded, and answers are not:
//! who is asked is trusted by whoever asks. With plugins it is the other way round: the host agent asks a program that it
//! does not trust, so its answers are bounded, and what the host agent asks is not.

/// Fields of one message, those of the messages in it included. A full frame of a log has half as many.
pub const MOST: usize = 32 * 1024;

/// Messages in messages that are looked into; the decoder takes a few more, and ours have far fewer.
const DEPTH: usize = 64;

/// A message of a method.
pub trait Bounded {
    /// Its place among the shapes; `None` means: whoever reads it trusts whoever wrote it.
    const SHAPE: Option<usize>;
}

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// Whether a message has no more parts than it may. Of what is malformed only what stands before is counted: the decoder
/// gets no further either.
pub fn is_within<M: Bounded>(bytes: &[u8]) -> bool {
    let mut left = MOST;
    M::SHAPE.is_none_or(|shape| count(bytes, shape, DEPTH, &mut left))
}

fn count(mut bytes: &[u8], shape: usize, depth: usize, left: &mut usize) -> bool {
    let messages = SHAPES.get(shape).copied().unwrap_or_default();
    while !bytes.is_empty() {
        let Some(rest) = left.checked_sub(1) else { return false };
        *left = rest;
        let Some((tag, behind)) = varint(bytes) else { return true };
        let next = match tag & 7 {
            0 => varint(behind).map(|(_, behind)| behind),
            1 => behind.get(8..),
            2 => {
                let part = varint(behind).and_then(|(length, behind)| {
                    behind.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX))
                });
                let inner = messages.iter().find(|(number, _)| u64::from(*number) == tag >> 3);
                if let (Some((part, _)), Some((_, shape)), Some(depth)) = (part, inner, depth.checked_sub(1))
                    && !count(part, *shape, depth, left)
                {
                    return false;
                }
                part.map(|(_, behind)| behind)
            }
            // Begin and end of a group: what is in it counts as if it stood here.
            3 | 4 => Some(behind),
            5 => behind.get(4..),
            _ => None,
        };
        let Some(next) = next else { return true };
        bytes = next;
    }
    true
}

/// A number, and what stands behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::control::v1::{StreamLogsRequest, WatchStatusResponse};
    use crate::node::v1::{
        AgentMessage, Condition, LogFrame, LogLine, StatusReport, StepStatus, agent_message,
    };
    use crate::plugin::v1::{
        ClusterFacts, ManifestPatch, NodeFact, PlanRequest, PlanResponse, RemoteManifest,
        ValidateConfigResponse, plan_response,
    };

    fn report(steps: usize, conditions: usize) -> Vec<u8> {
        let report = StatusReport {
            steps: vec![StepStatus::default(); steps],
            conditions: vec![Condition::default(); conditions],
            ..StatusReport::default()
        };
        AgentMessage { message: Some(agent_message::Message::Status(report)) }.encode_to_vec()
    }

    #[test]
    fn empty_parts_count_wherever_they_are() {
        assert!(is_within::<AgentMessage>(&report(MOST / 2, MOST / 2 - 1)), "with the report itself");
        assert!(!is_within::<AgentMessage>(&report(MOST / 2, MOST / 2)));
        let names =
            StreamLogsRequest { node_names: vec![String::new(); MOST + 1], ..StreamLogsRequest::default() };
        assert!(!is_within::<StreamLogsRequest>(&names.encode_to_vec()));
        // A group, which the decoder skips, hides nothing of what follows.
        let behind_a_group = [&[0x7b, 0x7c][..], &report(MOST, 0)].concat();
        assert!(!is_within::<AgentMessage>(&behind_a_group));
    }

    #[test]
    fn what_is_sent_in_earnest_is_within() {
        let line = LogLine {
            time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 1 }),
            source: "kubelet".to_owned(),
            // As tags and lengths would look.
            text: "\u{12}\0".repeat(60),
        };
        let frame = LogFrame { lines: vec![line; 4_096], cursor: "c".repeat(9), ..LogFrame::default() };
        assert!(is_within::<LogFrame>(&frame.encode_to_vec()));
        assert!(is_within::<LogFrame>(&[]));
    }

    #[test]
    fn what_is_malformed_is_left_to_the_decoder_and_answers_to_their_askers() {
        for bytes in [&[0xff; 11][..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0x0f], &[0x09, 1], &[0x08]] {
            assert!(is_within::<AgentMessage>(bytes), "{bytes:?}");
            AgentMessage::decode(bytes).expect_err("it is malformed");
        }
        assert!(is_within::<WatchStatusResponse>(&[0x0a, 0].repeat(2 * MOST)));
    }

    #[test]
    fn answers_of_plugins_are_bounded() {
        let remote = |patches: usize| {
            let remote = RemoteManifest {
                patches: vec![ManifestPatch::default(); patches],
                ..RemoteManifest::default()
            };
            PlanResponse { item: Some(plan_response::Item::Remote(remote)) }.encode_to_vec()
        };
        assert!(is_within::<PlanResponse>(&remote(MOST - 1)), "with the manifest itself");
        assert!(!is_within::<PlanResponse>(&remote(MOST)));
        assert!(!is_within::<ValidateConfigResponse>(&[0x0a, 0].repeat(MOST + 1)));
    }

    #[test]
    fn the_largest_cluster_is_told_to_a_plugin() {
        let label = |at: usize| (format!("example.org/label-{at}"), "value".to_owned());
        let node = NodeFact {
            name: "k8s-worker-1".to_owned(),
            role: "worker".to_owned(),
            ip: "192.168.122.11".to_owned(),
            arch: "amd64".to_owned(),
            labels: (0..20).map(label).collect(),
        };
        let facts = ClusterFacts { nodes: vec![node; 1000], ..ClusterFacts::default() };
        let request = PlanRequest { facts: Some(facts), ..PlanRequest::default() }.encode_to_vec();
        assert!(is_within::<PlanRequest>(&request));
    }
}
