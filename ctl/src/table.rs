//! Tables for people: a dim head, columns as wide as they must be, cells of strangers made visible.

use std::io;

use anstyle::Style;
use comfy_table::{ContentArrangement, Table as Grid};

use crate::terminal::{Printer, styles, visible};

/// A table that is being filled.
#[derive(Debug)]
pub struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<(String, Style)>>,
}

/// A cell without style.
pub fn cell(text: impl AsRef<str>) -> (String, Style) {
    (text.as_ref().to_owned(), Style::new())
}

/// A cell in a style.
pub fn styled(style: Style, text: impl AsRef<str>) -> (String, Style) {
    (text.as_ref().to_owned(), style)
}

impl Table {
    /// Without rows.
    pub fn new(head: &'static [&'static str]) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Adds a row; empty cells become `-`.
    pub fn row(&mut self, cells: Vec<(String, Style)>) {
        debug_assert_eq!(cells.len(), self.head.len());
        let shown = |(text, style): (String, Style)| {
            if text.is_empty() { ("-".to_owned(), styles::DIM) } else { (visible(&text), style) }
        };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// The lines, coloured as the printer wants it.
    pub fn lines(&self, printer: &Printer) -> Vec<String> {
        // Laid out without styles, and coloured afterwards: widths stay right.
        let mut grid = Grid::new();
        grid.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        grid.force_no_tty();
        grid.set_header(self.head.to_vec());
        for row in &self.rows {
            grid.add_row(row.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>());
        }
        for column in grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let head = std::iter::once(None);
        let rows = head.chain(self.rows.iter().map(Some));
        grid.lines().zip(rows).map(|(line, row)| paint(printer, line.trim_end(), row)).collect()
    }

    /// Prints it.
    pub fn print(&self, printer: &Printer) -> io::Result<()> {
        self.lines(printer).into_iter().try_for_each(|line| printer.line(line))
    }
}

fn paint(printer: &Printer, line: &str, row: Option<&Vec<(String, Style)>>) -> String {
    let Some(row) = row else { return printer.paint(styles::DIM, line) };
    let mut painted = String::with_capacity(line.len());
    let mut rest = line;
    for (text, style) in row {
        let Some(at) = rest.find(text.trim_end()) else { continue };
        painted.push_str(&rest[..at]);
        let end = at + text.trim_end().len();
        if *style == Style::new() {
            painted.push_str(&rest[at..end]);
        } else {
            painted.push_str(&printer.paint(*style, &rest[at..end]));
        }
        rest = &rest[end..];
    }
    painted + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Stream;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec![cell("long-name"), styled(styles::GOOD, "Ready")]);
        table.row(vec![cell("x\x1b"), cell("")]);
        table
    }

    #[test]
    fn columns_line_up() {
        let plain = Printer { stream: Stream::Out, terminal: false, tty: false, color: false };
        assert_eq!(table().lines(&plain), ["NAME       STATE", "long-name  Ready", "x\\x1b      -"]);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = Printer { stream: Stream::Out, terminal: true, tty: true, color: true };
        assert_eq!(table().lines(&coloured)[1], "long-name  \x1b[32mReady\x1b[0m");
    }
}
