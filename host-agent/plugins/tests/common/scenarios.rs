//! Scenarios that share a cluster, one after the other. One that fails holds up no other: a run tells of all of them.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

/// A scenario, by its name.
pub type Scenario<C> = (&'static str, for<'a> fn(&'a mut C) -> LocalBoxFuture<'a, ()>);

/// Runs all, or those whose names have `SCENARIO` in them.
pub async fn run<C>(context: &mut C, scenarios: &[Scenario<C>]) {
    let wanted = std::env::var("SCENARIO").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, scenario) in scenarios.iter().filter(|(name, _)| name.contains(&wanted)) {
        let begun = Instant::now();
        let lived = AssertUnwindSafe(scenario(context)).catch_unwind().await;
        let took = begun.elapsed();
        match lived {
            Ok(()) => println!("{name}: {took:.1?}"),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                println!("{name}: FAILED after {took:.1?}");
                failed.push(format!("{name}: {}", text.unwrap_or_default()));
            }
        }
    }
    assert!(failed.is_empty(), "{} of the scenarios failed:\n{}", failed.len(), failed.join("\n"));
}

/// A list of scenarios: the async functions of these names, which take a mutable reference to this type.
#[macro_export]
macro_rules! scenarios {
    ($context:ty: $($name:path),+ $(,)?) => {
        [$((stringify!($name), {
            fn begin<'a>(context: &'a mut $context) -> futures::future::LocalBoxFuture<'a, ()> {
                Box::pin($name(context))
            }
            begin as for<'a> fn(&'a mut $context) -> futures::future::LocalBoxFuture<'a, ()>
        })),+]
    };
}

/// Looks again and again until there is something, at most for so long.
pub async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed().as_secs() < 60, "waited a minute for {what}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
