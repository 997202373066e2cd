//! The promises of joining: one secret, one certificate; and nobody else's.

#![expect(clippy::disallowed_methods, reason = "a test joins the tasks that it starts")]

mod world;

use std::collections::HashSet;
use std::sync::Arc;

use host_pki::join::{JoinError, JoinEvent, Refusal};
use jiff::SignedDuration;
use secrecy::ExposeSecret as _;
use world::{CLUSTER, MACHINE, NODE, OTHER_CLUSTER, World, csr, mac, peer, request};

const EXPORTER: [u8; 32] = [7; 32];

fn refusal<T: std::fmt::Debug>(result: Result<T, JoinError>) -> Refusal {
    match result.expect_err("is refused") {
        JoinError::Refused { refusal, .. } => refusal,
        other => panic!("another error: {other:?}"),
    }
}

#[tokio::test]
async fn a_node_joins_opens_its_session_and_renews() {
    let world = World::new();
    let secret = world.offer().await;
    let signed =
        world.authority.join(&request(&secret, &EXPORTER, &csr()), &EXPORTER, peer()).await.expect("joins");
    let identity = world.authority.identify(&signed.certificate_der).await.expect("is good");
    assert_eq!((identity.cluster_id.as_str(), identity.node_id.as_str()), (CLUSTER, NODE));
    assert_eq!(
        signed.not_after.duration_since(world.now()).as_hours(),
        23,
        "24 hours, but for the part of a second"
    );
    world.authority.session_started(&identity).await.expect("comes in");

    let renewed = world.authority.renew(&identity, &csr()).await.expect("renews");
    let next = world.authority.identify(&renewed.certificate_der).await.expect("the new one is good");
    world
        .authority
        .identify(&signed.certificate_der)
        .await
        .expect("and the old one, until the new one is used");
    world.authority.session_started(&next).await.expect("comes in");
    world.authority.identify(&signed.certificate_der).await.expect_err("the old one has ended");
    world.authority.session_started(&identity).await.expect_err("the old one has ended");
    world.authority.renew(&identity, &csr()).await.expect_err("the old one has ended");
}

#[tokio::test]
async fn the_same_request_gets_the_same_certificate_until_the_session() {
    let mut world = World::new();
    let secret = world.offer().await;
    let first = request(&secret, &EXPORTER, &csr());
    let signed = world.authority.join(&first, &EXPORTER, peer()).await.expect("joins");
    // The answer was lost; the agent dials again, so the exporter is another, but key and request are the same.
    let exporter = [8; 32];
    let again = request(&secret, &exporter, &first.csr_der);
    assert_eq!(world.authority.join(&again, &exporter, peer()).await.expect("joins"), signed);
    let other = request(&secret, &EXPORTER, &csr());
    assert_eq!(refusal(world.authority.join(&other, &EXPORTER, peer()).await), Refusal::OtherKey);
    let identity =
        world.authority.identify(&signed.certificate_der).await.expect("the honest node is not revoked");
    world.authority.session_started(&identity).await.expect("comes in");
    assert_eq!(
        refusal(world.authority.join(&first, &EXPORTER, peer()).await),
        Refusal::Proof,
        "the secret is gone"
    );
    let mut second_use = false;
    while let Some(event) = world.events.try_next() {
        second_use |= matches!(event, JoinEvent::Refused { refusal: Refusal::OtherKey, .. });
    }
    assert!(second_use, "it is an event");
}

