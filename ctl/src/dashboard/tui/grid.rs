//! Tables that fit: columns as wide as they must be, and where that is too wide, without the least needed ones. Pure.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Between two columns.
const GAP: usize = 2;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its head.
    pub head: &'static str,
    /// The highest one goes first where there is no room; 0 stays.
    pub rank: u8,
    /// It takes what is left, and is cut.
    pub is_open: bool,
}

/// A column that goes at this rank.
pub const fn column(head: &'static str, rank: u8) -> Column {
    Column { head, rank, is_open: false }
}

/// The last column, that takes what is left.
pub const fn open(head: &'static str, rank: u8) -> Column {
    Column { head, rank, is_open: true }
}

/// The head and the rows, each as a line. Every row has a cell of every column.
pub fn lay_out(
    columns: &[Column],
    rows: Vec<Vec<Line<'static>>>,
    width: usize,
    head: Style,
) -> (Line<'static>, Vec<Line<'static>>) {
    let of_head = |column: &Column| Span::raw(column.head).width();
    let widest = |(place, column): (usize, &Column)| {
        rows.iter().map(|row| row[place].width()).max().unwrap_or_default().max(of_head(column))
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(widest).collect();
    let needed = |kept: &[usize]| -> usize {
        let of =
            |place: &usize| if columns[*place].is_open { of_head(&columns[*place]) } else { widths[*place] };
        kept.iter().map(of).sum::<usize>() + GAP * kept.len().saturating_sub(1)
    };
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    while needed(&kept) > width {
        let droppable = kept.iter().copied().filter(|place| columns[*place].rank > 0);
        let Some(first) = droppable.max_by_key(|place| columns[*place].rank) else { break };
        kept.retain(|place| *place != first);
    }
    let heads = columns.iter().map(|column| Line::styled(column.head, head)).collect();
    let line = |row: Vec<Line<'static>>| in_columns(row, &kept, &widths);
    (line(heads), rows.into_iter().map(line).collect())
}

fn in_columns(row: Vec<Line<'static>>, kept: &[usize], widths: &[usize]) -> Line<'static> {
    let mut spans = Vec::new();
    for (place, cell) in row.into_iter().enumerate() {
        if !kept.contains(&place) {
            continue;
        }
        let missing = widths[place].saturating_sub(cell.width()) + GAP;
        let style = cell.style;
        spans.extend(cell.spans.into_iter().map(|span| Span { style: style.patch(span.style), ..span }));
        if kept.last() != Some(&place) {
            spans.push(Span::raw(" ".repeat(missing)));
        }
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [column("NAME", 0), column("IP", 2), column("AGE", 1), open("MESSAGE", 0)];

    fn laid_out(width: usize) -> Vec<String> {
        let row = |cells: [&'static str; 4]| cells.map(Line::from).to_vec();
        let rows = vec![row(["a", "10.0.0.1", "1h06m", "all is well"]), row(["bäär", "", "2s", ""])];
        let (head, rows) = lay_out(&COLUMNS, rows, width, Style::new());
        [vec![head], rows].concat().iter().map(|line| line.to_string().trim_end().to_owned()).collect()
    }

    #[test]
    fn columns_line_up() {
        let expected =
            ["NAME  IP        AGE    MESSAGE", "a     10.0.0.1  1h06m  all is well", "bäär            2s"];
        assert_eq!(laid_out(80), expected);
    }

    #[test]
    fn the_least_needed_go_first_and_some_stay() {
        assert_eq!(laid_out(29)[0], "NAME  AGE    MESSAGE");
        assert_eq!(laid_out(30)[0], "NAME  IP        AGE    MESSAGE");
        assert_eq!(laid_out(15), ["NAME  MESSAGE", "a     all is well", "bäär"]);
        assert_eq!(laid_out(1)[0], "NAME  MESSAGE");
    }
}
