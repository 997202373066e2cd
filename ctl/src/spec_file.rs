//! The user's cluster file: reading it, and showing the mistakes in it with file, line and hint.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use k8sctl_proto::control::v1 as control;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::{self, Diagnostic, HostRoom, Parsed};

use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, Printer, styles, visible};
use crate::view::DiagnosticView;

/// A file as it is, and the lock file beside it.
#[derive(Debug)]
pub struct SpecFile {
    /// Name as the user wrote it.
    pub name: String,
    /// Content.
    pub text: String,
    /// What `k8sctl.lock` beside it says; empty: there is none.
    pub lock_text: String,
    /// What is not in that is refused.
    pub locked: bool,
}

impl SpecFile {
    /// The same with a lock file, or what is to be taken for it.
    pub fn with_lock(self, lock_text: &str, locked: bool) -> Self {
        Self { lock_text: lock_text.to_owned(), locked, ..self }
    }

    /// Reads the file; `-` is standard input.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let name =
            if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let bytes = if path == Path::new("-") {
            read_limited(io::stdin().lock())
        } else {
            File::open(path).and_then(read_limited)
        };
        let failure = |reason: String, next: String| {
            Failure::new("SPEC-UNREADABLE", format!("file {name}"), reason, next)
        };
        let bytes = bytes.map_err(|error| {
            let reason = format!("cannot read it: {error}");
            match error.kind() {
                io::ErrorKind::NotFound => failure(
                    "there is no such file".to_owned(),
                    "name your cluster file with -f FILE; examples/home.toml is one to start from".to_owned(),
                ),
                io::ErrorKind::IsADirectory => failure(
                    "it is a directory".to_owned(),
                    format!("name the cluster file itself: -f {}", path.join("cluster.toml").display()),
                ),
                io::ErrorKind::PermissionDenied => {
                    failure(reason, "make it readable for you, or name another file with -f FILE".to_owned())
                }
                _ => failure(reason, "name another file with -f FILE".to_owned()),
            }
        })?;
        if bytes.len() > spec::MAX_TEXT_BYTES {
            // Cut anywhere; the parser says that it is too long.
            return Ok(Self::unlocked(name, String::from_utf8_lossy(&bytes).into_owned()));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::unlocked(name, text)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
                Err(failure(
                    format!("it is no text: line {line} is not UTF-8"),
                    "save it as UTF-8 in your editor, or name another file with -f FILE".to_owned(),
                ))
            }
        }
    }

    fn unlocked(name: String, text: String) -> Self {
        Self { name, text, lock_text: String::new(), locked: false }
    }

    /// Parses it here, so that mistakes show without a host agent; warnings are left to the host agent's answer.
    pub fn check(&self, context: &Context) -> Result<Parsed, Ended> {
        // The host agent is on this host: what cannot fit here is told beside the other mistakes.
        let host =
            HostRoom { memory_bytes: memory_of_this_host(), cpus: u32::MAX, free_disk_bytes: u64::MAX };
        spec::parse_on(&self.text, &host).map_err(|mistakes| self.refuse(context, mistakes))
    }

    /// The name of its cluster. Other mistakes in it are no reason to keep a cluster.
    pub fn cluster_name(&self, context: &Context) -> Result<String, Ended> {
        spec::cluster_name(&self.text).map_err(|mistakes| self.refuse(context, mistakes))
    }

    fn refuse(&self, context: &Context, mistakes: Vec<Diagnostic>) -> Ended {
        let mistakes: Vec<_> = mistakes.into_iter().map(DiagnosticView::from).collect();
        match report(context, &self.name, &self.text, &mistakes) {
            Ok(()) => Ended::Reported(Exit::InvalidSpec),
            Err(error) => Ended::Output(error),
        }
    }

    /// For the wire.
    pub fn to_wire(&self) -> control::SpecFile {
        control::SpecFile {
            name: self.name.clone(),
            text: self.text.clone(),
            lock_text: self.lock_text.clone(),
            locked: self.locked,
        }
    }
}

/// `MemTotal`; where it cannot be read, any.
fn memory_of_this_host() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    kib.map_or(u64::MAX, |kib: u64| kib.saturating_mul(1024))
}