#[tokio::test]
async fn a_wrong_proof_is_refused_and_burns_nothing() {
    let world = World::new();
    let secret = world.offer().await;
    let honest = request(&secret, &EXPORTER, &csr());
    let mut wrong = Vec::new();
    for index in 0..32 {
        let mut flipped = honest.clone();
        flipped.mac[index] ^= 1;
        wrong.push(flipped);
    }
    let with = |change: &dyn Fn(&mut k8sctl_proto::node::v1::JoinRequest)| {
        let mut request = honest.clone();
        change(&mut request);
        request
    };
    wrong.push(with(&|r| r.mac.clear()));
    wrong.push(with(&|r| r.mac.truncate(31)));
    wrong.push(with(&|r| r.mac = mac(&[0; 32], &EXPORTER, NODE, &r.csr_der)));
    wrong.push(with(&|r| r.csr_der = csr()));
    wrong.push(with(&|r| r.node_id = "other-node".to_owned()));
    wrong.push(with(&|r| r.node_id.clear()));
    for request in &wrong {
        assert_eq!(refusal(world.authority.join(request, &EXPORTER, peer()).await), Refusal::Proof);
    }
    // A relay: the honest request, on the session that the relay has with us.
    assert_eq!(refusal(world.authority.join(&honest, &[9; 32], peer()).await), Refusal::Proof);
    let strange = with(&|r| r.protocol = 99);
    assert_eq!(refusal(world.authority.join(&strange, &EXPORTER, peer()).await), Refusal::Protocol);
    world.authority.join(&honest, &EXPORTER, peer()).await.expect("the secret is still good");
}

#[tokio::test]
async fn a_secret_works_for_its_own_vm_alone() {
    let world = World::new();
    world.run_machine("node-b", "uuid-b");
    let secret = world.offer().await;
    world.authority.offer(CLUSTER, "node-b", "uuid-b").await.expect("a secret");
    let request_csr = csr();
    // VM B has learned A's secret: as itself, as A from its own machine, and as A with A's UUID while A is off.
    let mut as_itself = request(&secret, &EXPORTER, &request_csr);
    as_itself.node_id = "node-b".to_owned();
    as_itself.machine_uuid = "uuid-b".to_owned();
    as_itself.mac = mac(secret.expose_secret(), &EXPORTER, "node-b", &request_csr);
    assert_eq!(refusal(world.authority.join(&as_itself, &EXPORTER, peer()).await), Refusal::Proof);
    let mut from_itself = request(&secret, &EXPORTER, &request_csr);
    from_itself.machine_uuid = "uuid-b".to_owned();
    assert_eq!(refusal(world.authority.join(&from_itself, &EXPORTER, peer()).await), Refusal::Machine);
    world.machines.0.lock().expect("no panic").remove(&(NODE.to_owned(), MACHINE.to_owned()));
    let honest = request(&secret, &EXPORTER, &request_csr);
    assert_eq!(refusal(world.authority.join(&honest, &EXPORTER, peer()).await), Refusal::Machine);
    world.run_machine(NODE, MACHINE);
    world.authority.join(&honest, &EXPORTER, peer()).await.expect("joins when it runs");
}

