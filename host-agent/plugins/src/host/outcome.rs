//! How processes of plugins ended: kept for people, counted against the package, and judged. What a plugin installed is
//! untouched by any of it: its workloads run in the cluster.

use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;
use plugin_package::Package;
use plugin_process::quarantine::{self, Verdict};
use plugin_process::{Run, RunError, RunErrorKind};

use super::{PluginHost, Whose, stored_badly};
use crate::records::{NewRun, millis, now_ms};

/// Most of what a process wrote that is kept, in bytes: the end of it.
const STDERR_KEPT: usize = 64 * 1024;

impl PluginHost {
    /// Gives what a process answered, and keeps how it ended.
    pub(super) async fn ran<T>(
        &self,
        whose: &Whose,
        package: &Package,
        purpose: &'static str,
        result: Result<Run<T>, RunError>,
    ) -> Result<T, Failure> {
        let (outcome, stderr, took) = match &result {
            Ok(run) => ("ok".to_owned(), &run.stderr, run.took),
            Err(error) => (error.failure.to_string(), &error.stderr, error.took),
        };
        // The keeper asks every minute: what went well and is quiet would push out what is worth reading.
        if purpose != "assess" || result.is_err() || !stderr.is_empty() {
            let stderr = last(stderr, STDERR_KEPT).to_owned();
            let run = NewRun { package_sha256: package.sha256.clone(), purpose, took, outcome, stderr };
            if let Err(error) = self.inner.records.ran(&whose.place, run).await {
                tracing::warn!(plugin.name = whose.place.plugin, error = %error, "a run of a plugin is not kept");
            }
        }
        match result {
            Ok(run) => Ok(run.answer),
            Err(RunError { kind, failure, .. }) => {
                self.count(whose, package, kind, &failure).await?;
                Err(failure)
            }
        }
    }

    async fn count(
        &self,
        whose: &Whose,
        package: &Package,
        kind: RunErrorKind,
        failure: &Failure,
    ) -> Result<(), Failure> {
        let (records, badly) = (&self.inner.records, stored_badly(&whose.place));
        let now = now_ms();
        let since = now.saturating_sub(millis(quarantine::WINDOW));
        let earlier = records.crashes(&package.sha256, since).await.map_err(&badly)?;
        let Some(verdict) = quarantine::judge(kind, &failure.reason, &earlier, now) else { return Ok(()) };
        records.crashed(&package.sha256, &failure.reason).await.map_err(&badly)?;
        if let Verdict::Quarantine(reason) = verdict {
            let is_new = records.quarantine(&whose.place, &package.sha256, &reason).await.map_err(&badly)?;
            if is_new {
                let message =
                    format!("version {} is not started any more: {reason}", package.manifest.version);
                self.tell(whose, EventType::PluginQuarantined, message, true);
                self.changed();
            }
        }
        Ok(())
    }

    /// Whether the package may be started. `lift`: a person wants that whatever happened before.
    pub(super) async fn may_start(&self, package: &Package, lift: Lift) -> Result<(), Failure> {
        let name = &package.manifest.name;
        let badly = |error| crate::inventory::store_failure(name, &error);
        let Some(reason) = self.inner.records.quarantined(&package.sha256).await.map_err(badly)? else {
            return Ok(());
        };
        match lift {
            Lift::No => Err(quarantined(name, &package.manifest.version.to_string(), &reason)),
            Lift::ForThis => Ok(()),
            Lift::ForGood => {
                self.inner.records.lift_quarantine(&package.sha256).await.map_err(badly)?;
                self.changed();
                Ok(())
            }
        }
    }
}

/// What becomes of a quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lift {
    /// It stays.
    No,
    /// It is passed over, and stays.
    ForThis,
    /// It ends.
    ForGood,
}

fn quarantined(plugin: &str, version: &str, reason: &str) -> Failure {
    Failure::new(
        "PLUGIN-QUARANTINED",
        format!("plugin {plugin}"),
        format!("version {version} is not started any more: {reason}"),
        format!(
            "what it installed goes on; `k8sctl plugin logs {plugin}` shows why; use another version, or start this one \
             nevertheless with --lift-quarantine behind add, config or upgrade"
        ),
    )
}

/// The end of a text, at most so many bytes of it.
fn last(text: &str, bytes: usize) -> &str {
    let start = text.len().saturating_sub(bytes);
    let start = (start..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_text_the_end_is_kept_and_no_character_is_cut() {
        assert_eq!(last("short", 64), "short");
        assert_eq!(last("aäb", 2), "b");
        assert_eq!(last("aäb", 3), "äb");
    }
}
