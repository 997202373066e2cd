//! Carries the frames of a log from the node that pushes them to the one who reads them. What comes from the node is
//! bounded: the time until it says which log it is, and the size of each frame.

use k8sctl_proto::node::v1::LogFrame;
use k8sctl_rpc::limits::{LOG_CURSOR_BYTES, LOG_FRAME_LINES, LOG_NAMES, LOG_SOURCE_BYTES};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Status};

use super::refusals::{OTHER_RELEASE, Refusals};
use super::registry::{LogLost, LogSender, NodeRegistry};
use super::service::first_message;
use super::traffic::Traffic;

/// Forwards until either end has enough.
pub(super) async fn push(
    registry: &NodeRegistry,
    refusals: &Refusals,
    node_id: &str,
    mut frames: impl Stream<Item = Result<LogFrame, Status>> + Unpin,
) -> Result<(), Status> {
    let Some(mut first) = first_message(&mut frames).await else {
        return Err(refusals.refuse(
            Code::InvalidArgument,
            node_id,
            "its agent did not say which log it sends",
            &format!("read again with `k8sctl logs`; for an agent of another release, {OTHER_RELEASE}"),
        ));
    };
    let stream_id = std::mem::take(&mut first.stream_id);
    let says_whole = std::mem::take(&mut first.says_whole);
    let Some(reader) = registry.claim_logs(node_id, &stream_id) else {
        return Err(refusals.refuse(
            Code::NotFound,
            node_id,
            "nobody reads this log stream",
            "nothing is lost: the reader has left; read again with `k8sctl logs`",
        ));
    };
    // It is a frame like the others where it brings more than the name of the log, and else not kept.
    let first = (first != LogFrame::default()).then(|| Ok(first));
    // Of an agent that never says so, the end of the call is all there is to go by.
    let whole = (!says_whole).then(|| Ok(LogFrame { whole: true, ..LogFrame::default() }));
    let frames = tokio_stream::iter(first).chain(frames).chain(tokio_stream::iter(whole));
    tokio::select! {
        // Both are cancel-safe to end here: the stream ends with either of them.
        result = forward(registry.traffic(), refusals, node_id, frames, &reader) => result,
        () = reader.closed() => Ok(()),
    }
}

