//! The host agent is killed at every place of an operation. Whatever was begun goes on by itself and ends in the same state;
//! what was not begun is as if it had never been asked for.

use host_plugins::engine::POINTS;
use host_plugins::{Ended, PluginState, Removal, WishKind};
use serde_json::json;

use crate::bench::{Bench, kill_at, was_killed, wish};
use crate::shelf::Data;

/// Places of the host; those of the engine are its own.
const PLACES: [&str; 4] = ["after-take-in", "after-begin", "after-apply", "after-outputs"];

async fn is_ready(bench: &Bench) -> bool {
    bench.status("hello").await.is_some_and(|status| status.state == PluginState::Ready)
}

async fn is_gone(bench: &Bench) -> bool {
    bench.status("hello").await.is_none()
}

#[tokio::test]
async fn whatever_was_begun_goes_on_after_a_kill() {
    // Without a namespace of its own: those take their time to go.
    let hello = Data { namespace: "default", ..Data::new("hello") };
    let made = Bench::start(async |shelf| vec![shelf.data("path/hello", &hello)]);
    let Some(mut bench) = made.await else { return };
    let add = wish(WishKind::Add, "hello", Some(&json!({"message": "one"})));
    for place in PLACES.into_iter().chain(POINTS) {
        // Not every place is come to by every operation.
        kill_at(place);
        let follow = bench.begin(&add).await.unwrap_or_else(|error| panic!("{place}: {error}"));
        let ended = follow.ended.await;
        let was_adding = was_killed();
        assert!(was_adding || !PLACES.contains(&place), "{place} is not come to");
        if was_adding {
            let Ended::Failed(failure) = ended else { panic!("{place}: {ended:?}") };
            assert_eq!(failure.id, "PLUGIN-INTERRUPTED", "{place}");
            bench.restart();
            if place == "after-take-in" {
                assert!(bench.status("hello").await.is_none(), "{place}: nothing was begun");
                bench.wish(&add).await.unwrap_or_else(|error| panic!("{place}: {error}"));
            }
            let runs = bench.runs("hello").await;
            bench.keep_until(&format!("{place}: it is ready"), is_ready).await;
            // What it planned is stored: only its judgement is asked.
            assert!(bench.runs("hello").await <= runs + 1, "{place}");
        }
        let status = bench.status("hello").await.expect("it is there");
        assert_eq!((status.state, status.revision, status.objects), (PluginState::Ready, 1, 1), "{place}");
        let (text, uid) = bench.text_in("default", "hello").await.expect("its map");
        assert_eq!(text, "one", "{place}");
        // The same again finds nothing to do.
        bench.wish(&add).await.unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(bench.text_in("default", "hello").await, Some((text, uid)), "{place}");

        // And the way out, where that comes by this place.
        kill_at(if was_adding { "after-remove" } else { place });
        let removal = bench.host.begin_removal(&bench.access, "hello", &Removal::default()).await;
        let ended = removal.unwrap_or_else(|error| panic!("{place}: {error}")).ended.await;
        if was_killed() {
            assert!(matches!(ended, Ended::Failed(_)), "{place}: {ended:?}");
            bench.restart();
            bench.keep_until(&format!("{place}: it is gone"), is_gone).await;
        }
        kill_at("nowhere");
        assert!(is_gone(&bench).await && bench.text_in("default", "hello").await.is_none(), "{place}");
    }
}
