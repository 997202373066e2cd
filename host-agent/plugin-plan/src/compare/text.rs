//! A difference between two objects as people read it: both as lines like YAML, and the lines that differ with a few around
//! them. Values of Secrets are never in it; that they differ is.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::bare;

/// Lines around a difference.
const AROUND: usize = 3;
/// Most cells of the table in which lines are compared; larger differences are told as a whole.
const CELLS: usize = 4_000_000;

/// Unified difference of two objects as lines like YAML, with values of Secrets masked. Empty: there is none.
pub fn diff_text(live: &Value, would_be: &Value) -> String {
    let (mut live, mut would_be) = (bare(live), bare(would_be));
    mask(&mut live, &mut would_be);
    let (before, after) = (lines(&live), lines(&would_be));
    unified(&steps(&before, &after))
}

/// Puts stars in the place of values. Those that differ stay different.
fn mask(live: &mut Value, would_be: &mut Value) {
    for map in ["data", "stringData"] {
        let masked = |mine: &Value, other: &Value, word: &str| -> Option<Value> {
            let is_secret = mine["kind"] == "Secret" && mine["apiVersion"] == "v1";
            let fields = mine.get(map).and_then(Value::as_object).filter(|_| is_secret)?;
            let stars =
                |key: &str, value: &Value| if other[map][key] == *value { json!("***") } else { json!(word) };
            Some(fields.iter().map(|(key, value)| (key.clone(), stars(key, value))).collect())
        };
        let (before, after) = (masked(live, would_be, "*** (before)"), masked(would_be, live, "*** (after)"));
        if let Some(before) = before {
            live[map] = before;
        }
        if let Some(after) = after {
            would_be[map] = after;
        }
    }
    // kubectl keeps a copy of what it applied last.
    const COPY: &str = "kubectl.kubernetes.io/last-applied-configuration";
    for object in [live, would_be] {
        if let Some(copy) = object.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(COPY)) {
            *copy = json!("***");
        }
    }
}

fn lines(value: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    write(value, 0, String::new(), &mut lines);
    lines
}

/// `begin` is what stands on the line before the value: a key, or the dash of a list.
fn write(value: &Value, depth: usize, begin: String, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let deeper = if begin.is_empty() { depth } else { depth + 1 };
            if !begin.is_empty() {
                lines.push(format!("{indent}{begin}"));
            }
            for (key, field) in fields {
                write(field, deeper, format!("{key}:"), lines);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let deeper = if begin.is_empty() { depth } else { depth + 1 };
            if !begin.is_empty() {
                lines.push(format!("{indent}{begin}"));
            }
            for item in items {
                write(item, deeper, "-".to_owned(), lines);
            }
        }
        Value::String(text) if text.trim_end_matches('\n').contains('\n') => {
            lines.push(format!("{indent}{begin} |"));
            lines.extend(text.lines().map(|line| format!("{indent}  {line}")));
        }
        scalar => lines.push(format!("{indent}{begin} {}", plain(scalar))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a text reads as one without quotes.
fn is_plain(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "._-/:@=+*() ".contains(c);
    !text.is_empty()
        && text.chars().all(is_word)
        && text.trim() == text
        && !text.starts_with(|c: char| "-:@*".contains(c))
        && !matches!(text, "true" | "false" | "null" | "yes" | "no")
        && text.parse::<f64>().is_err()
}

/// A line of a difference.
enum Step<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// From one text to the other by as few lines as can be found with reasonable effort.
fn steps<'a>(before: &'a [String], after: &'a [String]) -> Vec<Step<'a>> {
    let same = |(a, b): &(&String, &String)| a == b;
    let begin = before.iter().zip(after).take_while(same).count();
    let rest = before.len().min(after.len()) - begin;
    let end = before.iter().rev().zip(after.iter().rev()).take_while(same).count().min(rest);
    let (mid_before, mid_after) = (&before[begin..before.len() - end], &after[begin..after.len() - end]);
    let mut steps: Vec<_> = before[..begin].iter().map(|line| Step::Same(line)).collect();
    if (mid_before.len() + 1).saturating_mul(mid_after.len() + 1) > CELLS {
        steps.extend(mid_before.iter().map(|line| Step::Gone(line)));
        steps.extend(mid_after.iter().map(|line| Step::New(line)));
    } else {
        common(mid_before, mid_after, &mut steps);
    }
    steps.extend(before[before.len() - end..].iter().map(|line| Step::Same(line)));
    steps
}

/// By the longest sequence of lines that both have.
fn common<'a>(before: &'a [String], after: &'a [String], steps: &mut Vec<Step<'a>>) {
    let width = after.len() + 1;
    // How many lines both have in common from here on.
    let mut table = vec![0_u32; (before.len() + 1) * width];
    for (row, a) in before.iter().enumerate().rev() {
        for (column, b) in after.iter().enumerate().rev() {
            let at = row * width + column;
            table[at] = if a == b { table[at + width + 1] + 1 } else { table[at + width].max(table[at + 1]) };
        }
    }
    let (mut row, mut column) = (0, 0);
    while row < before.len() || column < after.len() {
        let at = row * width + column;
        if row < before.len() && column < after.len() && before[row] == after[column] {
            steps.push(Step::Same(&before[row]));
            (row, column) = (row + 1, column + 1);
        } else if row < before.len() && (column == after.len() || table[at + width] >= table[at + 1]) {
            steps.push(Step::Gone(&before[row]));
            row += 1;
        } else {
            steps.push(Step::New(&after[column]));
            column += 1;
        }
    }
}

fn unified(steps: &[Step<'_>]) -> String {
    let differs: Vec<bool> = steps.iter().map(|step| !matches!(step, Step::Same(_))).collect();
    let shown = |at: usize| {
        let (from, to) = (at.saturating_sub(AROUND), (at + AROUND + 1).min(differs.len()));
        differs[from..to].contains(&true)
    };
    let mut text = String::new();
    let (mut old, mut new) = (0, 0);
    let mut in_hunk = false;
    for (at, step) in steps.iter().enumerate() {
        let is_shown = shown(at);
        if is_shown && !in_hunk {
            let hunk = steps[at..].iter().enumerate().take_while(|(offset, _)| shown(at + offset));
            let (gone, came) = hunk.fold((0, 0), |(gone, came), (_, step)| match step {
                Step::Same(_) => (gone + 1, came + 1),
                Step::Gone(_) => (gone + 1, came),
                Step::New(_) => (gone, came + 1),
            });
            let _ = writeln!(text, "@@ -{},{gone} +{},{came} @@", old + 1, new + 1);
        }
        in_hunk = is_shown;
        let (mark, line) = match step {
            Step::Same(line) => (' ', line),
            Step::Gone(line) => ('-', line),
            Step::New(line) => ('+', line),
        };
        if is_shown {
            let _ = writeln!(text, "{mark}{line}");
        }
        old += usize::from(mark != '+');
        new += usize::from(mark != '-');
    }
    text
}
