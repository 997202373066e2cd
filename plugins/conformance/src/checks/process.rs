//! Is its process one that a host agent can be rid of at any time, and that has nothing but its socket?

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8sctl_proto::plugin::v1::HandshakeRequest;
use plugin_process::{
    Ceilings, ConversationError, Deadlines, PlanAsk, Run, RunError, RunErrorKind, Runner, Started, Talk,
    connect,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::context::{Context, patient};

/// How long it may live when its socket is closed.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long it is waited for in the check: long enough to tell how late it is.
const WAIT: Duration = Duration::from_secs(6);
/// How long a slow host reads.
const SLOWLY: Duration = Duration::from_secs(2);
/// Between two bytes of it.
const PAUSE: Duration = Duration::from_millis(20);

/// 15: it ends when the socket is closed in the middle of a plan, and when whoever reads is slow and goes.
pub(super) async fn cancel(context: &Context) -> Vec<String> {
    let deadlines = Deadlines { goodbye: WAIT, ..patient() };
    let runner = Runner::new(deadlines, Ceilings::default());
    let package = &context.subject.package;
    let ask = context.configs().first().map(|config| context.ask(config)).unwrap_or_default();
    let in_the_middle = runner.converse(package, |talk| begin(talk, &ask)).await;
    let mut wrong = Vec::from_iter(lived_on("in the middle of a plan", in_the_middle));
    let slowly = runner.bare(package, slow_host).await;
    wrong.extend(lived_on("after it was read slowly", slowly));
    wrong
}

/// Asked right after its end, with the moment in which its socket was closed.
fn lived_on(how: &str, run: Result<Run<Instant>, RunError>) -> Option<String> {
    match run {
        Ok(run) if run.answer.elapsed() > GOODBYE => {
            Some(format!("its socket was closed {how}, and it did not end within {GOODBYE:?}"))
        }
        Ok(_) => None,
        Err(error) => Some(format!("its socket was closed {how}: {error}")),
    }
}

/// When the socket was closed.
async fn begin(mut talk: Talk, ask: &PlanAsk) -> Result<Instant, ConversationError> {
    talk.begin_plan(ask).await?;
    drop(talk);
    Ok(Instant::now())
}

/// Reads byte by byte for a while, whatever that brings, and goes.
async fn slow_host(started: Started) -> Result<Instant, ConversationError> {
    let pair = UnixStream::pair().map_err(|error| ConversationError::Connect(error.to_string()))?;
    let (near, far) = pair;
    let (mut from_plugin, mut to_plugin) = started.stream.into_split();
    let (mut from_us, mut to_us) = far.into_split();
    let there = tokio::io::copy(&mut from_us, &mut to_plugin);
    let back = async {
        let mut byte = [0];
        while from_plugin.read_exact(&mut byte).await.is_ok() && to_us.write_all(&byte).await.is_ok() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let talk = async {
        let mut client = connect(near).await.ok();
        if let Some(client) = &mut client {
            let request = HandshakeRequest { versions: vec![1], ..HandshakeRequest::default() };
            let _ = client.handshake(request).await;
        }
        // Whatever came of it, the socket stays open.
        std::future::pending::<()>().await;
        drop(client);
    };
    // Whichever it is that ends: all of them are over then, and nothing that they have read is wanted.
    tokio::select! {
        _ = there => {}
        () = back => {}
        () = talk => {}
        () = tokio::time::sleep(SLOWLY) => {}
    }
    Ok(Instant::now())
}

/// 16: one that stands still is ended at the deadline, and nothing of it is left.
pub(super) async fn deadline(context: &Context) -> Vec<String> {
    const TIME: Duration = Duration::from_millis(1500);
    let deadlines =
        Deadlines { conversation: TIME, goodbye: Duration::from_millis(200), ..Deadlines::default() };
    let runner = Runner::new(deadlines, Ceilings::default());
    let ask = context.configs().first().map(|config| context.ask(config)).unwrap_or_default();
    let stopped = AtomicU32::new(0);
    let (ask, stopped) = (&ask, &stopped);
    let run = runner.converse(&context.subject.package, |mut talk| async move {
        stop(talk.pid).map_err(|why| ConversationError::Contract(format!("it cannot be stopped: {why}")))?;
        stopped.store(talk.pid, Ordering::Relaxed);
        talk.plan(ask).await
    });
    let mut wrong = match run.await {
        Err(error) if error.kind == RunErrorKind::Deadline => Vec::new(),
        Err(error) => vec![format!("it was stopped, expected its end at the deadline: {error}")],
        Ok(_) => vec!["it was stopped, and answers nevertheless".to_owned()],
    };
    let pid = stopped.load(Ordering::Relaxed);
    if pid != 0 && std::path::Path::new(&format!("/proc/{pid}")).exists() {
        wrong.push("its process is still there after the deadline".to_owned());
    }
    wrong
}

fn stop(pid: u32) -> Result<(), String> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no number of a process")?;
    kill_process(pid, Signal::STOP).map_err(|error| error.to_string())
}

/// 18: its process has the filters, and no file but its socket and what it has made itself.
pub(super) async fn sandbox(context: &Context) -> Vec<String> {
    match context.runner.converse(&context.subject.package, look_at).await {
        Ok(run) => run.answer,
        Err(error) => vec![error.to_string()],
    }
}

async fn look_at(talk: Talk) -> Result<Vec<String>, ConversationError> {
    let wrong = look(talk.pid);
    // Until here it has to live.
    drop(talk);
    Ok(wrong)
}

fn look(pid: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    for (name, expected) in [("NoNewPrivs:", "1"), ("Seccomp:", "2")] {
        let found = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        if found != expected {
            wrong.push(format!("its process has {name} {found:?}, expected {expected}"));
        }
    }
    // Without the right to look there, the kernel has told enough.
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return wrong };
    for entry in entries.flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        let target = std::fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
        if !is_its_own(&number, &target) {
            wrong.push(format!("its process has {target} open, as {number}"));
        }
    }
    wrong
}

/// Of 0 to 3 the launcher has made sure; others it can only have made: pairs, timers, queues.
fn is_its_own(number: &str, target: &str) -> bool {
    let made = ["anon_inode:", "socket:", "pipe:"].iter().any(|kind| target.starts_with(kind));
    match number {
        "0" | "1" => target == "/dev/null",
        _ => made || target.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_told_from_what_it_has_made() {
        for (number, target, is_fine) in [
            ("0", "/dev/null", true),
            ("1", "/etc/passwd", false),
            ("2", "pipe:[1]", true),
            ("3", "socket:[1]", true),
            ("4", "anon_inode:[eventpoll]", true),
            ("5", "/dev/kvm", false),
            ("6", "/memfd:k8sctl-plugin (deleted)", false),
        ] {
            assert_eq!(is_its_own(number, target), is_fine, "{number} {target}");
        }
    }

    #[test]
    fn a_process_without_filters_is_told() {
        // One that is not there has none.
        assert_eq!(look(u32::MAX).len(), 2);
    }
}
