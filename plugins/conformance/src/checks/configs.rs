//! Does it stand any config, and does it agree with its own schema?

use std::time::{Duration, Instant};

use plugin_plan::Diagnostic;
use plugin_process::schema::ConfigSchema;
use plugin_process::{ConversationError, PlanAnswer, Talk};
use serde_json::Value;

use crate::context::{Context, said, shortly};
use crate::generate::Generator;

/// What 99 of 100 plans may take.
const SLOW: Duration = Duration::from_secs(2);
/// Mistakes after which it is known well enough.
const ENOUGH: usize = 10;
/// With this code a plugin that is data says that an expression of its own cannot be evaluated: no mistake of a user's.
const OWN_MISTAKE: &str = "DATA-EXPRESSION";
/// One config of so many is asked about by both the schema and the program.
const OF_BOTH: u32 = 12;

/// 5: random and mistyped configs through one process: it lives, is quick, and knows what to make of each.
pub(super) async fn configs(context: &Context) -> Vec<String> {
    let schema = match context.description() {
        Ok(description) => &description.config_schema,
        Err(why) => return why,
    };
    let asked = context.runner.converse(&context.subject.package, |talk| ask_all(context, schema, talk));
    let (mut wrong, mut times) = match asked.await {
        Ok(run) => run.answer,
        Err(error) => return vec![error.to_string()],
    };
    times.sort_unstable();
    let late = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    if late > SLOW {
        wrong.push(format!("of 100 plans the slowest takes {late:?}, expected at most {SLOW:?}"));
    }
    wrong
}

async fn ask_all(
    context: &Context,
    schema: &Value,
    mut talk: Talk,
) -> Result<(Vec<String>, Vec<Duration>), ConversationError> {
    let make = Generator::new(schema, context.effort.seed);
    let (mut wrong, mut times) = (Vec::new(), Vec::new());
    for number in 0..context.effort.configs {
        let config = make.config(u64::from(number));
        let began = Instant::now();
        let answer = talk.plan(&context.ask(&config)).await;
        times.push(began.elapsed());
        let is_lost = matches!(answer, Err(ConversationError::Lost { .. }));
        let why = match answer {
            Ok(PlanAnswer::Plan { .. }) => None,
            Ok(PlanAnswer::Mistakes(mistakes)) => {
                let own = mistakes.into_iter().find(|mistake| mistake.code == OWN_MISTAKE);
                own.map(|mistake| mistake.message)
            }
            Err(error) => Some(error.to_string()),
        };
        wrong.extend(why.map(|why| format!("config {number}, {}: {why}", shortly(&config))));
        if is_lost || wrong.len() == ENOUGH {
            break;
        }
    }
    Ok((wrong, times))
}

/// 6: what the schema takes never makes the program fail, and what the schema refuses the program refuses too when it is
/// asked directly.
pub(super) async fn schema_and_program(context: &Context) -> Vec<String> {
    let schema = match context.description() {
        Ok(description) => &description.config_schema,
        Err(why) => return why,
    };
    let asked = context.runner.converse(&context.subject.package, |talk| compare_all(context, schema, talk));
    match asked.await {
        Ok(run) => run.answer,
        Err(error) => vec![error.to_string()],
    }
}

async fn compare_all(
    context: &Context,
    schema: &Value,
    mut talk: Talk,
) -> Result<Vec<String>, ConversationError> {
    let rules = ConfigSchema::new(schema).map_err(ConversationError::Contract)?;
    // Others than those of the check before.
    let make = Generator::new(schema, context.effort.seed.wrapping_add(1));
    let mut wrong = Vec::new();
    for number in 0..context.effort.configs.div_ceil(OF_BOTH) {
        let config = make.config(u64::from(number));
        let refused = rules.mistakes(&config).map_err(ConversationError::Contract)?;
        match talk.validate(&context.ask(&config)).await {
            Ok(diagnostics) => {
                let takes = diagnostics.iter().all(|diagnostic| diagnostic.warning);
                if takes && !refused.is_empty() {
                    let (config, why) = (shortly(&config), said(&refused));
                    wrong.push(format!("the schema refuses {config}, and the program takes it: {why}"));
                }
            }
            Err(error) => {
                wrong.push(format!("{}: {error}", shortly(&config)));
                if matches!(error, ConversationError::Lost { .. }) {
                    break;
                }
            }
        }
        if wrong.len() == ENOUGH {
            break;
        }
    }
    Ok(wrong)
}

/// 7: each valid fixture has a plan, each invalid one a mistake at its place.
pub(super) async fn fixtures(context: &Context) -> Vec<String> {
    let (_, mut wrong) = context.plans().await;
    for (config, path) in &context.subject.invalid {
        let of = format!("the config {}, wrong at {path:?},", shortly(config));
        match context.answer(config).await {
            Ok(PlanAnswer::Plan { .. }) => wrong.push(format!("{of} has a plan")),
            Ok(PlanAnswer::Mistakes(mistakes)) => {
                let is_there = |mistake: &Diagnostic| !mistake.warning && mistake.path == *path;
                if !mistakes.iter().any(is_there) {
                    wrong.push(format!("{of} is refused elsewhere: {}", said(&mistakes)));
                }
            }
            Err(why) => wrong.push(why),
        }
    }
    wrong
}
