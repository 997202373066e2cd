//! The node's own logs: what was asked for of the journal and of the files of containers, merged by time.
//!
//! What there is when the stream begins is read to its end first, in exact order. Then, with `follow`, journalctl and
//! the files are followed; a line waits there for others of this node that were written before it and are told of
//! later, as long as the window is. Behind every frame stands where to go on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_command::Program;
use k8sctl_proto::node::v1::{LogSelector, LogUnknown, log_unknown};
use k8sctl_types::logs::merge::Micros;

use super::container::Pass;
use super::cursor::Cursor;
use super::filter::Filter;
use super::journal::{self, Journalctl};
use super::pods::Pods;
use super::wanted::{self, Wanted};
use super::{Frames, LogError, LogSources};
use flow::Flow;

mod flow;
#[cfg(test)]
mod tests;

/// Longest that systemd may take to say what it knows of a unit.
const SYSTEMD_DEADLINE: Duration = Duration::from_secs(20);

/// Where a node keeps its logs.
#[derive(Clone, Debug)]
pub struct RealLogs {
    /// The journal.
    pub journalctl: Journalctl,
    /// The program that asks systemd.
    pub systemctl: PathBuf,
    /// The directory of all pods' logs.
    pub pods: PathBuf,
}

impl Default for RealLogs {
    fn default() -> Self {
        Self {
            journalctl: Journalctl::new("journalctl"),
            systemctl: "systemctl".into(),
            pods: "/var/log/pods".into(),
        }
    }
}

impl RealLogs {
    /// Of a journal that lies in a directory, and of no containers. Benches have journals that no VM has written.
    pub fn of_journal(directory: &Path) -> Self {
        let journalctl =
            Journalctl { directory: Some(directory.to_owned()), ..Journalctl::new("journalctl") };
        Self { journalctl, pods: directory.join("pods"), ..Self::default() }
    }
}

#[async_trait]
impl LogSources for RealLogs {
    async fn read(&self, selector: LogSelector, frames: &mut Frames) -> Result<(), LogError> {
        let mut filter = Filter::of(&selector)?;
        let cursor = match selector.after_cursor.as_str() {
            "" => None,
            text => Some(text.parse::<Cursor>()?),
        };
        if let Some(cursor) = &cursor {
            filter.since = cursor.since;
        }
        let units = self.unknown_units(&selector).await?;
        let wanted = Wanted::of(&selector)?;
        let pods = Pods::new(self.pods.clone(), wanted.containers.clone());
        let mut flow = Flow::open(self.journalctl.clone(), wanted, filter, pods, frames);
        if !flow.tell_unknown(units).await? {
            return Ok(());
        }
        let most = selector.tail.filter(|_| cursor.is_none() && !selector.follow);
        flow.begin(cursor, selector.tail).await?;
        if !selector.follow {
            flow.history(most, Pass::Whole).await?;
        } else if flow.history(most, Pass::BeforeFollowing).await? {
            flow.live().await?;
        }
        Ok(())
    }
}

impl RealLogs {
    async fn unknown_units(&self, selector: &LogSelector) -> Result<Vec<LogUnknown>, LogError> {
        let mut unknown = Vec::new();
        for (place, unit) in selector.units.iter().enumerate() {
            let unit = wanted::unit_name(unit);
            if !self.knows(&unit).await? {
                let message = format!("no unit {unit}: neither systemd nor the journal knows it");
                let wanted = Some(log_unknown::Wanted::Unit(u32::try_from(place).unwrap_or(u32::MAX)));
                unknown.push(LogUnknown { wanted, message });
            }
        }
        Ok(unknown)
    }

    async fn knows(&self, unit: &str) -> Result<bool, LogError> {
        let asked = Program::new(&self.systemctl, SYSTEMD_DEADLINE)
            .args(["show", "--property=LoadState", "--value", "--", unit])
            .run()
            .await;
        if asked.is_ok_and(|state| !["", "not-found"].contains(&state.trim())) {
            return Ok(true);
        }
        // Of a unit that is gone the journal may have more to say.
        let [of_unit, about] = wanted::matches_of(unit);
        journal::has_entries(&self.journalctl, &[of_unit, "+".to_owned(), about]).await
    }
}

/// The moment that this machine's clock shows, in microseconds since 1970.
fn now() -> Micros {
    jiff::Timestamp::now().as_microsecond()
}
