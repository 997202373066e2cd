//! Tones as styles. Without colours they differ all the same.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

use crate::dashboard::picture::{Said, Tone};

/// Of the nodes, one after the other, as in `logs`.
const NODES: [Color; 6] =
    [Color::Cyan, Color::Green, Color::Magenta, Color::Blue, Color::LightCyan, Color::LightMagenta];

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    /// Colours are wanted.
    pub color: bool,
}

impl Paint {
    /// Of a tone.
    pub fn tone(self, tone: Tone) -> Style {
        match (tone, self.color) {
            (Tone::Plain, _) | (Tone::Good, false) => Style::new(),
            (Tone::Good, true) => Style::new().fg(Color::Green),
            (Tone::Warn, true) => Style::new().fg(Color::Yellow),
            (Tone::Warn, false) => Style::new().add_modifier(Modifier::UNDERLINED),
            (Tone::Bad, true) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            (Tone::Bad, false) => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    /// Of a node, by its place among all.
    pub fn node(self, place: usize) -> Style {
        if self.color { Style::new().fg(NODES[place % NODES.len()]) } else { Style::new() }
    }

    /// What was said in its style.
    pub fn said(self, said: &Said) -> Span<'static> {
        Span::styled(said.text.clone(), self.tone(said.tone))
    }

    /// A sign that needs no colour.
    pub fn mark(self, tone: Tone) -> Span<'static> {
        let sign = match tone {
            Tone::Good => "✓",
            Tone::Warn => "!",
            Tone::Bad => "✗",
            Tone::Plain => " ",
        };
        Span::styled(sign, self.tone(tone))
    }

    /// In the foreground.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// In the background.
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}
