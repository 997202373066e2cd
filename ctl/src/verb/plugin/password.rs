//! The password of a key: from a terminal, which does not show it, or from a file. However the question ends, the terminal
//! shows again what is typed.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use k8sctl_types::failure::Failure;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::sign::refused;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::signals::Signals;
use crate::terminal::Context;

/// The first line of a file, or of standard input for `-`.
pub(super) fn of_file(file: &Path) -> Result<String, Failure> {
    let line = if file == Path::new("-") {
        first_line(io::stdin().lock())
    } else {
        File::open(file).and_then(|file| first_line(BufReader::new(file)))
    };
    line.map_err(|error| {
        let next = "write the password into its first line, or name - for standard input";
        refused("PLUGIN-KEY", file, format!("cannot read the password: {error}"), next)
    })
}

/// A line that the terminal does not show. Ctrl-C and its like end the run, and leave a terminal that shows all again.
pub(super) async fn ask(context: &Context, question: &str) -> Result<String, Ended> {
    // Before the terminal is changed: nobody else would change it back.
    let mut signals = Signals::new()?;
    let hidden = Hidden::new()?;
    context.story().raw(question)?;
    let typed = tokio::task::spawn_blocking(|| first_line(io::stdin().lock()));
    let line = tokio::select! {
        // Cancel-safe: a signal that is not taken is kept.
        () = signals.any() => None,
        // Cancel-safe: left alone, the reader ends with the process, and what it reads is nobody's.
        line = typed => Some(line),
    };
    drop(hidden);
    // What was typed has no end of its line there. It may be the terminal that went.
    let ended = context.story().line("");
    let Some(line) = line else { return Err(Ended::Reported(Exit::Interrupted)) };
    ended?;
    Ok(line.map_err(io::Error::other)??)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing. What was typed and not read is no command for whoever reads next.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

fn first_line(mut from: impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("password");
        std::fs::write(&file, "two words \r\nmore\n").expect("written");
        assert_eq!(of_file(&file).expect("readable"), "two words ");
        assert_eq!(of_file(&dir.path().join("nothing")).expect_err("not there").id, "PLUGIN-KEY");
    }
}
