//! Where text goes and how it looks: the two streams, colours, and control characters made visible.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::Style;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use tokio::time::{MissedTickBehavior, interval};

use crate::agent::Source;
use crate::cli::{Cli, ColorChoice};
use crate::output::Format;

/// How often it is looked whether whoever reads is still there.
const LOOK: Duration = Duration::from_millis(500);

/// What every verb is given.
#[derive(Debug)]
pub struct Context {
    /// Standard output: what was asked for.
    pub out: Printer,
    /// Standard error: what went wrong.
    pub err: Printer,
    /// How results are printed.
    pub format: Format,
    /// How the host agent is found.
    pub source: Source,
    /// Whether a person can be asked.
    pub can_ask: bool,
    /// A document went to standard output.
    pub has_printed: Cell<bool>,
}

impl Context {
    /// From the global flags and what the streams are.
    pub fn of(cli: &Cli) -> Self {
        let printer = |stream: Stream| Printer::new(stream, cli.color);
        let (out, err) = (printer(Stream::Out), printer(Stream::Err));
        // A question needs no cursor that can be moved: a dumb terminal is one too.
        let story_is_seen =
            if cli.output.is_structured() { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        Self {
            can_ask: io::stdin().is_terminal() && story_is_seen,
            out,
            err,
            format: cli.output,
            has_printed: Cell::new(false),
            source: Source { socket: cli.socket.clone(), config: cli.config.clone() },
        }
    }

    /// For what ends before there is a command: a wrong command line.
    pub fn without_command(format: Format) -> Self {
        let printer = |stream: Stream| Printer::new(stream, ColorChoice::Auto);
        Self {
            out: printer(Stream::Out),
            err: printer(Stream::Err),
            format,
            source: Source::default(),
            can_ask: false,
            has_printed: Cell::new(false),
        }
    }

    /// Where to tell what goes on: standard output, unless that must stay JSON or YAML.
    pub fn story(&self) -> &Printer {
        if self.format.is_structured() { &self.err } else { &self.out }
    }
}

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Writes lines to one stream.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// Which one.
    pub stream: Stream,
    /// It is a terminal, also one on which nothing can be drawn: a control sequence would reach it.
    pub terminal: bool,
    /// It is a terminal on which lines can be drawn over.
    pub tty: bool,
    /// Colours are wanted.
    pub color: bool,
}

impl Printer {
    fn new(stream: Stream, choice: ColorChoice) -> Self {
        let terminal = match stream {
            Stream::Out => io::stdout().is_terminal(),
            Stream::Err => io::stderr().is_terminal(),
        };
        let (term, no_color) = (std::env::var_os("TERM"), std::env::var_os("NO_COLOR"));
        let (tty, color) = abilities(terminal, choice, term.as_deref(), no_color.as_deref());
        Self { stream, terminal, tty, color }
    }

    /// Writes a line. An error is for the caller: the reader may be gone.
    pub fn line(&self, text: impl Display) -> io::Result<()> {
        self.raw(format!("{text}\n"))
    }

    /// Writes text as it is, and flushes.
    pub fn raw(&self, text: impl AsRef<[u8]>) -> io::Result<()> {
        match self.stream {
            Stream::Out => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_ref())?;
                out.flush()
            }
            Stream::Err => io::stderr().lock().write_all(text.as_ref()),
        }
    }

    /// Writes text as it is, and lets what else runs on this thread go on while its reader takes his time: a connection
    /// that says nothing for half a minute is closed.
    pub async fn patiently(&self, text: Vec<u8>) -> io::Result<()> {
        let printer = *self;
        if printer.is_quick() {
            return printer.raw(text);
        }
        tokio::task::spawn_blocking(move || printer.raw(text)).await.map_err(io::Error::other)?
    }

    /// Does what is done for this stream's reader only, and ends when he is gone: whoever reads `logs -f | grep -m1 x` has
    /// his line, and does not wait for one more. `work` is left between two awaits then.
    pub async fn while_read<T, E: From<io::Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            // An end of its own comes first.
            biased;
            done = work => done,
            () = self.reader_gone() => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        }
    }

    async fn reader_gone(&self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.has_lost_its_reader() {
            looks.tick().await;
        }
    }

    /// A pipe says so; of all else it is not known.
    fn has_lost_its_reader(&self) -> bool {
        let (out, err) = (io::stdout(), io::stderr());
        let mut asked = [match self.stream {
            Stream::Out => PollFd::new(&out, PollFlags::empty()),
            Stream::Err => PollFd::new(&err, PollFlags::empty()),
        }];
        let looked = poll(&mut asked, Some(&Timespec::default()));
        looked.is_ok() && asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }

    /// Nobody is waited for: it goes into a file, or nowhere.
    fn is_quick(&self) -> bool {
        let (stat, is_terminal) = match self.stream {
            Stream::Out => (rustix::fs::fstat(io::stdout()), io::stdout().is_terminal()),
            Stream::Err => (rustix::fs::fstat(io::stderr()), io::stderr().is_terminal()),
        };
        stat.is_ok_and(|stat| match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => true,
            FileType::CharacterDevice => !is_terminal,
            _ => false,
        })
    }

    /// The text in this style, where colours are wanted.
    pub fn paint(&self, style: Style, text: impl Display) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