#[tokio::test]
async fn secrets_end_after_ten_minutes_and_with_the_next_offer() {
    let world = World::new();
    let old = world.offer().await;
    let secret = world.offer().await;
    let voided = request(&old, &EXPORTER, &csr());
    assert_eq!(refusal(world.authority.join(&voided, &EXPORTER, peer()).await), Refusal::Proof);
    world.pass(SignedDuration::from_mins(10));
    let late = request(&secret, &EXPORTER, &csr());
    assert_eq!(refusal(world.authority.join(&late, &EXPORTER, peer()).await), Refusal::Expired);
    let fresh = world.offer().await;
    world.authority.join(&request(&fresh, &EXPORTER, &csr()), &EXPORTER, peer()).await.expect("joins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_get_one_certificate_between_them() {
    for _ in 0..4 {
        let world = World::new();
        let secret = world.offer().await;
        let attempts = (0..50).map(|_| {
            let (authority, request) = (Arc::clone(&world.authority), request(&secret, &EXPORTER, &csr()));
            tokio::spawn(async move { authority.join(&request, &EXPORTER, peer()).await })
        });
        let results = futures::future::join_all(attempts.collect::<Vec<_>>()).await;
        let won = results.into_iter().filter(|result| result.as_ref().is_ok_and(Result::is_ok)).count();
        assert_eq!(won, 1);

        // And fifty times the same request: all succeed, with the same bytes.
        let secret = world.offer().await;
        let same = request(&secret, &EXPORTER, &csr());
        let attempts = (0..50).map(|_| {
            let (authority, request) = (Arc::clone(&world.authority), same.clone());
            tokio::spawn(async move { authority.join(&request, &EXPORTER, peer()).await })
        });
        let results = futures::future::join_all(attempts.collect::<Vec<_>>()).await;
        let given =
            results.into_iter().map(|result| result.expect("no panic").expect("joins").certificate_der);
        assert_eq!(given.collect::<HashSet<_>>().len(), 1);
    }
}

/// Ten honest joins, and a hundred replays of each secret: fifty at once while it is in use, then after the session
/// has begun, then after a restart. There are ten certificates at the end, each the honest node's.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_replays_over_restarts_get_nothing() {
    let mut world = World::new();
    let mut issued = 0;
    for _ in 0..10 {
        let secret = world.offer().await;
        let own = request(&secret, &EXPORTER, &csr());
        let signed = world.authority.join(&own, &EXPORTER, peer()).await.expect("joins");
        let attempts = (0..50).map(|_| {
            let (authority, replay) = (Arc::clone(&world.authority), request(&secret, &EXPORTER, &csr()));
            tokio::spawn(async move { refusal(authority.join(&replay, &EXPORTER, peer()).await) })
        });
        for refused in futures::future::join_all(attempts.collect::<Vec<_>>()).await {
            assert_eq!(refused.expect("no panic"), Refusal::OtherKey, "the secret is good, and used");
        }
        let identity = world.authority.identify(&signed.certificate_der).await.expect("survives replays");
        world.authority.session_started(&identity).await.expect("comes in");
        for round in 0..50 {
            if round == 25 {
                issued += joined(&mut world);
                world.restart();
            }
            let replay = if round % 2 == 0 { own.clone() } else { request(&secret, &EXPORTER, &csr()) };
            let refused = refusal(world.authority.join(&replay, &EXPORTER, peer()).await);
            assert_eq!(refused, Refusal::Proof, "the secret is gone");
        }
        world.authority.identify(&signed.certificate_der).await.expect("survives the restart");
        issued += joined(&mut world);
    }
    assert_eq!(issued, 10, "one secret, one certificate");
}

/// How many certificates were given out since the last call.
fn joined(world: &mut World) -> usize {
    std::iter::from_fn(|| world.events.try_next())
        .filter(|event| matches!(event, JoinEvent::Joined { .. }))
        .count()
}

#[tokio::test]
async fn a_token_burned_without_a_certificate_is_finished_with_its_own_serial() {
    let world = World::new();
    let secret = world.offer().await;
    let first = request(&secret, &EXPORTER, &csr());
    let signed = world.authority.join(&first, &EXPORTER, peer()).await.expect("joins");
    // As if signing had failed after the burn.
    world.sql("UPDATE join_token SET certificate = NULL; DELETE FROM node_serial");
    let other = request(&secret, &EXPORTER, &csr());
    assert_eq!(refusal(world.authority.join(&other, &EXPORTER, peer()).await), Refusal::OtherKey);
    world.pass(SignedDuration::from_mins(5));
    let again = world.authority.join(&first, &EXPORTER, peer()).await.expect("is finished");
    assert_eq!((again.serial, again.not_after), (signed.serial, signed.not_after));
    world.authority.identify(&again.certificate_der).await.expect("is good");
}

#[tokio::test]
async fn a_restart_voids_secrets_on_their_way() {
    let mut world = World::new();
    let secret = world.offer().await;
    world.restart();
    let late = request(&secret, &EXPORTER, &csr());
    assert_eq!(refusal(world.authority.join(&late, &EXPORTER, peer()).await), Refusal::Proof);
    let fresh = world.offer().await;
    world.authority.join(&request(&fresh, &EXPORTER, &csr()), &EXPORTER, peer()).await.expect("joins");
}

