//! The picture as cells of a screen of any size. Pure but for the bounds of scrolling.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Wrap};

use super::grid::{Column, column, lay_out, open};
use super::log;
use super::paint::Paint;
use super::sight::{KEYS, Pane, Sight};
use crate::dashboard::model;
use crate::dashboard::picture::{
    ConditionPicture, NodePicture, OperationPicture, Picture, PluginPicture, ProgressPicture, Tone,
};

/// From this width on, panes stand side by side.
const WIDE: u16 = 120;
/// From this width on, panes have borders at their sides.
const WITH_SIDES: u16 = 60;
/// With fewer rows than that, one pane is shown at a time.
const MANY_PANES: u16 = 14;
/// The least height of a pane: its border, a head and a row.
const LEAST: u16 = 4;
/// Rows of what is said of old pictures.
const OLD_ROWS: usize = 3;

const NODES: [Column; 9] = [
    column("", 0),
    column("NODE", 0),
    column("ROLE", 5),
    column("IP", 6),
    column("VM", 3),
    column("PHASE", 0),
    column("AGENT", 2),
    column("AGE", 4),
    open("NOT TRUE", 1),
];
const CONDITIONS: [Column; 7] = [
    column("", 0),
    column("NODE", 1),
    column("CONDITION", 0),
    column("STATUS", 2),
    column("REASON", 4),
    column("SINCE", 3),
    open("MESSAGE", 5),
];
const OBJECTS: [Column; 6] = [
    column("", 0),
    column("OBJECT", 0),
    column("PHASE", 0),
    column("FOR", 2),
    column("STEPS", 1),
    open("MESSAGE", 3),
];
const PLUGINS: [Column; 5] =
    [column("", 0), column("PLUGIN", 0), column("VERSION", 2), column("STATE", 0), open("MESSAGE", 1)];

/// What stands in a pane: a head that stays, and rows that scroll.
struct Content {
    title: Line<'static>,
    head: Option<Line<'static>>,
    rows: Vec<Line<'static>>,
}

/// Draws all of it.
pub fn draw(
    frame: &mut Frame<'_>,
    picture: &Picture,
    lines: &VecDeque<model::Line>,
    sight: &mut Sight,
    paint: Paint,
) {
    let area = frame.area();
    let body = around(frame, area, picture, paint);
    let rows = panes(picture, sight, body);
    let contents: Vec<Vec<(Pane, Content)>> = rows
        .iter()
        .map(|row| {
            let width = inside(body, row.len());
            row.iter().map(|pane| (*pane, content(*pane, picture, width, paint))).collect()
        })
        .collect();
    let frame_rows = if body.width < WITH_SIDES { 1 } else { 2 };
    let wanted = contents.iter().map(|row| {
        let rows = row.iter().map(|(_, it)| it.rows.len() + usize::from(it.head.is_some())).max();
        u16::try_from(rows.unwrap_or_default()).unwrap_or(u16::MAX).saturating_add(frame_rows)
    });
    let has_logs = rows.last().is_some_and(|row| row[..] == [Pane::Logs]);
    let heights = plan_heights(&wanted.collect::<Vec<_>>(), body.height, has_logs);
    let mut top = body.y;
    for (row, height) in contents.into_iter().zip(heights) {
        let count = row.len();
        let edge =
            |place: usize| u16::try_from(usize::from(body.width) * place / count).unwrap_or(body.width);
        for (place, (pane, content)) in row.into_iter().enumerate() {
            let (left, right) = (edge(place), edge(place + 1));
            let area = Rect::new(body.x + left, top, right - left, height);
            draw_pane(frame, area, (pane, content), lines, picture, sight, paint);
        }
        top += height;
    }
}