/// Whether lines can be drawn over, and whether colours are wanted (<https://no-color.org>: an empty NO_COLOR is none).
fn abilities(
    terminal: bool,
    choice: ColorChoice,
    term: Option<&OsStr>,
    no_color: Option<&OsStr>,
) -> (bool, bool) {
    let tty = terminal && term.is_none_or(|term| term != "dumb");
    let color = match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => tty && no_color.is_none_or(|value| value.is_empty()),
    };
    (tty, color)
}

/// The few styles that there are.
pub mod styles {
    use anstyle::{AnsiColor, Style};

    /// Done, ready.
    pub const GOOD: Style = AnsiColor::Green.on_default();
    /// Wants attention.
    pub const WARN: Style = AnsiColor::Yellow.on_default();
    /// Failed, or destroys something.
    pub const BAD: Style = AnsiColor::Red.on_default().bold();
    /// In the background.
    pub const DIM: Style = Style::new().dimmed();
    /// In the foreground.
    pub const STRONG: Style = Style::new().bold();
    /// Names of sources, links.
    pub const NAME: Style = AnsiColor::Cyan.on_default();
    /// Of the nodes in a log, one after the other.
    pub const NODES: [Style; 6] = [
        AnsiColor::Cyan.on_default(),
        AnsiColor::Green.on_default(),
        AnsiColor::Magenta.on_default(),
        AnsiColor::Blue.on_default(),
        AnsiColor::BrightCyan.on_default(),
        AnsiColor::BrightMagenta.on_default(),
    ];
    /// Cannot be missed.
    pub const BOX: Style =
        AnsiColor::Black.on_default().bg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow))).bold();
}

/// Whether a character moves the cursor, colours or reorders text: control characters, but for tabs, and the marks that
/// change the direction of writing.
pub fn hides(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Text of strangers in which every such character ([`hides`]) is made visible.
pub fn visible(text: &str) -> String {
    if !text.contains(hides) {
        return text.to_owned();
    }
    let mut seen = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => seen.push_str("\\n"),
            '\r' => seen.push_str("\\r"),
            c if hides(c) && (c as u32) < 0x80 => seen.push_str(&format!("\\x{:02x}", c as u32)),
            c if hides(c) => seen.push_str(&format!("\\u{{{:x}}}", c as u32)),
            c => seen.push(c),
        }
    }
    seen
}

/// A length of time as a person says it: `8s`, `4m12s`, `3h05m`, `2d4h`.
pub fn duration(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Bytes as a person says them: `30.0 GiB`.
pub fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(visible("a\x1b[31mb\r\n\u{9b}c\u{202e}"), "a\\x1b[31mb\\r\\n\\u{9b}c\\u{202e}");
        assert_eq!(visible("tab\tä ✓"), "tab\tä ✓");
    }

    #[test]
    fn colours_and_drawing_are_for_terminals_that_can_and_people_who_want() {
        let of = |terminal, choice, term: Option<&str>, no_color: Option<&str>| {
            abilities(terminal, choice, term.map(OsStr::new), no_color.map(OsStr::new))
        };
        let (auto, always, never) = (ColorChoice::Auto, ColorChoice::Always, ColorChoice::Never);
        let xterm = Some("xterm-256color");
        assert_eq!(of(true, auto, xterm, None), (true, true));
        assert_eq!(of(true, auto, xterm, Some("1")), (true, false));
        assert_eq!(of(true, auto, xterm, Some("")), (true, true));
        assert_eq!(of(true, auto, Some("dumb"), None), (false, false));
        assert_eq!(of(false, auto, xterm, None), (false, false));
        // What the command line says goes before what the environment says.
        assert_eq!(of(false, always, Some("dumb"), Some("1")), (false, true));
        assert_eq!(of(true, never, xterm, None), (true, false));
    }

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!([8, 252, 11_100, 187_200].map(duration), ["8s", "4m12s", "3h05m", "2d4h"]);
        assert_eq!([12, 32_212_254_720].map(bytes), ["12 B", "30.0 GiB"]);
    }
}
