//! Does it start quickly, and is it small?

use std::time::{Duration, Instant};

use k8sctl_proto::plugin::v1::HandshakeRequest;
use plugin_process::{Ceilings, Deadlines, Runner, connect};

use crate::context::Context;

/// From nothing to a handshake that is done.
const START: Duration = Duration::from_millis(250);
/// The most that it has in memory when it has planned, in MiB.
const RESIDENT: u64 = 64;
/// The quickest counts: a machine may be busy.
const TRIES: usize = 5;

/// 17: a cold start and the memory of a plan.
pub(super) async fn budget(context: &Context) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut quickest: Option<Duration> = None;
    for _ in 0..TRIES {
        match start(context).await {
            Ok(took) => quickest = Some(quickest.map_or(took, |least| least.min(took))),
            Err(why) => return vec![why],
        }
    }
    if let Some(took) = quickest.filter(|took| *took > START) {
        wrong.push(format!("it has shaken hands after {took:?}, expected at most {START:?}"));
    }
    for config in context.configs().iter().take(1) {
        let ask = context.ask(config);
        let ask = &ask;
        let run = context.runner.converse(&context.subject.package, |mut talk| async move {
            talk.plan(ask).await?;
            Ok(peak(talk.pid))
        });
        match run.await.map(|run| run.answer) {
            Ok(Some(mib)) if mib > RESIDENT => {
                wrong.push(format!("it has had {mib} MiB in memory, expected at most {RESIDENT} MiB"));
            }
            Ok(Some(_)) => {}
            Ok(None) => wrong.push("its memory cannot be read".to_owned()),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    wrong
}

/// With nothing kept from before.
async fn start(context: &Context) -> Result<Duration, String> {
    let runner = Runner::new(Deadlines::default(), Ceilings::default());
    let began = Instant::now();
    let run = runner.bare(&context.subject.package, |started| async move {
        let mut client = connect(started.stream).await?;
        let request = HandshakeRequest { versions: vec![1], ..HandshakeRequest::default() };
        let greeted = client.handshake(request).await.is_ok();
        Ok((greeted, began.elapsed()))
    });
    match run.await.map(|run| run.answer) {
        Ok((true, took)) => Ok(took),
        Ok((false, _)) => Err("it does not shake hands".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// In MiB, rounded up.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib.div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_memory() {
        assert!(peak(std::process::id()).is_some_and(|mib| mib > 0));
        assert_eq!(peak(0), None);
    }
}