/// Draws what stands above and below the panes, and gives what is left.
fn around(frame: &mut Frame<'_>, area: Rect, picture: &Picture, paint: Paint) -> Rect {
    let mut left = area;
    let mut take = |height: u16, is_below: bool| {
        let height = height.min(left.height);
        let y = if is_below { left.bottom() - height } else { left.y };
        left =
            Rect { y: if is_below { left.y } else { left.y + height }, height: left.height - height, ..left };
        Rect { y, height, ..area }
    };
    let head = Line::from(vec![
        Span::styled(picture.cluster.clone(), paint.strong()),
        Span::raw(" "),
        paint.mark(picture.verdict.tone),
        Span::raw(" "),
        paint.said(&picture.verdict),
        Span::styled(format!("  Kubernetes {}", picture.kubernetes), paint.dim()),
    ]);
    frame.render_widget(Paragraph::new(head), take(1, false));
    if let Some(old) = &picture.old {
        let text = format!(" OLD  {old}");
        let rows = Span::raw(text.as_str()).width().div_ceil(usize::from(area.width.max(1)));
        // Words that do not fit whole may need a row more.
        let rows = if rows > 1 { (rows + 1).min(OLD_ROWS) } else { 1 };
        let style = paint.tone(Tone::Warn).add_modifier(Modifier::REVERSED);
        let text = Paragraph::new(text).style(style).wrap(Wrap { trim: false });
        frame.render_widget(text, take(u16::try_from(rows).unwrap_or(1), false));
    }
    if area.height > 4 {
        frame.render_widget(Paragraph::new(keys(usize::from(area.width), paint)), take(1, true));
    }
    left
}

/// What the keys do, as far as there is room.
fn keys(width: usize, paint: Paint) -> Line<'static> {
    let mut line = Line::default();
    for (key, does) in KEYS {
        let gap = if line.spans.is_empty() { "" } else { "  " };
        let more = [
            Span::raw(gap),
            Span::styled(key, paint.strong()),
            Span::styled(format!(" {does}"), paint.dim()),
        ];
        if line.width() + more.iter().map(Span::width).sum::<usize>() > width {
            break;
        }
        line.spans.extend(more);
    }
    line
}

/// The panes row by row; tells the sight which there are.
fn panes(picture: &Picture, sight: &mut Sight, body: Rect) -> Vec<Vec<Pane>> {
    for pane in Pane::ALL {
        sight.there[pane.place()] = match pane {
            Pane::Nodes | Pane::Logs => true,
            Pane::Conditions => !picture.conditions.is_empty(),
            Pane::Operation => picture.operation.is_some() || picture.failure.is_some(),
            Pane::Plugins => !picture.plugins.is_empty(),
        };
    }
    if !sight.there[sight.focus.place()] {
        sight.focus = Pane::Logs;
    }
    if body.is_empty() {
        return Vec::new();
    }
    if sight.is_whole || body.height < MANY_PANES {
        return vec![vec![sight.focus]];
    }
    let there: Vec<Pane> = Pane::ALL.into_iter().filter(|pane| sight.there[pane.place()]).collect();
    if body.width < WIDE {
        return there.into_iter().map(|pane| vec![pane]).collect();
    }
    let middle: Vec<Pane> =
        there.into_iter().filter(|pane| !matches!(pane, Pane::Nodes | Pane::Logs)).collect();
    let rows = [vec![Pane::Nodes], middle, vec![Pane::Logs]];
    rows.into_iter().filter(|row| !row.is_empty()).collect()
}

/// Columns within a pane, of so many side by side.
fn inside(body: Rect, count: usize) -> usize {
    let sides = if body.width < WITH_SIDES { 0 } else { 2 };
    (usize::from(body.width) / count.max(1)).saturating_sub(sides)
}