#[tokio::test]
async fn a_joined_node_can_join_anew_and_its_old_certificate_ends_then() {
    let world = World::new();
    let mut serials = Vec::new();
    for _ in 0..3 {
        let secret = world.offer().await;
        let joined = world.authority.join(&request(&secret, &EXPORTER, &csr()), &EXPORTER, peer()).await;
        let signed = joined.expect("joins");
        let identity = world.authority.identify(&signed.certificate_der).await.expect("is good");
        world.authority.session_started(&identity).await.expect("comes in");
        serials.push(signed.certificate_der);
    }
    world.authority.identify(&serials[2]).await.expect("the last is good");
    world.authority.identify(&serials[1]).await.expect_err("the one before is not");
}

#[tokio::test]
async fn a_removed_node_stays_out_over_restarts() {
    let mut world = World::new();
    let secret = world.offer().await;
    let joined = request(&secret, &EXPORTER, &csr());
    let signed = world.authority.join(&joined, &EXPORTER, peer()).await.expect("joins");
    let identity = world.authority.identify(&signed.certificate_der).await.expect("is good");
    world.authority.revoke(NODE).await.expect("revokes");
    for _ in 0..2 {
        world.authority.identify(&signed.certificate_der).await.expect_err("is revoked");
        world.authority.session_started(&identity).await.expect_err("is revoked");
        world.authority.renew(&identity, &csr()).await.expect_err("is revoked");
        assert_eq!(refusal(world.authority.offer(CLUSTER, NODE, MACHINE).await), Refusal::Removed);
        let tried = world.authority.join(&joined, &EXPORTER, peer()).await;
        assert_eq!(refusal(tried), Refusal::Removed);
        world.restart();
    }
}

#[tokio::test]
async fn a_certificate_of_another_cluster_or_after_its_day_opens_nothing() {
    let world = World::new();
    world.run_machine("node-b", "uuid-b");
    let secret = world.authority.offer(OTHER_CLUSTER, "node-b", "uuid-b").await.expect("a secret");
    let request_csr = csr();
    let mut theirs = request(&secret, &EXPORTER, &request_csr);
    (theirs.node_id, theirs.machine_uuid) = ("node-b".to_owned(), "uuid-b".to_owned());
    theirs.mac = mac(secret.expose_secret(), &EXPORTER, "node-b", &request_csr);
    let signed = world.authority.join(&theirs, &EXPORTER, peer()).await.expect("joins its own cluster");
    world.ca().verify_node(&signed.certificate_der, world.now()).expect_err("cluster A does not know it");
    world.authority.identify(&signed.certificate_der).await.expect("cluster B does");
    world.pass(SignedDuration::from_hours(25));
    world.authority.identify(&signed.certificate_der).await.expect_err("a day is over");
}

#[tokio::test]
async fn one_address_is_slowed_down() {
    let world = World::new();
    let secret = world.offer().await;
    let mut wrong = request(&secret, &EXPORTER, &csr());
    wrong.mac[0] ^= 1;
    let from = peer();
    let mut last = Refusal::Proof;
    for _ in 0..40 {
        last = refusal(world.authority.join(&wrong, &EXPORTER, from).await);
    }
    assert_eq!(last, Refusal::Rate);
    world
        .authority
        .join(&request(&secret, &EXPORTER, &csr()), &EXPORTER, peer())
        .await
        .expect("others are not");
}

/// Each certificate is a signature and a write to the host's disk, by whatever way and address it is asked for.
#[tokio::test]
async fn one_node_is_slowed_down() {
    let world = World::with_node_rate();
    let join = async || {
        let secret = world.offer().await;
        world.authority.join(&request(&secret, &EXPORTER, &csr()), &EXPORTER, peer()).await
    };
    let signed = join().await.expect("joins");
    let identity = world.authority.identify(&signed.certificate_der).await.expect("is good");
    world.authority.session_started(&identity).await.expect("comes in");
    let begun = std::time::Instant::now();
    let (mut given, mut last) = (0, None);
    for _ in 0..40 {
        match world.authority.renew(&identity, &csr()).await {
            Ok(_) => given += 1,
            refused => last = Some(refusal(refused)),
        }
    }
    let since = begun.elapsed().as_secs() / 10;
    assert!((9..=9 + since + 1).contains(&given), "{given}");
    assert_eq!(last, Some(Refusal::Rate));
    assert_eq!(refusal(join().await), Refusal::Rate);
    world.authority.identify(&signed.certificate_der).await.expect("what it has is good");

    world.run_machine("node-b", "uuid-b");
    let secret = world.authority.offer(CLUSTER, "node-b", "uuid-b").await.expect("a secret");
    let request_csr = csr();
    let mut theirs = request(&secret, &EXPORTER, &request_csr);
    (theirs.node_id, theirs.machine_uuid) = ("node-b".to_owned(), "uuid-b".to_owned());
    theirs.mac = mac(secret.expose_secret(), &EXPORTER, "node-b", &request_csr);
    world.authority.join(&theirs, &EXPORTER, peer()).await.expect("others are not");
}

