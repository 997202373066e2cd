//! Draws how what an agent costs grows with their number, from ten to thousands: an SVG, from the records of
//! [`FILE`](crate::run::FILE). Called by `bench-plot`. Measures nothing.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::figure::most;

/// One picture, of figures whose names end with a number of agents.
struct Panel {
    title: &'static str,
    unit: &'static str,
    /// How their names begin.
    figures: &'static str,
    /// Whose limit is drawn.
    limit_of: &'static str,
}

/// Left and right.
static PANELS: [Panel; 2] = [
    Panel {
        title: "Memory of the host agent, for each agent",
        unit: "KiB",
        figures: "agent-resident-",
        limit_of: "agent-resident-1000",
    },
    Panel {
        title: "Its share of a processor, for 1,000 agents",
        unit: "%",
        figures: "agents-cpu-",
        limit_of: "agents-cpu-1000",
    },
];

/// Of the whole, in pixels, and of a panel in it.
const WIDTH: f64 = 840.0;
const HEIGHT: f64 = 330.0;
const PANEL: f64 = 420.0;
/// The field of a panel, from the panel's own left: its left and right, top and bottom.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 396.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 270.0;
/// Numbers of agents that are marked. The first and the last are the ends of the field, by powers of ten.
const MARKED: [(f64, &str); 4] = [(10.0, "10"), (100.0, "100"), (1_000.0, "1,000"), (5_000.0, "5,000")];
/// Values that are marked, about.
const MARKS: f64 = 4.0;
/// What is left free above the highest, of the field.
const FREE: f64 = 0.15;

/// The picture. An error where nothing was measured that could be drawn.
pub fn svg(records: &[Value]) -> Result<String> {
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#24292f\">\n\
         <title>What an agent costs the host agent, by the number of agents</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n",
    );
    for (place, panel) in PANELS.iter().enumerate() {
        let points = points(records, panel.figures);
        ensure!(
            !points.is_empty(),
            "there is no figure {}N: `make bench BENCH=scale` measures it",
            panel.figures
        );
        // Two panels: nothing is lost.
        draw(&mut text, place as f64 * PANEL, panel, &points);
    }
    text.push_str("</svg>\n");
    Ok(text)
}

/// Numbers of agents and what was measured of them, the fewest first.
fn points(records: &[Value], figures: &str) -> Vec<(f64, f64)> {
    let point = |record: &Value| -> Option<(f64, f64)> {
        let agents: u32 = record["name"].as_str()?.strip_prefix(figures)?.parse().ok()?;
        Some((f64::from(agents), record["value"].as_f64()?))
    };
    let mut points: Vec<(f64, f64)> = records.iter().filter_map(point).collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

// Writing into a text cannot fail.
fn draw(text: &mut String, from: f64, panel: &Panel, points: &[(f64, f64)]) {
    let limit = most(panel.limit_of);
    let highest = points.iter().map(|point| point.1).chain(limit).fold(0.0, f64::max);
    let top = if highest > 0.0 { highest * (1.0 + FREE) } else { 1.0 };
    let (first, last) = (MARKED[0].0.log10(), MARKED[MARKED.len() - 1].0.log10());
    let (left, right) = (from + LEFT, from + RIGHT);
    let x = |agents: f64| left + (agents.log10() - first) / (last - first) * (right - left);
    let y = |value: f64| BOTTOM - value / top * (BOTTOM - TOP);
    let (unit, title) = (panel.unit, panel.title);

    let _ = writeln!(
        text,
        "<text x=\"{left}\" y=\"26\" font-size=\"14\" font-weight=\"bold\">{title} ({unit})</text>"
    );
    let step = step(top / MARKS);
    let mut mark = 0.0;
    while mark <= top {
        let (at, beside) = (y(mark), left - 8.0);
        let _ = writeln!(
            text,
            "<path d=\"M{left:.1} {at:.1}H{right:.1}\" stroke=\"#d0d7de\"/>\n\
             <text x=\"{beside:.1}\" y=\"{:.1}\" text-anchor=\"end\">{mark}</text>",
            at + 4.0
        );
        mark += step;
    }
    for (agents, name) in MARKED {
        let at = x(agents);
        let _ = writeln!(
            text,
            "<path d=\"M{at:.1} {BOTTOM:.1}v5\" stroke=\"#57606a\"/>\n\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            BOTTOM + 20.0
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">agents</text>",
        (left + right) / 2.0,
        BOTTOM + 42.0
    );
    if let Some(limit) = limit {
        let at = y(limit);
        let _ = writeln!(
            text,
            "<path d=\"M{left:.1} {at:.1}H{right:.1}\" stroke=\"#cf222e\" stroke-dasharray=\"6 4\"/>\n\
             <text x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#cf222e\">at most {limit} {unit}</text>",
            at - 6.0
        );
    }
    let line: Vec<String> =
        points.iter().map(|(agents, value)| format!("{:.1},{:.1}", x(*agents), y(*value))).collect();
    let line = line.join(" ");
    let _ =
        writeln!(text, "<polyline points=\"{line}\" fill=\"none\" stroke=\"#0969da\" stroke-width=\"2\"/>");
    for (agents, value) in points {
        let (across, up) = (x(*agents), y(*value));
        let _ = writeln!(
            text,
            "<circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"4\" fill=\"#0969da\"/>\n\
             <text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.1}</text>",
            up - 10.0
        );
    }
}

/// The round number that is next above: 1, 2 or 5 and noughts.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let round = [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|round| *round >= least);
    round.unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::benches_of_all;
    use serde_json::json;

    fn records() -> Vec<Value> {
        let record = |name: &str, value: f64| json!({ "name": name, "value": value, "unit": "" });
        vec![
            record("agents-cpu-5000", 3.0),
            record("agent-resident-5000", 48.0),
            record("agent-resident-10", 80.0),
            record("agents-cpu-10", 4.0),
            record("status", 20.0),
            json!({ "name": "agents-cpu-100", "value": null }),
        ]
    }

    #[test]
    fn both_lines_go_from_the_fewest_agents_to_the_most() {
        assert_eq!(points(&records(), "agent-resident-"), [(10.0, 80.0), (5_000.0, 48.0)]);
        assert_eq!(
            points(&records(), "agents-cpu-"),
            [(10.0, 4.0), (5_000.0, 3.0)],
            "what failed is no point"
        );
        let svg = svg(&records()).expect("drawn");
        // 80 of 92: 15 % are free above it.
        assert!(svg.contains("points=\"52.0,78.7 396.0,155.2\""), "{svg}");
        assert!(svg.contains("points=\"472.0,117.0 816.0,155.2\""), "{svg}");
        assert!(svg.contains("at most 64 KiB<") && svg.contains("at most 5 %<"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count(), "{svg}");
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let only_memory = [json!({ "name": "agent-resident-10", "value": 1.0 })];
        let error = svg(&only_memory).expect_err("half of it is missing").to_string();
        assert!(error.contains("agents-cpu-N") && error.contains("make bench BENCH=scale"), "{error}");
    }

    #[test]
    fn marks_are_round() {
        let steps = [0.7, 1.0, 1.1, 18.4, 23.0, 60.0].map(step);
        assert_eq!(steps, [1.0, 1.0, 2.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn what_is_drawn_is_measured_and_has_a_limit() {
        for panel in &PANELS {
            assert!(most(panel.limit_of).is_some(), "{}", panel.limit_of);
            for (_, name) in MARKED {
                let name = format!("{}{}", panel.figures, name.replace(',', ""));
                assert!(benches_of_all().any(|bench| bench.figures.contains(&name.as_str())), "{name}");
            }
        }
    }
}