/// A height for each row. The log, which is the last one where `has_logs`, takes what is left, at least a third; what
/// is too high otherwise gives of its rows, and where there is no room at all the last ones get none.
pub(super) fn plan_heights(wanted: &[u16], body: u16, has_logs: bool) -> Vec<u16> {
    if let [_] = wanted {
        return vec![body];
    }
    let mut heights: Vec<u16> = wanted.iter().map(|height| (*height).min(body)).collect();
    if has_logs {
        heights.pop();
    }
    let rest = if has_logs { body - (body / 3).max(LEAST).min(body) } else { body };
    // Together they may be more than a height can be.
    while heights.iter().map(|height| u32::from(*height)).sum::<u32>() > u32::from(rest) {
        let Some(highest) = (0..heights.len()).max_by_key(|place| heights[*place]) else { break };
        if heights[highest] > LEAST {
            heights[highest] -= 1;
        } else if let Some(last) = heights.iter().rposition(|height| *height > 0) {
            heights[last] = 0;
        }
    }
    if has_logs {
        heights.push(body - heights.iter().sum::<u16>());
    }
    heights
}

fn draw_pane(
    frame: &mut Frame<'_>,
    area: Rect,
    (pane, content): (Pane, Content),
    lines: &VecDeque<model::Line>,
    picture: &Picture,
    sight: &mut Sight,
    paint: Paint,
) {
    if area.is_empty() {
        return;
    }
    let is_focus = sight.focus == pane;
    let borders = if frame.area().width < WITH_SIDES { Borders::TOP } else { Borders::ALL };
    let edge = if is_focus { paint.strong() } else { paint.dim() };
    let block = Block::new().borders(borders).border_style(edge);
    let inner = block.inner(area);
    let height = usize::from(inner.height).saturating_sub(usize::from(content.head.is_some()));
    let mut title = content.title;
    if is_focus {
        title = title.patch_style(paint.strong().add_modifier(Modifier::REVERSED));
    }
    let rows = if pane == Pane::Logs {
        log::lines(lines, (usize::from(inner.width), height), sight, picture, paint)
    } else {
        let scroll = &mut sight.scroll[pane.place()];
        *scroll = (*scroll).min(content.rows.len().saturating_sub(height));
        if content.rows.len() > height {
            title.push_span(Span::raw(format!(
                "{}-{} of {} ",
                *scroll + 1,
                *scroll + height,
                content.rows.len()
            )));
        }
        content.rows.into_iter().skip(*scroll).take(height).collect()
    };
    if let (Pane::Logs, Some(held)) = (pane, sight.held) {
        let newest = lines.back().map_or(0, |line| line.number);
        title.push_span(Span::raw(format!("held, {} newer below ", newest.saturating_sub(held))));
    }
    let text: Vec<Line<'static>> = content.head.into_iter().chain(rows).collect();
    let style = if picture.old.is_some() && pane != Pane::Logs { paint.dim() } else { Style::new() };
    frame.render_widget(Paragraph::new(text).style(style).block(block.title(title)), area);
}

fn content(pane: Pane, picture: &Picture, width: usize, paint: Paint) -> Content {
    let titled = |title: &'static str, columns: &[Column], rows: Vec<Vec<Line<'static>>>| {
        let (head, rows) = lay_out(columns, rows, width, paint.dim());
        Content { title: Line::from(title), head: Some(head), rows }
    };
    match pane {
        Pane::Nodes => {
            let mut content = titled(" Nodes ", &NODES, nodes(picture, paint));
            // What is wrong is said in whole sentences below the table.
            let said = picture.nodes.iter().filter(|node| !node.message.is_empty());
            content.rows.extend(said.map(|node| Line::from(format!("  {}: {}", node.name, node.message))));
            content
        }
        Pane::Conditions => titled(" Conditions ", &CONDITIONS, conditions(picture, paint)),
        Pane::Operation => operation(picture, width, paint),
        Pane::Plugins => titled(" Plugins ", &PLUGINS, plugins(picture, paint)),
        Pane::Logs => {
            let title = match &picture.logs_lost {
                Some(reason) => {
                    let reason = format!("{reason} ");
                    Line::from(vec![Span::raw(" Logs "), Span::styled(reason, paint.tone(Tone::Warn))])
                }
                None => Line::from(" Logs "),
            };
            Content { title, head: None, rows: Vec::new() }
        }
    }
}

