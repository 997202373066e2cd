//! An API server that says later, breaks off, loses answers, hangs, or is killed in the middle: an installation goes
//! through all of it to the same end, and gives up in time where it does not end.

#[path = "common/mod.rs"]
mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::Installation;
use common::cluster::Cluster;
use common::faults::{Fault, Faults, STORM};
use common::plans::{Plan, account, config_map, custom, definition, plan};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Api;
use plugin_plan::CheckedPlan;
use serde_json::json;

struct Bench {
    cluster: Cluster,
}

/// A few objects of several kinds that nobody has to make ready.
fn few(name: &str) -> CheckedPlan {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    });
    plan(name).objects([account("default", name), config_map("default", name, "1"), role]).checked()
}

impl Bench {
    /// An installation behind faults, and these.
    fn behind(&self, name: &str) -> (Installation, Faults) {
        let faults = Faults::none();
        let mut installation = Installation::new(&self.cluster, name);
        installation.client = self.cluster.client_with(&faults);
        (installation, faults)
    }

    /// It is there, once, and nothing is left to be written.
    async fn is_well(&self, name: &str, installation: &Installation, plan: &CheckedPlan) {
        let again = installation.apply(plan).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!((again.written, again.unchanged), (0, plan.objects.len()), "{name}");
        let client = &self.cluster.people;
        let map =
            Api::<ConfigMap>::namespaced(client.clone(), "default").get(name).await.expect("it is there");
        assert_eq!(map.data.and_then(|data| data.get("key").cloned()).as_deref(), Some("1"), "{name}");
        Api::<ServiceAccount>::namespaced(client.clone(), "default").get(name).await.expect("it is there");
        let entries = installation.inventory().entries().await.expect("they are read");
        let bound = entries.iter().filter(|entry| entry.uid.is_some()).count();
        assert_eq!(bound, plan.objects.len(), "{name}");
    }

    /// Requests of an installation that nothing disturbs.
    async fn requests(&self) -> usize {
        let (calm, faults) = self.behind("calm");
        calm.apply(&few("calm")).await.expect("it installs");
        faults.asked()
    }
}

async fn one_fault_at_every_request_changes_nothing_in_the_end(bench: &mut Bench) {
    let bench = &*bench;
    let requests = bench.requests().await;
    assert!(requests > 10, "{requests} requests");
    let mut runs = Vec::new();
    for number in 0..requests {
        for (kind, fault) in STORM.into_iter().enumerate() {
            runs.push(async move {
                let name = format!("storm-{number}-{kind}");
                let (installation, faults) = bench.behind(&name);
                faults.follow(move |asked, _| (asked == number).then_some(fault));
                let plan = few(&name);
                let applied = installation.apply(&plan).await;
                applied.unwrap_or_else(|failure| panic!("{fault:?} at request {number}: {failure}"));
                bench.is_well(&name, &installation, &plan).await;
            });
        }
    }
    println!("{} installations with a fault each", runs.len());
    futures::stream::iter(runs).buffer_unordered(6).collect::<Vec<()>>().await;
}

async fn faults_all_the_time_are_got_through(bench: &mut Bench) {
    let (installation, faults) = bench.behind("weather");
    faults.follow(|asked, _| match asked % 6 {
        0 => Some(Fault::Answer(503, "ServiceUnavailable")),
        2 => Some(Fault::Lost),
        4 => Some(Fault::Slow(Duration::from_millis(300))),
        _ => None,
    });
    let plan = few("weather");
    installation.apply(&plan).await.expect("it gets through");
    faults.follow(|_, _| None);
    bench.is_well("weather", &installation, &plan).await;
}

async fn a_request_that_hangs_is_made_again(bench: &mut Bench) {
    let requests = bench.requests().await;
    for number in [0, requests / 2, requests - 1] {
        let name = format!("hangs-{number}");
        let (mut installation, faults) = bench.behind(&name);
        installation.limits.api = Duration::from_secs(4);
        faults.follow(move |asked, _| (asked == number).then_some(Fault::Hang));
        let plan = few(&name);
        let begun = Instant::now();
        installation.apply(&plan).await.expect("it is made again");
        assert!(begun.elapsed() < Duration::from_secs(10), "{number}: {:?}", begun.elapsed());
        bench.is_well(&name, &installation, &plan).await;
    }
}

