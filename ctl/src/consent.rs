//! Asking a person. Never without a terminal.

use std::io::{self, BufRead as _};

use k8sctl_types::failure::Failure;

use crate::ended::Ended;
use crate::exit::Exit;
use crate::terminal::{Context, styles};

/// What is to be agreed to.
#[derive(Debug)]
pub struct Question<'a> {
    /// `cluster home`
    pub object: &'a str,
    /// What will be lost or allowed: `2 changes destroy data or stop workloads`.
    pub what: &'a str,
    /// The whole command that agrees: `k8sctl down home --yes`.
    pub agree: &'a str,
}

/// Returns when the user agreed, by flag or by answer.
pub fn require(context: &Context, yes: bool, question: &Question<'_>) -> Result<(), Ended> {
    if yes {
        return Ok(());
    }
    let refusal = |reason: String, next: String| {
        Ended::with(Exit::NoConsent, Failure::new("PLAN-CONSENT", question.object, reason, next))
    };
    if !context.can_ask {
        let reason = format!("{}, and there is no terminal to ask on", question.what);
        return Err(refusal(reason, format!("look at it, then agree to it with: {}", question.agree)));
    }
    let story = context.story();
    let ask = story.paint(styles::STRONG, format!("{}. Go on? [y/N] ", question.what));
    story.raw(ask)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refusal("the answer was no; nothing was changed".to_owned(), String::new())),
    }
}
