//! The user's cluster file: reading it, and showing the mistakes in it with file, line and hint.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use k8sctl_proto::control::v1 as control;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::{self, HostRoom, Parsed};

use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, Printer, styles, visible};
use crate::view::DiagnosticView;

/// A file as it is.
#[derive(Debug)]
pub struct SpecFile {
    /// Name as the user wrote it.
    pub name: String,
    /// Content.
    pub text: String,
}

impl SpecFile {
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
            return Ok(Self { name, text: String::from_utf8_lossy(&bytes).into_owned() });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { name, text }),
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

    /// Parses it here, so that mistakes show without a host agent; warnings are left to the host agent's answer.
    pub fn check(&self, context: &Context) -> Result<Parsed, Ended> {
        // The host agent is on this host: what cannot fit here is told beside the other mistakes.
        let host =
            HostRoom { memory_bytes: memory_of_this_host(), cpus: u32::MAX, free_disk_bytes: u64::MAX };
        spec::parse_on(&self.text, &host).map_err(|mistakes| {
            let mistakes: Vec<_> = mistakes.into_iter().map(DiagnosticView::from).collect();
            match report(context, &self.name, &self.text, &mistakes) {
                Ok(()) => Ended::Reported(Exit::InvalidSpec),
                Err(error) => Ended::Output(error),
            }
        })
    }

    /// For the wire.
    pub fn to_wire(&self) -> control::SpecFile {
        control::SpecFile { name: self.name.clone(), text: self.text.clone() }
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
pub fn warn(context: &Context, file: &SpecFile, warnings: &[DiagnosticView]) -> io::Result<()> {
    print(&context.err, &file.name, &file.text, warnings)
}

/// Shows all mistakes: on standard error for people, as a document on standard output for programs.
pub fn report(context: &Context, name: &str, text: &str, found: &[DiagnosticView]) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Document<'a> {
        file: &'a str,
        diagnostics: &'a [DiagnosticView],
    }
    if context.format.is_structured() {
        output::document(&context.out, context.format, &Document { file: name, diagnostics: found })?;
    }
    print(&context.err, name, text, found)?;
    let errors = found.iter().filter(|one| !one.warning).count();
    let warnings = found.len() - errors;
    let count = |n: usize, word: &str| if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") };
    let and = if warnings > 0 { format!(", {}", count(warnings, "warning")) } else { String::new() };
    let line = format!("{}{and} in {name}; nothing was changed", count(errors, "mistake"));
    context.err.line(context.err.paint(styles::STRONG, line))
}

fn print(printer: &Printer, name: &str, text: &str, found: &[DiagnosticView]) -> io::Result<()> {
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
        if let Some(line) = (one.line as usize).checked_sub(1).and_then(|index| text.lines().nth(index)) {
            // A tab would put the mark elsewhere.
            let line = line.replace('\t', " ");
            let number = format!("{:>5} | ", one.line);
            printer.line(format!("{}{}", printer.paint(styles::DIM, number), visible(&line)))?;
            if one.column > 0 && one.column as usize <= line.chars().count() + 1 {
                let before: String = line.chars().take(one.column as usize - 1).collect();
                let pad = " ".repeat(visible(&before).chars().count());
                printer.line(format!(
                    "{}{pad}{}",
                    printer.paint(styles::DIM, "      | "),
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
