//! What code under test logs.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Lines of this thread.
#[derive(Clone, Debug)]
pub(crate) struct LogLines {
    level: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Keeps what this thread logs at `level` or a worse one, until the guard is dropped.
pub(crate) fn collect(level: Level) -> (LogLines, DefaultGuard) {
    let lines = LogLines { level, lines: Arc::default() };
    (lines.clone(), tracing::subscriber::set_default(lines))
}

impl LogLines {
    /// Those so far: `field=value`, each with a space before it.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// How many there are so far.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for LogLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.lock().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
