//! What of the picture is looked at, and the keys that change it. Pure.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Rows that a page is.
const PAGE: usize = 10;
/// Columns that lines are moved by.
const SHIFT: usize = 20;
/// What the keys do, the most needed first.
pub const KEYS: [(&str, &str); 6] = [
    ("q", "leave"),
    ("Tab", "next pane"),
    ("z", "whole screen"),
    ("↑↓ PgUp PgDn", "scroll"),
    ("Space", "hold logs"),
    ("←→", "shift logs"),
];

/// A part of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    /// Nodes.
    Nodes,
    /// Conditions.
    Conditions,
    /// The operation, and why the last one failed.
    Operation,
    /// Plugins.
    Plugins,
    /// Logs of all nodes.
    Logs,
}

impl Pane {
    /// In the order in which Tab goes.
    pub const ALL: [Self; 5] = [Self::Nodes, Self::Conditions, Self::Operation, Self::Plugins, Self::Logs];

    /// Its place in that order.
    pub fn place(self) -> usize {
        self as usize
    }
}

/// What a key wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// To go on looking.
    Look,
    /// To leave.
    Leave,
    /// To leave as Ctrl-C does.
    Interrupt,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Keys are for this pane.
    pub focus: Pane,
    /// It has the whole screen.
    pub is_whole: bool,
    /// The rows above the first one that is shown, by pane. Drawing bounds them.
    pub scroll: [usize; 5],
    /// The last line of the log that is shown; `None` means: whatever comes. Drawing bounds it.
    pub held: Option<u64>,
    /// Columns of the log's lines that are passed over.
    pub shift: usize,
    /// Panes that there are, by pane. Drawing tells.
    pub there: [bool; 5],
}

impl Default for Sight {
    fn default() -> Self {
        Self { focus: Pane::Logs, is_whole: false, scroll: [0; 5], held: None, shift: 0, there: [true; 5] }
    }
}

impl Sight {
    /// Takes a key; `newest` is the number of the last line that there is.
    pub fn key(&mut self, key: &KeyEvent, newest: u64) -> Act {
        if key.kind == KeyEventKind::Release {
            return Act::Look;
        }
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Act::Interrupt,
            KeyCode::Esc if self.is_whole => self.is_whole = false,
            KeyCode::Char('q') | KeyCode::Esc => return Act::Leave,
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(Pane::ALL.len() - 1),
            KeyCode::Char('z') | KeyCode::Enter => self.is_whole = !self.is_whole,
            KeyCode::Char(' ') => self.held = if self.held.is_some() { None } else { Some(newest) },
            KeyCode::Up | KeyCode::Char('k') => self.back(1, newest),
            KeyCode::Down | KeyCode::Char('j') => self.forth(1, newest),
            KeyCode::PageUp => self.back(PAGE, newest),
            KeyCode::PageDown => self.forth(PAGE, newest),
            KeyCode::Home => self.back(usize::MAX, newest),
            KeyCode::End => self.forth(usize::MAX, newest),
            KeyCode::Left => self.shift = self.shift.saturating_sub(SHIFT),
            // A line is at most so long.
            KeyCode::Right => self.shift = (self.shift + SHIFT).min(2000),
            _ => {}
        }
        Act::Look
    }

    fn turn(&mut self, by: usize) {
        let count = Pane::ALL.len();
        let here = self.focus.place();
        let mut ways = (1..=count).map(|times| Pane::ALL[(here + by * times) % count]);
        let next = ways.find(|pane| self.there[pane.place()]);
        self.focus = next.unwrap_or(self.focus);
    }

    fn back(&mut self, rows: usize, newest: u64) {
        if self.focus == Pane::Logs {
            let rows = u64::try_from(rows).unwrap_or(u64::MAX);
            self.held = Some(self.held.unwrap_or(newest).saturating_sub(rows).max(1));
        } else {
            let scroll = &mut self.scroll[self.focus.place()];
            *scroll = scroll.saturating_sub(rows);
        }
    }

    fn forth(&mut self, rows: usize, newest: u64) {
        if self.focus == Pane::Logs {
            let rows = u64::try_from(rows).unwrap_or(u64::MAX);
            // Who has come to the end goes on with whatever comes.
            self.held = self.held.map(|held| held.saturating_add(rows)).filter(|held| *held < newest);
        } else {
            let scroll = &mut self.scroll[self.focus.place()];
            *scroll = scroll.saturating_add(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(sight: &mut Sight, code: KeyCode) -> Act {
        sight.key(&KeyEvent::new(code, KeyModifiers::NONE), 100)
    }

    #[test]
    fn keys_leave_and_turn() {
        let mut sight = Sight::default();
        assert_eq!(press(&mut sight, KeyCode::Char('q')), Act::Leave);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(sight.key(&interrupt, 0), Act::Interrupt);
        assert_eq!(press(&mut sight, KeyCode::Char('c')), Act::Look);
        press(&mut sight, KeyCode::Tab);
        assert_eq!(sight.focus, Pane::Nodes);
        press(&mut sight, KeyCode::BackTab);
        assert_eq!(sight.focus, Pane::Logs);
        sight.there[Pane::Plugins.place()] = false;
        press(&mut sight, KeyCode::BackTab);
        assert_eq!(sight.focus, Pane::Operation);
        press(&mut sight, KeyCode::Tab);
        assert_eq!(sight.focus, Pane::Logs);
        press(&mut sight, KeyCode::Char('z'));
        assert!(sight.is_whole);
        assert_eq!(press(&mut sight, KeyCode::Esc), Act::Look);
        assert!(!sight.is_whole);
        assert_eq!(press(&mut sight, KeyCode::Esc), Act::Leave);
    }

    #[test]
    fn lines_are_held_where_they_are_looked_at() {
        let mut sight = Sight::default();
        press(&mut sight, KeyCode::Char(' '));
        assert_eq!(sight.held, Some(100));
        press(&mut sight, KeyCode::Char(' '));
        assert_eq!(sight.held, None);
        press(&mut sight, KeyCode::Up);
        press(&mut sight, KeyCode::PageUp);
        assert_eq!(sight.held, Some(89));
        press(&mut sight, KeyCode::Down);
        assert_eq!(sight.held, Some(90));
        press(&mut sight, KeyCode::PageDown);
        assert_eq!(sight.held, None, "the end is reached");
        press(&mut sight, KeyCode::Home);
        assert_eq!(sight.held, Some(1));
        press(&mut sight, KeyCode::End);
        assert_eq!(sight.held, None);
        press(&mut sight, KeyCode::Left);
        press(&mut sight, KeyCode::Right);
        assert_eq!(sight.shift, SHIFT);
    }

    #[test]
    fn panes_scroll_alone() {
        let mut sight = Sight { focus: Pane::Conditions, ..Sight::default() };
        press(&mut sight, KeyCode::Down);
        press(&mut sight, KeyCode::PageDown);
        press(&mut sight, KeyCode::Up);
        assert_eq!((sight.scroll, sight.held), ([0, 10, 0, 0, 0], None));
        press(&mut sight, KeyCode::Home);
        assert_eq!(sight.scroll, [0; 5]);
        press(&mut sight, KeyCode::End);
        press(&mut sight, KeyCode::Down);
        assert_eq!(sight.scroll[1], usize::MAX);
    }
}
