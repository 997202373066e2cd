//! Asks a plugin about a config: whether its own rules take it, and what one of an older version becomes.

use k8sctl_proto::plugin::v1::{self as proto, MigrateConfigRequest, ValidateConfigRequest};
use plugin_plan::Diagnostic;
use plugin_plan::limits::DIAGNOSTICS;

use super::plan::{PlanAsk, has_mistakes};
use super::{ConversationError, Talk, broken, called, wire};

/// What a plugin says of a config.
pub(super) struct Validated {
    pub(super) diagnostics: Vec<Diagnostic>,
    /// `None`: as it was given.
    pub(super) effective_config: Option<String>,
}

/// What became of a config of an older version.
#[derive(Clone, Debug, PartialEq)]
pub enum MigrateAnswer {
    /// It cannot be brought over; remarks may be among these.
    Mistakes(Vec<Diagnostic>),
    /// A config of this version.
    Config {
        /// As JSON.
        config_json: String,
        /// Remarks that stop nothing.
        warnings: Vec<Diagnostic>,
    },
}

impl Talk {
    /// ValidateConfig alone: the plugin's own rules, without the schema.
    pub async fn validate(&mut self, ask: &PlanAsk) -> Result<Vec<Diagnostic>, ConversationError> {
        Ok(self.validated(ask).await?.diagnostics)
    }

    pub(super) async fn validated(&mut self, ask: &PlanAsk) -> Result<Validated, ConversationError> {
        let request = ValidateConfigRequest {
            config_json: ask.config_json.clone(),
            facts: Some(ask.facts.clone()),
            dependencies: wire::dependencies(&ask.dependencies),
            secrets: wire::secret_names(&ask.secrets),
        };
        let answer =
            self.client.validate_config(request).await.map_err(called("ValidateConfig"))?.into_inner();
        let effective_config = Some(answer.effective_config_json).filter(|text| !text.is_empty());
        if let Some(text) = &effective_config {
            wire::json(text).map_err(|why| broken(format!("its effective config is {why}")))?;
        }
        Ok(Validated { diagnostics: diagnostics(answer.diagnostics), effective_config })
    }

    /// MigrateConfig alone: whether what comes of it fits the schema is not looked at here.
    pub async fn migrate(
        &mut self,
        from_config_version: u32,
        config_json: &str,
    ) -> Result<MigrateAnswer, ConversationError> {
        let request = MigrateConfigRequest { from_config_version, config_json: config_json.to_owned() };
        let answer = self.client.migrate_config(request).await.map_err(called("MigrateConfig"))?.into_inner();
        let diagnostics = diagnostics(answer.diagnostics);
        if has_mistakes(&diagnostics) {
            return Ok(MigrateAnswer::Mistakes(diagnostics));
        }
        wire::json(&answer.config_json)
            .map_err(|why| broken(format!("the config that it migrated to is {why}")))?;
        Ok(MigrateAnswer::Config { config_json: answer.config_json, warnings: diagnostics })
    }
}

fn diagnostics(said: Vec<proto::Diagnostic>) -> Vec<Diagnostic> {
    said.into_iter().take(DIAGNOSTICS).map(wire::diagnostic).collect()
}
