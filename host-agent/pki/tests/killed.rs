//! The real authority, killed at each point of giving a certificate: the token is burned once, and whoever asks again
//! ends with the one certificate of it, or with none.

#![expect(clippy::disallowed_methods, reason = "a test joins the tasks that it starts")]

mod world;

use std::sync::Arc;

use host_pki::ca::SignedNode;
use host_pki::join::{JoinError, Refusal};
use proptest::prelude::*;
use secrecy::SecretSlice;
use world::{World, csr, peer, request};

const EXPORTER: [u8; 32] = [7; 32];
const POINTS: [&str; 3] = ["after-burn-token", "after-sign-certificate", "after-store-certificate"];

/// Asks for a certificate; `None`: the host agent was killed before it answered.
async fn ask(
    world: &World,
    secret: &SecretSlice<u8>,
    csr: &[u8],
    killed: Option<&'static str>,
) -> Option<Result<SignedNode, JoinError>> {
    *world.crash_at.lock().expect("no panic") = killed;
    let (authority, request) = (Arc::clone(&world.authority), request(secret, &EXPORTER, csr));
    let ended = tokio::spawn(async move { authority.join(&request, &EXPORTER, peer()).await }).await.ok();
    // A point that was not passed is none of the next attempt.
    *world.crash_at.lock().expect("no panic") = None;
    ended
}

fn refusal(result: Option<Result<SignedNode, JoinError>>) -> Refusal {
    match result {
        Some(Err(JoinError::Refused { refusal, .. })) => refusal,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[tokio::test]
async fn an_answer_that_was_cut_off_is_given_again_to_the_same_key_alone() {
    for point in POINTS {
        let world = World::new();
        let (secret, own) = (world.offer().await, csr());
        assert!(ask(&world, &secret, &own, Some(point)).await.is_none(), "{point} is passed");
        assert_eq!(refusal(ask(&world, &secret, &csr(), None).await), Refusal::OtherKey, "{point}");
        let first = ask(&world, &secret, &own, None).await.expect("answers").expect("joins");
        let again = ask(&world, &secret, &own, None).await.expect("answers").expect("joins");
        assert_eq!(first, again, "{point}");
        world.authority.identify(&first.certificate_der).await.expect("it is good");
    }
}

#[tokio::test]
async fn the_next_host_agent_gives_another_secret_and_one_certificate_is_good() {
    for point in POINTS {
        let mut world = World::new();
        let (old, own) = (world.offer().await, csr());
        assert!(ask(&world, &old, &own, Some(point)).await.is_none(), "{point} is passed");
        world.restart();
        assert_eq!(refusal(ask(&world, &old, &own, None).await), Refusal::Proof, "{point}");
        let secret = world.offer().await;
        let signed = ask(&world, &secret, &own, None).await.expect("answers").expect("joins");
        let identity = world.authority.identify(&signed.certificate_der).await.expect("it is good");
        world.authority.session_started(&identity).await.expect("comes in");
        assert_eq!(refusal(ask(&world, &secret, &own, None).await), Refusal::Proof, "{point}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Ask { thief: bool, killed: Option<&'static str> },
    Session,
}

/// No more of them than the rate of a node allows.
fn acts() -> impl Strategy<Value = Vec<Act>> {
    let killed = prop::option::of(prop::sample::select(POINTS.to_vec()));
    let act = prop_oneof![
        5 => (any::<bool>(), killed).prop_map(|(thief, killed)| Act::Ask { thief, killed }),
        1 => Just(Act::Session),
    ];
    prop::collection::vec(act, 0..8)
}

async fn one_secret_gives_one_certificate(acts: Vec<Act>) {
    let world = World::new();
    let secret = world.offer().await;
    let csrs = [csr(), csr()];
    let (mut owner, mut given, mut is_in) = (None, Vec::new(), false);
    for act in acts.into_iter().chain([Act::Ask { thief: false, killed: None }]) {
        match act {
            Act::Ask { thief, killed } => {
                // Every point lies behind the burning.
                let owner = *owner.get_or_insert(thief);
                match ask(&world, &secret, &csrs[usize::from(thief)], killed).await {
                    Some(Ok(signed)) => {
                        assert!(thief == owner && !is_in);
                        given.push(signed);
                    }
                    Some(Err(JoinError::Refused { refusal, .. })) => {
                        assert!(is_in || (thief != owner && refusal == Refusal::OtherKey), "{refusal:?}");
                    }
                    Some(Err(other)) => panic!("another error: {other:?}"),
                    None => assert!(thief == owner && killed.is_some()),
                }
            }
            Act::Session => {
                if let Some(signed) = given.first() {
                    let identity = world.authority.identify(&signed.certificate_der).await.expect("good");
                    world.authority.session_started(&identity).await.expect("comes in");
                    is_in = true;
                }
            }
        }
    }
    // Who owns the token gets its certificate, unless it is in by now.
    let own = csrs[usize::from(owner.unwrap_or_default())].clone();
    if !is_in {
        given.push(ask(&world, &secret, &own, None).await.expect("answers").expect("joins"));
    }
    assert!(given.windows(2).all(|pair| pair[0] == pair[1]), "{given:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_secret_gives_one_certificate_wherever_it_is_killed(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("starts").block_on(one_secret_gives_one_certificate(acts));
    }
}
