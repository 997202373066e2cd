//! Lines of logs as text. Strangers write them: on a terminal their control characters are made visible; into a pipe
//! they go as they are.

use std::fmt::Write as _;

use k8sctl_proto::control::v1::ClusterLogLine;
use k8sctl_proto::node::v1::LogLine;

use crate::terminal::{Printer, styles, visible};

/// Room for the name of a source; a longer one takes more.
const SOURCE_WIDTH: usize = 10;
/// Before the text of a line that came too late to be put in order.
const LATE: &str = "(late)";
/// What may stand around the text of a line, as a rule, in bytes.
const AROUND: usize = 64;
/// What stands before lines is kept of so many pairs of node and source.
const LABELS: usize = 32;

/// See the module. Many lines become one text, so that printing is not what readers wait for.
pub struct Lines {
    /// Names of nodes are shown.
    has_nodes: bool,
    /// Times are shown.
    has_times: bool,
    out: Printer,
    /// In the order in which they were seen; each has its colour.
    nodes: Vec<String>,
    width: usize,
    /// Lines of the same node and source begin alike.
    labels: Vec<Label>,
    /// The last second, and how its times begin.
    second: Option<(i64, String)>,
}

impl Lines {
    /// For this stream.
    pub fn new(has_nodes: bool, has_times: bool, out: &Printer) -> Self {
        Self {
            has_nodes,
            has_times,
            out: *out,
            nodes: Vec::new(),
            width: 0,
            labels: Vec::new(),
            second: None,
        }
    }

    /// All lines, each ended.
    pub fn text(&mut self, lines: &[ClusterLogLine]) -> String {
        let of_node = |line: &ClusterLogLine| line.line.as_ref().map_or(0, |line| line.text.len());
        let mut text = String::with_capacity(lines.iter().map(|line| of_node(line) + AROUND).sum());
        for line in lines {
            self.add(line, &mut text);
        }
        text
    }

    fn add(&mut self, line: &ClusterLogLine, text: &mut String) {
        let none = LogLine::default();
        let of_node = line.line.as_ref().unwrap_or(&none);
        if self.has_times {
            let style = if self.out.color { styles::DIM } else { anstyle::Style::new() };
            // Writing into a text cannot fail.
            let _ = write!(text, "{style}");
            self.time(of_node, text);
            let _ = write!(text, "{style:#} ");
        }
        text.push_str(self.label(&line.node_name, &of_node.source));
        if line.late {
            text.push_str(&self.out.paint(styles::WARN, LATE));
            text.push(' ');
        }
        match self.out.terminal {
            true => text.push_str(&visible(&of_node.text)),
            false => text.push_str(&of_node.text),
        }
        text.push('\n');
    }

    /// Node, where nodes are shown, and source, each with a blank behind it.
    fn label(&mut self, node: &str, source: &str) -> &str {
        let is_it = |label: &Label| label.source == source && label.node == node;
        let place = match self.labels.iter().position(is_it) {
            Some(place) => place,
            None => {
                let (width, style) = (self.width, self.style(node));
                if self.width != width || self.labels.len() >= LABELS {
                    self.labels.clear();
                }
                let mut text = String::new();
                if self.has_nodes {
                    let name = format!("{:<width$}", visible(node), width = self.width);
                    text.push_str(&self.out.paint(style, name));
                    text.push(' ');
                }
                let name = format!("{:<SOURCE_WIDTH$}", visible(source));
                text.push_str(&self.out.paint(style, name));
                text.push(' ');
                self.labels.push(Label { node: node.to_owned(), source: source.to_owned(), text });
                self.labels.len() - 1
            }
        };
        &self.labels[place].text
    }

    fn style(&mut self, node: &str) -> anstyle::Style {
        let place = self.nodes.iter().position(|known| known == node).unwrap_or_else(|| {
            self.nodes.push(node.to_owned());
            self.width = self.width.max(visible(node).chars().count());
            self.nodes.len() - 1
        });
        styles::NODES[place % styles::NODES.len()]
    }

    /// Adds its time, always with three digits of the second, so that lines align.
    fn time(&mut self, line: &LogLine, text: &mut String) {
        let Some(stamp) = line.time else { return text.push('-') };
        let millis = stamp.nanos.clamp(0, 999_999_999) / 1_000_000;
        let begin = match self.second.take() {
            Some((second, begin)) if second == stamp.seconds => begin,
            _ => {
                let Ok(time) = jiff::Timestamp::from_second(stamp.seconds) else { return text.push('-') };
                time.strftime("%Y-%m-%dT%H:%M:%S").to_string()
            }
        };
        // Writing into a text cannot fail.
        let _ = write!(text, "{begin}.{millis:03}Z");
        self.second = Some((stamp.seconds, begin));
    }
}

/// What stands before the text of lines.
struct Label {
    node: String,
    source: String,
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Stream;
    use prost_types::Timestamp;

    fn line(node: &str, millis: i32, text: &str, late: bool) -> ClusterLogLine {
        let time = Some(Timestamp { seconds: 1_795_514_400, nanos: millis * 1_000_000 + 999_999 });
        let line = LogLine { time, source: "kubelet".to_owned(), text: text.to_owned() };
        ClusterLogLine { node_name: node.to_owned(), line: Some(line), late }
    }

    fn printer(tty: bool, color: bool) -> Printer {
        Printer { stream: Stream::Out, terminal: tty, tty, color }
    }

    #[test]
    fn lines_have_time_node_source_and_a_mark_where_they_are_late() {
        let mut lines = Lines::new(true, true, &printer(false, false));
        let text = lines.text(&[line("worker-1", 7, "a \x1b[31m", false), line("a", 70, "b", true)]);
        let expected = "2026-11-24T10:00:00.007Z worker-1 kubelet    a \x1b[31m\n\
                        2026-11-24T10:00:00.070Z a        kubelet    (late) b\n";
        assert_eq!(text, expected);
        let mut bare = Lines::new(false, false, &printer(true, false));
        assert_eq!(bare.text(&[line("a", 0, "x\x1b[2J", false)]), "kubelet    x\\x1b[2J\n");
        // Nothing can be drawn there, and what a stranger writes reaches it all the same.
        let dumb = Printer { terminal: true, ..printer(false, false) };
        let text = Lines::new(false, false, &dumb).text(&[line("a", 0, "x\x1b[2J", false)]);
        assert_eq!(text, "kubelet    x\\x1b[2J\n");
        let nothing = ClusterLogLine { node_name: "a".to_owned(), ..ClusterLogLine::default() };
        assert_eq!(Lines::new(false, true, &printer(false, false)).text(&[nothing]), "-            \n");
    }

    #[test]
    fn every_node_has_its_colour_and_nobody_can_bring_another() {
        let mut lines = Lines::new(true, false, &printer(true, true));
        let text =
            lines.text(&[line("a", 0, "x", false), line("b", 0, "x", false), line("a", 0, "x", false)]);
        let colours: Vec<&str> =
            text.lines().map(|line| line.split('m').next().unwrap_or_default()).collect();
        assert_eq!(colours[0], colours[2]);
        assert_ne!(colours[0], colours[1]);
        let strange = lines.text(&[line("\x1b[0mc", 0, "x", false)]);
        assert!(strange.contains("\\x1b[0mc"), "{strange:?}");
    }
}
