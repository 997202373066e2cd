//! Does the same question have one answer, whoever asks and when?

use futures::StreamExt as _;
use futures::stream;
use plugin_process::{PlanAnswer, difference};

use crate::context::Context;

/// Processes at once: each has another number and another user.
const AT_ONCE: usize = 4;

/// 4: the same plan from many fresh processes.
pub(super) async fn determinism(context: &Context) -> Vec<String> {
    let configs = context.configs();
    let Some(config) = configs.first() else { return Vec::new() };
    let first = match context.answer(config).await {
        Ok(first) => first,
        Err(why) => return vec![why],
    };
    if let PlanAnswer::Mistakes(mistakes) = &first {
        return vec![format!("it has no plan to compare: {}", crate::context::said(mistakes))];
    }
    let others = stream::iter(1..context.effort.plans).map(|number| async move {
        let other = context.answer(config).await;
        (number, other)
    });
    let mut others = others.buffer_unordered(AT_ONCE);
    let mut wrong = Vec::new();
    while let Some((number, other)) = others.next().await {
        match other {
            Ok(other) => {
                wrong.extend(difference(&first, &other).map(|what| format!("plan {}: {what}", number + 1)))
            }
            Err(why) => wrong.push(format!("plan {}: {why}", number + 1)),
        }
    }
    wrong.sort();
    wrong
}
