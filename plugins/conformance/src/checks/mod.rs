//! The checks, in the order in which they run. A check gives what is wrong, a line each; nothing: it has passed. Called by
//! [`crate::run`].

mod assess;
mod budget;
mod configs;
mod contract;
mod determinism;
mod plan;
mod process;
mod schema;
mod secrets;

use futures::future::BoxFuture;

use crate::context::Context;

type Check = fn(&Context) -> BoxFuture<'_, Vec<String>>;

/// Their numbers are their places, from 1.
pub(crate) static CHECKS: [(&str, Check); 18] = [
    ("versions", |context| Box::pin(contract::versions(context))),
    ("manifest", |context| Box::pin(contract::manifest(context))),
    ("schema", |context| Box::pin(schema::schema(context))),
    ("determinism", |context| Box::pin(determinism::determinism(context))),
    ("configs", |context| Box::pin(configs::configs(context))),
    ("schema-and-program", |context| Box::pin(configs::schema_and_program(context))),
    ("fixtures", |context| Box::pin(configs::fixtures(context))),
    ("permissions", |context| Box::pin(plan::permissions(context))),
    ("pinned", |context| Box::pin(plan::pinned(context))),
    ("readiness", |context| Box::pin(plan::readiness(context))),
    ("effective-config", |context| Box::pin(schema::effective_config(context))),
    ("migration", |context| Box::pin(schema::migration(context))),
    ("secrets", |context| Box::pin(secrets::secrets(context))),
    ("assess", |context| Box::pin(assess::assess(context))),
    ("cancel", |context| Box::pin(process::cancel(context))),
    ("deadline", |context| Box::pin(process::deadline(context))),
    ("budget", |context| Box::pin(budget::budget(context))),
    ("sandbox", |context| Box::pin(process::sandbox(context))),
];
