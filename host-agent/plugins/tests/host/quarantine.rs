//! A program that crashes is not started any more after the third time; what the plugin installed is untouched by that.

use host_plugins::{PluginState, WishKind};
use k8sctl_types::event::EventType;

use crate::bench::{Bench, failure, wish};
use crate::shelf::{Data, crashing_program};

#[tokio::test]
async fn three_crashes_end_it_and_what_is_installed_goes_on() {
    let made = Bench::start(async |shelf| {
        let program = crashing_program(shelf.folder.path()).await;
        let next = Data { version: "0.2.0", ..Data::new("hello") };
        vec![shelf.data("path/hello", &Data::new("hello")), shelf.package("next/hello", &next, &program)]
    });
    let Some(bench) = made.await else { return };
    bench.wish(&wish(WishKind::Add, "hello", None)).await.expect("it is added");
    let before = bench.text("hello").await;
    bench.told();

    let mut upgrade = wish(WishKind::Upgrade, "hello", None);
    upgrade.to = Some(bench.shelf.at("next/hello").display().to_string());
    for count in 1..=3 {
        let crashed = failure(bench.offer(&upgrade).await);
        assert_eq!(crashed.id, "PLUGIN-CRASHED", "{count}: {crashed}");
    }
    let refused = failure(bench.offer(&upgrade).await);
    assert_eq!(refused.id, "PLUGIN-QUARANTINED", "{refused}");
    assert!(refused.reason.contains("version 0.2.0"), "{refused}");
    assert_eq!(bench.told(), [("hello".to_owned(), EventType::PluginQuarantined)]);
    let runs = bench.host.runs("hello").await.expect("they are kept");
    assert!(runs[0].outcome.starts_with("PLUGIN-CRASHED") && runs[0].purpose == "plan", "{runs:?}");

    // What is installed is another package, and untouched.
    let status = bench.status("hello").await.expect("it is there");
    assert_eq!((status.state, status.version.as_str()), (PluginState::Ready, "0.1.0"));
    assert_eq!(bench.text("hello").await, before);
    // A person may start it nevertheless, and is counted anew.
    upgrade.lift_quarantine = true;
    assert_eq!(failure(bench.offer(&upgrade).await).id, "PLUGIN-CRASHED");
    upgrade.lift_quarantine = false;
    assert_eq!(
        failure(bench.offer(&upgrade).await).id,
        "PLUGIN-QUARANTINED",
        "an offer lifts nothing for good"
    );
    bench.remove("hello").await.expect("it can be removed");
}
