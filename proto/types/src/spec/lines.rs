//! Lines and columns of a text, both 1-based.

use std::collections::HashMap;

/// Where the lines of a text begin.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Line of a byte offset. Does not read the line.
    pub(super) fn number(&self, offset: usize) -> u32 {
        let line = self.starts.partition_point(|start| *start <= offset);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    /// Column of a byte offset, in characters. Reads the line up to it.
    pub(super) fn column(&self, offset: usize) -> u32 {
        let line = self.number(offset);
        let before = self.starts.get(line.saturating_sub(1) as usize).copied().unwrap_or(0)..offset;
        let column = self.text.get(before).map_or(0, |text| text.chars().count()) + 1;
        u32::try_from(column).unwrap_or(u32::MAX)
    }

    /// Line and column of many byte offsets, each part of the text read once.
    pub(super) fn places(&self, mut offsets: Vec<usize>) -> HashMap<usize, (u32, u32)> {
        offsets.sort_unstable();
        let mut places = HashMap::new();
        // Line, offset and column of the one before.
        let mut last = (0, 0, 1);
        for offset in offsets {
            let line = self.number(offset);
            let (from, before) = match last {
                (same, from, column) if same == line => (from, column),
                _ => (self.starts.get(line.saturating_sub(1) as usize).copied().unwrap_or(0), 1),
            };
            let more = self.text.get(from..offset).map_or(0, |text| text.chars().count());
            let column = before + u32::try_from(more).unwrap_or(u32::MAX - before);
            last = (line, offset, column);
            places.insert(offset, (line, column));
        }
        places
    }

    /// The text of a line.
    pub(super) fn line(&self, line: u32) -> &'t str {
        let index = line.saturating_sub(1) as usize;
        let Some(start) = self.starts.get(index) else { return "" };
        let end = self.starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
        &self.text[*start..end]
    }
}
