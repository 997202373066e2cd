//! One line of what goes on: drawn over on a terminal; off it a line now and then, so that a download does not fill
//! a log.

use std::io;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::terminal::{Printer, Stream, visible};

/// The least time between two lines that differ only in their numbers, off a terminal.
const INTERVAL: Duration = Duration::from_secs(5);

/// Shows the newest of a stream of lines.
#[derive(Debug)]
pub struct Ticker {
    printer: Printer,
    bar: Option<ProgressBar>,
    last: Option<(String, Instant)>,
}

impl Ticker {
    /// Shows nothing yet.
    pub fn new(printer: &Printer) -> Self {
        let bar = printer.tty.then(|| {
            let target = match printer.stream {
                Stream::Out => ProgressDrawTarget::stdout(),
                Stream::Err => ProgressDrawTarget::stderr(),
            };
            let style = ProgressStyle::with_template("{spinner} {elapsed:>4}  {wide_msg}");
            let style = style.expect("the template is fixed").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ");
            let bar = ProgressBar::with_draw_target(None, target).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { printer: *printer, bar, last: None }
    }

    /// Shows this line. Empty lines are not shown.
    pub fn show(&mut self, line: &str) -> io::Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        if let Some(bar) = &self.bar {
            bar.set_message(visible(line));
            return Ok(());
        }
        let kind: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
        let now = Instant::now();
        if let Some((last, when)) = &self.last
            && *last == kind
            && now.duration_since(*when) < INTERVAL
        {
            return Ok(());
        }
        self.last = Some((kind, now));
        self.printer.line(visible(line))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
