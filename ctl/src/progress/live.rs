//! Progress on a terminal: a line per object with its phase, its time and its steps, drawn over as it changes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::Display;
use crate::terminal::{Printer, Stream, duration, styles, visible};
use crate::view::{OperationView, ProgressView, StepView, seconds_since};

/// How often the spinners turn.
const TICK: Duration = Duration::from_millis(120);

/// Draws lines over.
#[derive(Debug)]
pub(super) struct Live {
    printer: Printer,
    all: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
    started: BTreeMap<String, Option<String>>,
}

impl Live {
    pub(super) fn new(printer: Printer) -> Self {
        let target = match printer.stream {
            Stream::Out => ProgressDrawTarget::stdout(),
            Stream::Err => ProgressDrawTarget::stderr(),
        };
        Self {
            printer,
            all: MultiProgress::with_draw_target(target),
            bars: BTreeMap::new(),
            started: BTreeMap::new(),
        }
    }

    fn bar(&mut self, object: &str) -> ProgressBar {
        let all = &self.all;
        let bar = self.bars.entry(object.to_owned()).or_insert_with(|| {
            let bar = all.add(ProgressBar::new_spinner());
            bar.set_style(style(None));
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.clone()
    }

    /// Counts from when the host agent says that it began.
    fn set_age(&mut self, bar: &ProgressBar, progress: &ProgressView) {
        let known = self.started.insert(progress.object.clone(), progress.started.clone());
        if known.as_ref() != Some(&progress.started) {
            let age = seconds_since(progress.started.as_deref()).and_then(|age| u64::try_from(age).ok());
            // The clone is the same bar.
            let _ = bar.clone().with_elapsed(Duration::from_secs(age.unwrap_or_default()));
        }
    }
}

/// A line that waits turns and counts; one that is done or failed has a mark. The message is last and may be cut.
fn style(mark: Option<String>) -> ProgressStyle {
    let template = match &mark {
        None => "{spinner} {prefix} {age}  {wide_msg}".to_owned(),
        Some(mark) => format!("{mark} {{prefix}}          {{wide_msg}}"),
    };
    ProgressStyle::with_template(&template)
        .expect("the template is fixed")
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        .with_key("age", |state: &ProgressState, line: &mut dyn fmt::Write| {
            // A line that cannot be written is drawn again at the next tick.
            let _ = write!(line, "{:>7}", duration(state.elapsed().as_secs() as i64));
        })
}

impl Display for Live {
    fn show(&mut self, operation: &OperationView) -> io::Result<()> {
        let width =
            operation.progress.iter().map(|one| visible(&one.object).chars().count()).max().unwrap_or(0);
        for progress in &operation.progress {
            let bar = self.bar(&progress.object);
            let name = format!("{:<width$}", visible(&progress.object));
            bar.set_prefix(self.printer.paint(styles::STRONG, name));
            bar.set_message(describe(&self.printer, progress));
            self.set_age(&bar, progress);
            if progress.done {
                bar.set_style(style(Some(self.printer.paint(styles::GOOD, "✓"))));
                bar.disable_steady_tick();
                bar.tick();
            } else if operation.state == "failed" {
                bar.set_style(style(Some(self.printer.paint(styles::BAD, "✗"))));
                bar.disable_steady_tick();
                bar.tick();
            } else {
                bar.set_style(style(None));
                bar.enable_steady_tick(TICK);
            }
        }
        // Objects that are gone keep no line.
        let gone = |object: &String| !operation.progress.iter().any(|progress| progress.object == *object);
        let names: Vec<_> = self.bars.keys().filter(|object| gone(object)).cloned().collect();
        for bar in names.iter().filter_map(|name| self.bars.remove(name)) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        Ok(())
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        self.all.println(self.printer.paint(styles::WARN, text))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.bars.values().for_each(ProgressBar::abandon);
        // The last line has no end of its own.
        if self.bars.is_empty() { Ok(()) } else { self.printer.line("") }
    }
}

fn describe(printer: &Printer, progress: &ProgressView) -> String {
    let phase = visible(&progress.phase);
    let phase = if progress.done { printer.paint(styles::GOOD, phase) } else { phase };
    let steps: Vec<_> = progress.steps.iter().map(|step| mark(printer, step)).collect();
    let steps = if steps.is_empty() { String::new() } else { format!("  {}", steps.join(" ")) };
    let message = progress.message.as_deref().map(visible).unwrap_or_default();
    let message =
        if message.is_empty() { message } else { format!("  {}", printer.paint(styles::DIM, message)) };
    format!("{phase}{steps}{message}")
}

fn mark(printer: &Printer, step: &StepView) -> String {
    let name = visible(&step.name);
    match step.state {
        "done" => printer.paint(styles::GOOD, format!("{name} ✓")),
        "failed" => printer.paint(styles::BAD, format!("{name} ✗")),
        "running" => format!("{name} …"),
        _ => printer.paint(styles::DIM, format!("{name} ·")),
    }
}
