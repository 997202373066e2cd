//! What the dashboard knows of a cluster, and how old that is. Pure: whoever has news tells it, and what time it is.
//! Nothing in it grows without end.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::Serialize;

use crate::terminal::visible;
use crate::view::{ClusterView, LogView, OperationView};

#[cfg(test)]
mod tests;

/// Log lines that are kept.
pub const LINES: usize = 1000;
/// Characters of a line that are kept.
const LINE_CHARS: usize = 2000;

/// What is listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    /// The status of the cluster.
    Status,
    /// Whether the host agent answers at all: of one that hangs, streams stay open.
    Answer,
    /// The logs of all nodes.
    Logs,
}

/// What has become known.
#[derive(Clone, Debug)]
pub enum News {
    /// The cluster is so.
    Status(ClusterView),
    /// The operation is so.
    Operation(OperationView),
    /// Nothing is known of the operation with this id.
    NoOperation(String),
    /// Lines in their order.
    Lines(Vec<LogView>),
    /// Something is to be said of a node's log.
    Notice {
        /// Name of the node.
        node: String,
        /// One line.
        message: String,
    },
    /// It is listened to.
    Live(Feed),
    /// It is listened to no more, for this reason.
    Lost(Feed, String),
}

/// Since when and why a feed is lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    /// When it was first noticed.
    pub since: Timestamp,
    /// What was said last.
    pub reason: String,
}

/// A log line, fit to be shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Counts up from 1.
    pub number: u64,
    /// `10:00:00.007` in UTC; empty where it is not known.
    pub time: String,
    /// Name of the node.
    pub node: String,
    /// `kubelet` and so on.
    pub source: String,
    /// Cut where it is very long; what would move a cursor is visible.
    pub text: String,
    /// Lines before it are younger.
    pub late: bool,
    /// It is no line, but is said of the log.
    pub notice: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Model {
    cluster: String,
    status: Option<ClusterView>,
    seen: Option<Timestamp>,
    operation: Option<OperationView>,
    lines: VecDeque<Line>,
    newest: u64,
    lost: BTreeMap<Feed, Lost>,
}

impl Model {
    /// Of a cluster of which nothing is known yet.
    pub fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            status: None,
            seen: None,
            operation: None,
            lines: VecDeque::new(),
            newest: 0,
            lost: BTreeMap::new(),
        }
    }

    /// Takes news that came at this moment.
    pub fn apply(&mut self, news: News, now: Timestamp) {
        match news {
            News::Status(status) => {
                self.status = Some(status);
                self.lost.remove(&Feed::Status);
                self.seen = Some(now);
            }
            News::Operation(operation) => self.operation = Some(operation),
            News::NoOperation(id) => {
                self.operation.take_if(|operation| operation.id == id);
            }
            News::Lines(lines) => lines.into_iter().for_each(|line| self.line(line)),
            News::Notice { node, message } => self.notice(&node, &message),
            News::Live(feed) => {
                self.lost.remove(&feed);
                // What does not change is not told again: it is so as long as somebody would tell.
                if self.old().is_none() && self.seen.is_some() {
                    self.seen = Some(now);
                }
            }
            News::Lost(feed, reason) => {
                self.lost
                    .entry(feed)
                    .and_modify(|lost| lost.reason.clone_from(&reason))
                    .or_insert(Lost { since: now, reason });
            }
        }
    }

    /// Name of the cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// How the cluster was when it was last seen.
    pub fn status(&self) -> Option<&ClusterView> {
        self.status.as_ref()
    }

    /// The operation that runs, or ran last.
    pub fn operation(&self) -> Option<&OperationView> {
        self.operation.as_ref()
    }

    /// The operation that is to be watched: the one that runs, also where its end was missed.
    pub fn operation_to_watch(&self) -> Option<String> {
        let is_running = |operation: &&OperationView| operation.state == "running";
        let known = self.operation.as_ref();
        let told = self.status.as_ref().and_then(|status| status.operation_id.as_ref());
        let told = told.filter(|id| !known.is_some_and(|it| it.id == **id && !is_running(&it)));
        told.or_else(|| known.filter(is_running).map(|it| &it.id)).cloned()
    }

    /// When what is known was last true; `None` means: nothing is known.
    pub fn seen(&self) -> Option<Timestamp> {
        self.seen
    }

    /// Why what is known may be true no more.
    pub fn old(&self) -> Option<&Lost> {
        let lost = [Feed::Status, Feed::Answer].into_iter().filter_map(|feed| self.lost.get(&feed));
        lost.min_by_key(|lost| lost.since)
    }

    /// Why no log lines come.
    pub fn logs_lost(&self) -> Option<&Lost> {
        self.lost.get(&Feed::Logs)
    }

    /// The lines that are kept, oldest first; their numbers have no gaps.
    pub fn lines(&self) -> &VecDeque<Line> {
        &self.lines
    }

    /// Number of the last line; 0 means: there was none.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The lines behind this number, and how many of those are no longer kept.
    pub fn lines_after(&self, number: u64) -> (u64, impl Iterator<Item = &Line>) {
        let oldest = self.lines.front().map_or(self.newest + 1, |line| line.number);
        let left_out = oldest.saturating_sub(number.saturating_add(1));
        (left_out, self.lines.iter().filter(move |line| line.number > number))
    }

    fn line(&mut self, line: LogView) {
        let LogView { time, node, source, text, late } = line;
        let time = time.as_deref().map(clock).unwrap_or_default();
        self.push(Line {
            number: 0,
            time,
            node: shown(&node),
            source: shown(&source),
            text,
            late,
            notice: false,
        });
    }

    fn notice(&mut self, node: &str, message: &str) {
        let text = message.to_owned();
        let (node, time, source) = (shown(node), String::new(), String::new());
        self.push(Line { number: 0, time, node, source, text, late: false, notice: true });
    }

    fn push(&mut self, mut line: Line) {
        if let Some((end, _)) = line.text.char_indices().nth(LINE_CHARS) {
            line.text.truncate(end);
            line.text.push('…');
        }
        line.text = shown(&line.text);
        self.newest += 1;
        line.number = self.newest;
        self.lines.push_back(line);
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }
}

/// Text of strangers as one line that moves nothing. Tabs become spaces: nothing here knows of columns.
pub fn shown(text: &str) -> String {
    visible(text).replace('\t', "    ")
}

/// The time of the day.
fn clock(time: &str) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return String::new() };
    format!("{}.{:03}", time.strftime("%H:%M:%S"), time.subsec_millisecond().unsigned_abs())
}