fn nodes(picture: &Picture, paint: Paint) -> Vec<Vec<Line<'static>>> {
    let row = |(place, node): (usize, &NodePicture)| -> Vec<Line<'static>> {
        vec![
            paint.mark(node.tone).into(),
            Span::styled(node.name.clone(), paint.node(place)).into(),
            node.role.into(),
            node.ip.clone().into(),
            paint.said(&node.vm).into(),
            paint.said(&node.phase).into(),
            paint.said(&node.agent).into(),
            node.age.clone().into(),
            Span::styled(node.untrue.join(","), paint.tone(Tone::Warn)).into(),
        ]
    };
    picture.nodes.iter().enumerate().map(row).collect()
}

fn conditions(picture: &Picture, paint: Paint) -> Vec<Vec<Line<'static>>> {
    let places = picture.places();
    let place = |node: &str| places.get(node).copied().unwrap_or_default();
    let row = |one: &ConditionPicture| -> Vec<Line<'static>> {
        vec![
            paint.mark(one.tone).into(),
            Span::styled(one.node.clone(), paint.node(place(&one.node))).into(),
            one.condition.clone().into(),
            Span::styled(one.status, paint.tone(one.tone)).into(),
            one.reason.clone().into(),
            one.since.clone().into(),
            one.message.clone().into(),
        ]
    };
    picture.conditions.iter().map(row).collect()
}

fn plugins(picture: &Picture, paint: Paint) -> Vec<Vec<Line<'static>>> {
    let row = |one: &PluginPicture| -> Vec<Line<'static>> {
        vec![
            paint.mark(one.state.tone).into(),
            one.name.clone().into(),
            one.version.clone().into(),
            paint.said(&one.state).into(),
            one.message.clone().into(),
        ]
    };
    picture.plugins.iter().map(row).collect()
}

fn operation(picture: &Picture, width: usize, paint: Paint) -> Content {
    let mut content = match &picture.operation {
        Some(operation) => {
            let (head, rows) = lay_out(&OBJECTS, objects(operation, paint), width, paint.dim());
            let title = vec![Span::raw(" Operation: "), paint.said(&operation.title), Span::raw(" ")];
            Content { title: Line::from(title), head: Some(head), rows }
        }
        None => Content { title: Line::from(" Operation "), head: None, rows: Vec::new() },
    };
    if let Some(failure) = &picture.failure {
        let what = Span::styled(failure.what.clone(), paint.tone(Tone::Bad));
        content.rows.push(Line::from(vec![paint.mark(Tone::Bad), Span::raw("  last failure: "), what]));
        let bar = |line: &String| Line::from(vec![Span::styled("   | ", paint.dim()), line.clone().into()]);
        content.rows.extend(failure.evidence.iter().map(bar));
        content.rows.push(Line::from(format!("   next: {}", failure.next)));
    }
    content
}

fn objects(operation: &OperationPicture, paint: Paint) -> Vec<Vec<Line<'static>>> {
    let row = |one: &ProgressPicture| -> Vec<Line<'static>> {
        let steps = one.steps.iter().flat_map(|step| {
            let sign = match step.tone {
                Tone::Good => " ✓  ",
                Tone::Warn => " …  ",
                Tone::Bad => " ✗  ",
                Tone::Plain => " ·  ",
            };
            [paint.said(step), Span::styled(sign, paint.tone(step.tone))]
        });
        vec![
            paint.mark(one.tone).into(),
            one.object.clone().into(),
            one.phase.clone().into(),
            one.age.clone().into(),
            steps.collect(),
            one.message.clone().into(),
        ]
    };
    operation.objects.iter().map(row).collect()
}
