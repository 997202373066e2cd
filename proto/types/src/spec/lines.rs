//! Lines and columns of a text, both 1-based.

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

    /// The text of a line.
    pub(super) fn line(&self, line: u32) -> &'t str {
        let index = line.saturating_sub(1) as usize;
        let Some(start) = self.starts.get(index) else { return "" };
        let end = self.starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
        &self.text[*start..end]
    }
}