/// A file that never ends, or is no spec at all, is not read to its end: one byte more than allowed is enough for the
/// parser to refuse it.
fn read_limited(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(spec::MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the host agent found: warnings are returned; where there is more than those, all is shown and ends the run.
pub fn judge(
    context: &Context,
    file: &SpecFile,
    found: Vec<control::Diagnostic>,
) -> Result<Vec<DiagnosticView>, Ended> {
    let found: Vec<_> = found.into_iter().map(DiagnosticView::from).collect();
    if found.iter().all(|one| one.warning) {
        return Ok(found);
    }
    report(context, &file.name, &file.text, &found)?;
    Err(Ended::Reported(Exit::InvalidSpec))
}

/// Shows warnings.
pub fn warn(context: &Context, name: &str, text: &str, warnings: &[DiagnosticView]) -> io::Result<()> {
    print(&context.err, name, text, warnings)
}

/// Shows all mistakes: on standard error for people, as a document on standard output for programs.
pub fn report(context: &Context, name: &str, text: &str, found: &[DiagnosticView]) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Document<'a> {
        file: &'a str,
        diagnostics: &'a [DiagnosticView],
    }
    if context.format.is_structured() {
        output::document(context, &Document { file: name, diagnostics: found })?;
    }
    print(&context.err, name, text, found)?;
    // The last one says that there are more; how many of each kind is not known then.
    let told: Vec<_> = found.iter().filter(|one| one.id != "SPEC-MORE").collect();
    let more = if told.len() < found.len() { "more than " } else { "" };
    let errors = told.iter().filter(|one| !one.warning).count();
    let warnings = told.len() - errors;
    let count = |n: usize, word: &str| if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") };
    let and = if warnings > 0 { format!(", {}", count(warnings, "warning")) } else { String::new() };
    let line = format!("{more}{}{and} in {name}; nothing was changed", count(errors, "mistake"));
    context.err.line(context.err.paint(styles::STRONG, line))
}

/// Most characters of a line that are shown, before and behind the mark.
const AROUND: usize = 120;

fn print(printer: &Printer, name: &str, text: &str, found: &[DiagnosticView]) -> io::Result<()> {
    let lines: Vec<&str> = if found.is_empty() { Vec::new() } else { text.lines().collect() };
    for one in found {
        let place = match (one.line, one.column) {
            (0, _) => visible(name),
            (line, 0) => format!("{}:{line}", visible(name)),
            (line, column) => format!("{}:{line}:{column}", visible(name)),
        };
        let (word, style) = if one.warning { ("warning", styles::WARN) } else { ("error", styles::BAD) };
        let head = printer.paint(style, format!("{word} {}", visible(&one.id)));
        let field = if one.field.is_empty() { String::new() } else { format!(" {}", visible(&one.field)) };
        printer.line(format!(
            "{}: {head}{field}: {}",
            printer.paint(styles::STRONG, place),
            visible(&one.message)
        ))?;
        let line = (one.line as usize).checked_sub(1).and_then(|index| lines.get(index));
        if let Some((line, pad)) = line.map(|line| excerpt(line, one.column as usize)) {
            let number = format!("{:>5} | ", one.line);
            printer.line(format!("{}{line}", printer.paint(styles::DIM, number)))?;
            if let Some(pad) = pad {
                printer.line(format!(
                    "{}{}{}",
                    printer.paint(styles::DIM, "      | "),
                    " ".repeat(pad),
                    printer.paint(style, "^")
                ))?;
            }
        }
        if !one.hint.is_empty() {
            printer.line(format!("      {}: {}", printer.paint(styles::GOOD, "hint"), visible(&one.hint)))?;
        }
    }
    Ok(())
}

/// A line as it is shown, cut around a 1-based column where it is long, and how far the mark below it is from the
/// left; no mark where the column is 0 or behind the line.
fn excerpt(line: &str, column: usize) -> (String, Option<usize>) {
    let at = column.saturating_sub(1);
    let from = at.saturating_sub(AROUND);
    // A tab would put the mark elsewhere.
    let tame = |part: String| visible(&part.replace('\t', " "));
    let mut rest = line.chars().skip(from);
    let before: String = rest.by_ref().take(at - from).collect();
    let is_on_line = column > 0 && before.chars().count() == at - from;
    let behind: String = rest.by_ref().take(AROUND).collect();
    let (head, tail) = (if from > 0 { "…" } else { "" }, if rest.next().is_some() { "…" } else { "" });
    let before = format!("{head}{}", tame(before));
    let pad = is_on_line.then(|| before.chars().count());
    (format!("{before}{}{tail}", tame(behind)), pad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_with_a_mark_under_its_column() {
        assert_eq!(excerpt("a\tb = 1", 3), ("a b = 1".to_owned(), Some(2)));
        assert_eq!(excerpt("ab", 3), ("ab".to_owned(), Some(2)));
        assert_eq!(excerpt("ab", 4).1, None);
        assert_eq!(excerpt("ab", 0), ("ab".to_owned(), None));
        assert_eq!(excerpt("\x1b[2J = 1", 2), ("\\x1b[2J = 1".to_owned(), Some(4)));
    }

    #[test]
    fn a_long_line_is_cut_around_its_column() {
        let line = format!("{}!{}", "a".repeat(500_000), "b".repeat(500_000));
        let (shown, pad) = excerpt(&line, 500_001);
        assert_eq!(shown.chars().nth(pad.expect("it is on the line")), Some('!'));
        assert!(shown.chars().count() < 250 && shown.starts_with("…a") && shown.ends_with("b…"), "{shown}");
    }
}