/// A stranger who has no secret invents 10,000 ids, each as long as a message may be, and then sound ones.
#[tokio::test]
async fn ten_thousand_refusals_leave_two_lines_and_room_for_a_genuine_event() {
    let mut world = World::new();
    let secret = world.offer().await;
    let honest = request(&secret, &EXPORTER, &csr());
    let stranger = peer();
    for number in 0..10_000_u32 {
        let sound = number % 2 == 1;
        let node_id = if sound { format!("node-{number}") } else { number.to_string().repeat(12_000) };
        let invented = k8sctl_proto::node::v1::JoinRequest { node_id, ..honest.clone() };
        let error = world.authority.join(&invented, &EXPORTER, stranger).await.expect_err("is refused");
        assert!(error.to_string().len() < 128, "the invented id is not carried further");
        assert!(matches!(refusal::<()>(Err(error)), Refusal::Proof | Refusal::Rate));
    }
    world.authority.join(&honest, &EXPORTER, peer()).await.expect("joins");
    world.events.look(std::time::Instant::now() + std::time::Duration::from_secs(61));
    let events: Vec<JoinEvent> = std::iter::from_fn(|| world.events.try_next()).collect();
    let text = format!("{events:?}");
    assert!(text.len() < 1024, "{text}");
    let left_out = JoinEvent::LeftOut { peer: Some(stranger.ip()), node_id: None, count: 9_999 };
    let first = JoinEvent::Refused { node_id: None, peer: stranger.ip(), refusal: Refusal::Proof };
    assert!(events.contains(&first) && events.contains(&left_out), "{text}");
    assert!(events.iter().any(|event| matches!(event, JoinEvent::Joined { .. })), "{text}");
    assert_eq!(events.len(), 3, "{text}");
}

/// A stranger with all addresses of a network fills no queue: who has a secret is still heard.
#[tokio::test]
async fn refusals_of_many_addresses_are_counted_together() {
    let mut world = World::new();
    let secret = world.offer().await;
    let honest = request(&secret, &EXPORTER, &csr());
    for _ in 0..2_000 {
        let invented =
            k8sctl_proto::node::v1::JoinRequest { node_id: "Not One".to_owned(), ..honest.clone() };
        assert_eq!(refusal(world.authority.join(&invented, &EXPORTER, peer()).await), Refusal::Proof);
    }
    world.authority.join(&honest, &EXPORTER, peer()).await.expect("joins");
    let other = request(&secret, &EXPORTER, &csr());
    assert_eq!(refusal(world.authority.join(&other, &EXPORTER, peer()).await), Refusal::OtherKey);
    world.events.look(std::time::Instant::now() + std::time::Duration::from_secs(61));
    let events: Vec<JoinEvent> = std::iter::from_fn(|| world.events.try_next()).collect();
    assert!(events.len() < 50, "{}", events.len());
    let others = |event: &JoinEvent| matches!(event, JoinEvent::LeftOut { peer: None, node_id: None, count } if *count > 1_900);
    assert!(events.iter().any(others), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, JoinEvent::Joined { .. })), "{events:?}");
    let second_use =
        |event: &JoinEvent| matches!(event, JoinEvent::Refused { refusal: Refusal::OtherKey, .. });
    assert!(events.iter().any(second_use), "a known secret is told whoever else knocks");
}
