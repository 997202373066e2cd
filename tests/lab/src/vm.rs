//! Commands inside of a VM, through the debug unit that only the lab's image has. There is no ssh in a node.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{Lab, wait_until};

/// The unit's virtio port.
const CHANNEL: &str = "org.k8sctl.debug.0";
const MINUTE: Duration = Duration::from_secs(60);

/// Root's shell in one VM; a command a call.
#[derive(Debug)]
pub struct Shell {
    node: String,
    answers: BufReader<UnixStream>,
}

impl Shell {
    /// Plugs the port into the running VM, where it is not yet, and waits until the unit answers.
    pub fn open(lab: &Lab, node: &str) -> Result<Self> {
        if socket(lab, node)?.is_none() {
            let xml = format!("<channel type='unix'><target type='virtio' name='{CHANNEL}'/></channel>");
            let file = lab.file("debug-channel.xml");
            std::fs::write(&file, xml)?;
            lab.run("virsh", &["attach-device", node, &file.to_string_lossy(), "--live"], MINUTE)?;
        }
        let path = socket(lab, node)?.with_context(|| format!("{node} has no {CHANNEL}"))?;
        let mut shell = None;
        wait_until(&format!("the debug unit of {node} answers"), 5 * MINUTE, || {
            let stream = UnixStream::connect(&path).with_context(|| path.clone())?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut new = Self { node: node.to_owned(), answers: BufReader::new(stream) };
            new.come_in_step()?;
            new.answers.get_ref().set_read_timeout(Some(5 * MINUTE))?;
            shell = Some(new);
            Ok(true)
        })?;
        shell.context("it has answered")
    }

    /// Reads past the answers to those who had the port before and did not wait for them.
    fn come_in_step(&mut self) -> Result<()> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut answer = self.try_run(&format!("echo {mark}"));
        loop {
            match answer {
                Ok((_, printed)) if printed.trim() == mark => return Ok(()),
                Err(error) if error.is::<std::io::Error>() => return Err(error),
                // Another's answer, or the rest of one.
                _ => answer = self.answer(),
            }
        }
    }

    /// Runs a command of one line; gives its exit status and all that it printed.
    pub fn try_run(&mut self, command: &str) -> Result<(i32, String)> {
        ensure!(!command.contains('\n'), "one line: {command}");
        let told = format!("`{command}` in {}", self.node);
        self.answers.get_ref().write_all(format!("{command}\n").as_bytes()).with_context(|| told.clone())?;
        self.answer().with_context(|| told)
    }

    fn answer(&mut self) -> Result<(i32, String)> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into());
        }
        parse(&line)
    }

    /// Runs a command that must succeed.
    pub fn run(&mut self, command: &str) -> Result<String> {
        let (status, output) = self.try_run(command)?;
        ensure!(status == 0, "`{command}` in {} ended with {status}\n{output}", self.node);
        Ok(output)
    }

    /// Runs a command that must succeed and print a number.
    pub fn number(&mut self, command: &str) -> Result<u64> {
        let output = self.run(command)?;
        output.trim().parse().with_context(|| format!("`{command}` in {} printed {output}", self.node))
    }
}

/// Exit status and output of an answer, `0 aGVyZQ==`; behind the blank of a command that printed nothing is nothing.
fn parse(line: &str) -> Result<(i32, String)> {
    let (status, output) =
        line.trim_end_matches('\n').split_once(' ').with_context(|| format!("{line:?}"))?;
    Ok((status.parse()?, String::from_utf8_lossy(&STANDARD.decode(output)?).into_owned()))
}

/// Where libvirt put the host's end of the port.
fn socket(lab: &Lab, node: &str) -> Result<Option<String>> {
    let xml = lab.run("virsh", &["dumpxml", node], MINUTE)?;
    let path =
        xml.lines().filter(|line| line.contains("<source mode='bind'")).find(|line| line.contains(CHANNEL));
    Ok(path.and_then(|line| Some(line.split_once("path='")?.1.split_once('\'')?.0.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_answer_has_a_status_and_perhaps_an_output() {
        assert_eq!(parse("0 aGVyZQo=\n").expect("an answer"), (0, "here\n".to_owned()));
        assert_eq!(parse("3 \n").expect("an answer"), (3, String::new()));
        for rest in ["aGVyZQo=\n", "\n", "0\n", "0 a\n"] {
            parse(rest).expect_err("the rest of an answer is none");
        }
    }
}