/// Sending waits for the reader, and not reading frames makes HTTP/2 hold the agent back.
async fn forward(
    traffic: &Traffic,
    refusals: &Refusals,
    node_id: &str,
    mut frames: impl Stream<Item = Result<LogFrame, Status>> + Unpin,
    reader: &LogSender,
) -> Result<(), Status> {
    while let Some(frame) = frames.next().await {
        // The reader must not take this for the end of the log.
        let (last, status) = match frame {
            Ok(frame) => match excess(&frame) {
                None => {
                    traffic.log_frame(&frame);
                    if reader.send(Ok(frame)).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                Some(reason) => {
                    // Not kept while the reader makes room.
                    drop(frame);
                    let status = refusals.refuse(Code::InvalidArgument, node_id, &reason, OTHER_RELEASE);
                    let error = format!("{reason}; {OTHER_RELEASE}");
                    (Ok(LogFrame { error, ..LogFrame::default() }), status)
                }
            },
            Err(status) => (Err(LogLost(format!("its agent went away: {}", status.message()))), status),
        };
        let _ = reader.send(last).await;
        return Err(status);
    }
    Ok(())
}

/// What of a frame is more than an agent may send.
fn excess(frame: &LogFrame) -> Option<String> {
    let source = frame.lines.iter().map(|line| line.source.len()).max().unwrap_or_default();
    let bounds = [
        (frame.lines.len(), LOG_FRAME_LINES, "lines"),
        (source, LOG_SOURCE_BYTES, "bytes of a source"),
        (frame.cursor.len(), LOG_CURSOR_BYTES, "bytes of a cursor"),
        // Units and pods.
        (frame.unknown.len(), 2 * LOG_NAMES, "names"),
    ];
    let (found, bound, what) = bounds.into_iter().find(|(found, bound, _)| found > bound)?;
    Some(format!("it sent {found} {what} at once, {bound} are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::changes::changes;
    use crate::nodes::traffic::Sent;
    use k8sctl_proto::node::v1::{Hello, LogLine, LogSelector, LogUnknown};
    use k8sctl_rpc::limits::FIRST_MESSAGE_TIMEOUT;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_log_whose_first_frame_does_not_come_is_not_waited_for() {
        let (sender, _changes) = changes();
        let (registry, refusals) = (NodeRegistry::new(sender), Refusals::default());
        let started = Instant::now();
        let pushed = push(&registry, &refusals, "a", tokio_stream::pending());
        let ended = timeout(10 * FIRST_MESSAGE_TIMEOUT, pushed).await.expect("it ends");
        let refused = ended.expect_err("is refused");
        assert_eq!(refused.code(), Code::InvalidArgument);
        let failure = k8sctl_rpc::status::failure_from(&refused).expect("it carries the failure");
        assert!(failure.next_step.contains("then `k8sctl down` and `k8sctl up`"), "{failure:?}");
        assert!(started.elapsed() <= 2 * FIRST_MESSAGE_TIMEOUT);
    }

    #[tokio::test]
    async fn a_frame_of_too_many_lines_ends_the_log_with_an_error() {
        let (sender, _changes) = changes();
        let registry = NodeRegistry::new(sender);
        let mut session = registry.open_session("a", Hello::default());
        let mut reader = registry.open_logs("a", LogSelector::default()).expect("connected");
        let stream_id = session.log_requests.try_recv().expect("asked the agent").stream_id;
        let lines = |count| LogFrame { lines: vec![LogLine::default(); count], ..LogFrame::default() };
        let first = LogFrame { stream_id, ..LogFrame::default() };
        let sent = [first, lines(LOG_FRAME_LINES), lines(LOG_FRAME_LINES + 1), lines(1)].map(Ok);
        let refused = push(&registry, &Refusals::default(), "a", tokio_stream::iter(sent)).await;
        assert_eq!(refused.expect_err("is refused").code(), Code::InvalidArgument);
        let whole = reader.frames.recv().await.expect("a frame that is just small enough").expect("a frame");
        assert_eq!((whole.lines.len(), whole.error.as_str()), (LOG_FRAME_LINES, ""));
        let last = reader.frames.recv().await.expect("the reason").expect("a frame");
        assert!(last.lines.is_empty() && last.error.contains("4097 lines at once"), "{}", last.error);
        assert!(last.error.contains("then `k8sctl down` and `k8sctl up`"), "{}", last.error);
        assert!(reader.frames.recv().await.is_none());
        // What is refused does not count.
        let sent = Sent { sessions: 1, log_streams: 1, log_lines: LOG_FRAME_LINES as u64, log_bytes: 0 };
        assert_eq!(registry.traffic().sent(), sent);
        drop(reader);
        assert_eq!(registry.traffic().sent(), Sent { log_streams: 0, ..sent });
    }

    #[tokio::test]
    async fn the_first_frame_is_bounded_as_the_others_are() {
        let (sender, _changes) = changes();
        let registry = NodeRegistry::new(sender);
        let mut session = registry.open_session("a", Hello::default());
        for (count, is_taken) in [(LOG_FRAME_LINES, true), (LOG_FRAME_LINES + 1, false)] {
            let mut reader = registry.open_logs("a", LogSelector::default()).expect("connected");
            let stream_id = session.log_requests.try_recv().expect("asked the agent").stream_id;
            let lines = vec![LogLine::default(); count];
            let first = Ok(LogFrame { stream_id, lines, ..LogFrame::default() });
            let pushed = push(&registry, &Refusals::default(), "a", tokio_stream::iter([first])).await;
            assert_eq!(pushed.is_ok(), is_taken, "{count} lines");
            let read = reader.frames.recv().await.expect("it, or the reason").expect("a frame");
            assert_eq!(read.lines.len(), if is_taken { count } else { 0 });
            assert_eq!(read.error.is_empty(), is_taken, "{}", read.error);
        }
    }

    #[tokio::test]
    async fn only_an_agent_that_never_says_so_has_sent_all_when_its_call_ends() {
        let (sender, _changes) = changes();
        let registry = NodeRegistry::new(sender);
        let mut session = registry.open_session("a", Hello::default());
        let lines = LogFrame { lines: vec![LogLine::default()], ..LogFrame::default() };
        let whole = LogFrame { whole: true, ..LogFrame::default() };
        for (says_whole, sent, expected) in [
            (false, vec![lines.clone()], vec![lines.clone(), whole.clone()]),
            // Cut off.
            (true, vec![lines.clone()], vec![lines.clone()]),
            (true, vec![lines.clone(), whole.clone()], vec![lines.clone(), whole.clone()]),
        ] {
            let mut reader = registry.open_logs("a", LogSelector::default()).expect("connected");
            let stream_id = session.log_requests.try_recv().expect("asked the agent").stream_id;
            let first = LogFrame { stream_id, says_whole, ..LogFrame::default() };
            let frames = tokio_stream::iter([first].into_iter().chain(sent).map(Ok));
            push(&registry, &Refusals::default(), "a", frames).await.expect("it is taken");
            let mut read = Vec::new();
            while let Some(frame) = reader.frames.recv().await {
                read.push(frame.expect("a frame"));
            }
            assert_eq!(read, expected, "says_whole {says_whole}");
        }
    }

    #[test]
    fn frames_are_bounded_in_all_that_is_kept() {
        let within = LogFrame {
            cursor: "c".repeat(LOG_CURSOR_BYTES),
            unknown: vec![LogUnknown::default(); 2 * LOG_NAMES],
            ..LogFrame::default()
        };
        assert_eq!(excess(&within), None);
        let long = LogFrame { cursor: format!("{}c", within.cursor), ..LogFrame::default() };
        assert!(excess(&long).expect("too long").contains("65537 bytes of a cursor"), "{:?}", excess(&long));
        let source = |bytes: usize| {
            let line = LogLine { source: "s".repeat(bytes), ..LogLine::default() };
            LogFrame { lines: vec![LogLine::default(), line], ..LogFrame::default() }
        };
        assert_eq!(excess(&source(LOG_SOURCE_BYTES)), None);
        assert!(excess(&source(LOG_SOURCE_BYTES + 1)).expect("too long").contains("1025 bytes of a source"));
        let many = LogFrame { unknown: vec![LogUnknown::default(); 2 * LOG_NAMES + 1], ..within };
        assert!(excess(&many).is_some());
    }
}