async fn a_server_that_stays_away_ends_it_in_time_and_the_next_one_goes_on(bench: &mut Bench) {
    let (mut installation, faults) = bench.behind("away");
    installation.limits.api = Duration::from_secs(3);
    // It goes with the first write.
    faults.follow(|_, request| {
        let writes = request.method() == http::Method::PATCH && !request.uri().to_string().contains("dryRun");
        let is_away = writes || request.uri().path() == "/readyz";
        is_away.then_some(Fault::Reset)
    });
    let plan = few("away");
    let begun = Instant::now();
    let failure = installation.apply(&plan).await.expect_err("it stays away");
    assert_eq!(failure.id, "PLUGIN-API", "{failure}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    faults.follow(|_, _| None);
    assert_eq!(installation.apply(&plan).await.expect("it goes on").written, 3);
    bench.is_well("away", &installation, &plan).await;
}

async fn a_server_that_stays_away_is_waited_for_once_and_not_for_each_object(bench: &mut Bench) {
    let (mut installation, faults) = bench.behind("alone");
    installation.limits.api = Duration::from_secs(3);
    faults.follow(|_, _| Some(Fault::Reset));
    let maps = (0..40).map(|number| config_map("default", &format!("alone-{number}"), "1"));
    let wanted = plan("alone").objects(maps).checked();
    let begun = Instant::now();
    let failure = installation.apply(&wanted).await.expect_err("nobody answers");
    assert_eq!(failure.id, "PLUGIN-API", "{failure}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Writes so far of the installation during which the server is killed.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

fn counts(point: &'static str) {
    if point == "after-write" {
        WRITTEN.fetch_add(1, Ordering::SeqCst);
    }
}

async fn a_server_that_is_killed_in_the_middle_is_waited_for(bench: &mut Bench) {
    let group = "killed.example.org";
    let many = |plan: Plan| {
        (0..30)
            .fold(plan, |plan, number| plan.object(config_map("default", &format!("killed-{number}"), "1")))
    };
    let wanted = many(plan("killed"))
        .objects([definition(group, "Pool", "pools"), custom(group, "Pool", "default", "killed", 1)])
        .ready_when_there(&format!("{group}/v1"), "Pool")
        .checked();
    let mut installation = Installation::new(&bench.cluster, "killed");
    installation.points = counts;
    for after in [1, 12] {
        WRITTEN.store(0, Ordering::SeqCst);
        let cluster = &mut bench.cluster;
        let kills = async {
            while WRITTEN.load(Ordering::SeqCst) < after {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            cluster.stop_api().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.start_api().await;
        };
        let (applied, ()) = tokio::join!(installation.apply(&wanted), kills);
        let applied = applied.unwrap_or_else(|failure| panic!("killed after {after}: {failure}"));
        assert_eq!(applied.written, wanted.objects.len(), "killed after {after}");
        assert_eq!(installation.apply(&wanted).await.expect("again").written, 0);
        installation.engine().remove(false).await.expect("it is removed");
    }
}

#[tokio::test]
async fn an_installation_goes_through_storms() {
    let Some(cluster) = Cluster::start().await else { return };
    let mut bench = Bench { cluster };
    let all = crate::scenarios![Bench:
        one_fault_at_every_request_changes_nothing_in_the_end,
        faults_all_the_time_are_got_through,
        a_request_that_hangs_is_made_again,
        a_server_that_stays_away_ends_it_in_time_and_the_next_one_goes_on,
        a_server_that_stays_away_is_waited_for_once_and_not_for_each_object,
        a_server_that_is_killed_in_the_middle_is_waited_for,
    ];
    common::scenarios::run(&mut bench, &all).await;
}
