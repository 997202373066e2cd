//! Where a stream of logs goes on after an interruption, so that it loses and doubles no line: behind what was told of
//! each node, and where it began for nodes of which nothing was told yet.
//!
//! Used by `k8sctl logs` and by the dashboards.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8sctl_proto::control::v1::{LogPosition, StreamLogsRequest, StreamLogsResponse};

use crate::moment::stamp;

/// See the module. Each stream opened asks for what [`resume`](Self::resume) makes of its request, and says what it got.
#[derive(Debug)]
pub struct Resume {
    /// Behind what was told, by node.
    positions: BTreeMap<String, String>,
    began: Timestamp,
    /// The host agent has said something, be it only that a node is away.
    was_told: bool,
}

impl Resume {
    /// Nothing was told yet; it begins now.
    pub fn new() -> Self {
        Self { positions: BTreeMap::new(), began: Timestamp::now(), was_told: false }
    }

    /// What is told from now on is behind an interruption: the host agent does not know any more what it told before.
    pub const fn is_resumed(&self) -> bool {
        self.was_told
    }

    /// Makes a request of the beginning into one that goes on.
    ///
    /// Of a node that was away all the time there is no position, and its last lines by now may be fewer than it has
    /// written since following began. Nodes with a position begin there.
    pub fn resume(&self, request: &mut StreamLogsRequest) {
        let position = |(node_name, cursor): (&String, &String)| LogPosition {
            node_name: node_name.clone(),
            cursor: cursor.clone(),
        };
        request.positions = self.positions.iter().map(position).collect();
        // A clock that was set back since would have it begin in the future, which is refused.
        let now = Timestamp::now();
        let began = stamp(self.began.min(now));
        let is_later =
            |until: &prost_types::Timestamp| (until.seconds, until.nanos) > (began.seconds, began.nanos);
        let Some(selector) = request.selector.as_mut().filter(|selector| selector.follow && self.was_told)
        else {
            return;
        };
        let now = stamp(now);
        if selector.since.as_ref().is_some_and(|it| (it.seconds, it.nanos) > (now.seconds, now.nanos)) {
            selector.since = Some(now);
        }
        if selector.until.as_ref().is_none_or(is_later) && selector.tail.take().is_some() {
            // A first moment that was asked for is before it.
            selector.since = Some(began);
        }
    }

    /// All of this was told. To be called only then: what could not be printed is not behind.
    pub fn told(&mut self, response: StreamLogsResponse) {
        self.was_told = true;
        self.positions.extend(response.positions.into_iter().map(|it| (it.node_name, it.cursor)));
    }
}

impl Default for Resume {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8sctl_proto::node::v1::LogSelector;

    fn following(tail: Option<u64>) -> StreamLogsRequest {
        let selector = LogSelector { follow: true, tail, ..LogSelector::default() };
        StreamLogsRequest { selector: Some(selector), ..StreamLogsRequest::default() }
    }

    fn resumed(place: &Resume, mut request: StreamLogsRequest) -> (Vec<String>, LogSelector) {
        place.resume(&mut request);
        let positions = request.positions.iter().map(|it| format!("{}={}", it.node_name, it.cursor));
        (positions.collect(), request.selector.expect("it was given one"))
    }

    #[test]
    fn it_goes_on_behind_what_was_told_and_elsewhere_where_it_began() {
        let mut place = Resume::new();
        let (positions, selector) = resumed(&place, following(Some(5)));
        assert!(positions.is_empty() && !place.is_resumed());
        assert_eq!((selector.tail, selector.since), (Some(5), None), "nothing was told: it begins");

        // Only that a node is away: it has no position, and what it writes from now on is not to be lost.
        place.told(StreamLogsResponse::default());
        let began = stamp(place.began);
        let (positions, selector) = resumed(&place, following(Some(5)));
        assert!(positions.is_empty() && place.is_resumed());
        assert_eq!((selector.tail, selector.since), (None, Some(began)));

        let position = |cursor: &str| LogPosition { node_name: "a".to_owned(), cursor: cursor.to_owned() };
        for cursor in ["1", "2"] {
            let positions = vec![position(cursor)];
            place.told(StreamLogsResponse { positions, ..StreamLogsResponse::default() });
        }
        let (positions, selector) = resumed(&place, following(None));
        assert_eq!(positions, ["a=2"]);
        assert_eq!((selector.tail, selector.since), (None, None), "all lines were asked for");
    }

    #[test]
    fn last_lines_until_a_moment_before_it_began_stay_what_was_asked_for() {
        let mut place = Resume::new();
        place.told(StreamLogsResponse::default());
        let mut request = following(Some(5));
        let long_ago = prost_types::Timestamp { seconds: 1, nanos: 0 };
        request.selector.as_mut().expect("it has one").until = Some(long_ago);
        let (_, selector) = resumed(&place, request);
        assert_eq!((selector.tail, selector.since), (Some(5), None));
        let mut request = following(Some(5));
        request.selector.as_mut().expect("it has one").follow = false;
        assert_eq!(resumed(&place, request).1.tail, Some(5), "nothing goes on that does not follow");
    }
}
