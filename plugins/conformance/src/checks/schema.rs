//! Is its schema one that users can rely on, and do configs that the plugin makes itself fit it?

use plugin_plan::hash::unchecked_digest;
use plugin_process::{MigrateAnswer, schema as config_schema};
use serde_json::{Value, json};

use crate::context::{Context, Planned, said, shortly};

/// 3: a schema by the meta-schema, closed, explained, with defaults that it takes.
pub(super) async fn schema(context: &Context) -> Vec<String> {
    match context.description() {
        Ok(description) => config_schema::complaints(&description.config_schema),
        Err(why) => why,
    }
}

/// 11: a config with all defaults filled in gives the same plan, and stays as it is.
pub(super) async fn effective_config(context: &Context) -> Vec<String> {
    let (plans, mut wrong) = context.plans().await;
    for planned in plans {
        if let Some(effective) = &planned.effective_config {
            wrong.extend(fixed_point(context, &planned, effective).await.err());
        }
    }
    wrong
}

async fn fixed_point(context: &Context, planned: &Planned, effective: &Value) -> Result<(), String> {
    let (config, filled) = (shortly(&planned.config), shortly(effective));
    let of = format!("the config {config} with its defaults is {filled}");
    let again = context.plan(effective).await.map_err(|why| format!("{of}, and that is none: {why}"))?;
    if unchecked_digest(&again.plan) != unchecked_digest(&planned.plan) {
        return Err(format!("{of}, and that gives another plan"));
    }
    match &again.effective_config {
        Some(other) if other != effective => Err(format!("{of}, and of that {}", shortly(other))),
        _ => Ok(()),
    }
}

/// 12: a config of every older version becomes one of this version.
pub(super) async fn migration(context: &Context) -> Vec<String> {
    let description = match context.description() {
        Ok(description) => description,
        Err(why) => return why,
    };
    let nothing = json!({});
    let mistakes = config_schema::mistakes(&description.config_schema, &nothing.to_string()).await;
    // With settings that everybody must write there is nothing to make up.
    let may_refuse = mistakes.map_or(true, |mistakes| !mistakes.is_empty());
    let mut wrong = Vec::new();
    for from in 1..description.config_version {
        match context.runner.migrate(&context.subject.package, from, &nothing.to_string()).await {
            Ok(run) => match run.answer {
                MigrateAnswer::Config { .. } => {}
                MigrateAnswer::Mistakes(_) if may_refuse => {}
                MigrateAnswer::Mistakes(mistakes) => {
                    wrong.push(format!("{{}} of version {from} is not brought over: {}", said(&mistakes)));
                }
            },
            Err(error) => wrong.push(format!("{{}} of version {from}: {error}")),
        }
    }
    wrong
}
