//! Does the same question have one answer, whoever asks and when?

use futures::StreamExt as _;
use futures::stream;
use plugin_process::{PlanAnswer, difference};

use crate::context::Context;

/// Processes at once: each has another number and another user.
const AT_ONCE: usize = 4;

/// 4: the same plan from many fresh processes, of each config that it must take.
pub(super) async fn determinism(context: &Context) -> Vec<String> {
    let configs = context.configs();
    let configs = &configs;
    let mut firsts = Vec::new();
    for config in configs {
        match context.answer(config).await {
            Ok(PlanAnswer::Mistakes(mistakes)) => {
                return vec![format!("it has no plan to compare: {}", crate::context::said(&mistakes))];
            }
            Ok(first) => firsts.push(first),
            Err(why) => return vec![why],
        }
    }
    // Each is compared at least once, however few plans were asked for.
    let plans = (context.effort.plans as usize).max(2 * configs.len());
    let others = stream::iter(configs.len()..plans).map(|number| async move {
        let other = context.answer(&configs[number % configs.len()]).await;
        (number, other)
    });
    let mut others = others.buffer_unordered(AT_ONCE);
    let mut wrong = Vec::new();
    while let Some((number, other)) = others.next().await {
        let of = format!("plan {}", number + 1);
        match other {
            Ok(other) => {
                let first = &firsts[number % configs.len()];
                wrong.extend(difference(first, &other).map(|what| format!("{of}: {what}")));
            }
            Err(why) => wrong.push(format!("{of}: {why}")),
        }
    }
    wrong.sort();
    wrong
}
