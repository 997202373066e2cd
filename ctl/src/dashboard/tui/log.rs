//! The log's lines that fit into a pane. Pure.

use std::collections::VecDeque;

use ratatui::text::{Line, Span};

use super::paint::Paint;
use super::sight::Sight;
use crate::dashboard::model;
use crate::dashboard::picture::{Picture, Tone};

/// Below this, times are left out.
const WITH_TIMES: usize = 80;
/// Below this, sources are left out.
const WITH_SOURCES: usize = 50;
/// Room for the name of a source, as in `logs`.
const SOURCE_WIDTH: usize = 10;
/// Longest name of a node that others are aligned to.
const NODE_WIDTH: usize = 24;

/// The last lines that fit, or those up to the held one, which is then the last one that is shown.
pub fn lines(
    log: &VecDeque<model::Line>,
    (width, height): (usize, usize),
    sight: &mut Sight,
    picture: &Picture,
    paint: Paint,
) -> Vec<Line<'static>> {
    let end = sight.held.map_or(log.len(), |held| log.partition_point(|line| line.number <= held));
    // Of what is held, the oldest may have left.
    let end = end.max(height.min(log.len()));
    // From there the keys go on, and not from a line that is above the first one.
    if let (Some(held), Some(last)) = (&mut sight.held, end.checked_sub(1).and_then(|place| log.get(place))) {
        *held = last.number.max(*held);
    }
    let shift = sight.shift;
    let shown = log.range(end.saturating_sub(height)..end);
    let names = shown.clone().map(|line| Span::raw(line.node.as_str()).width());
    let names = names.max().unwrap_or_default().min(NODE_WIDTH);
    shown.map(|one| line(one, width, names, shift, picture, paint)).collect()
}

fn line(
    line: &model::Line,
    width: usize,
    names: usize,
    shift: usize,
    picture: &Picture,
    paint: Paint,
) -> Line<'static> {
    let style = paint.node(picture.place_of(&line.node));
    let mut spans = Vec::new();
    if width >= WITH_TIMES {
        spans.push(Span::styled(format!("{:<12} ", line.time), paint.dim()));
    }
    spans.push(Span::styled(format!("{:<names$} ", line.node), style));
    if width >= WITH_SOURCES && !line.notice {
        spans.push(Span::styled(format!("{:<SOURCE_WIDTH$} ", line.source), style));
    }
    if line.late {
        spans.push(Span::styled("(late) ", paint.tone(Tone::Warn)));
    }
    let text: String = line.text.chars().skip(if line.notice { 0 } else { shift }).collect();
    let style = paint.tone(if line.notice { Tone::Warn } else { Tone::Plain });
    spans.push(Span::styled(text, style));
    Line::from(spans)
}
