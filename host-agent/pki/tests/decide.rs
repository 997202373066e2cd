//! The pure decision, driven through every crash: whatever is lost at whatever point, a retry ends in exactly one
//! certificate, and nobody else ever gets one.

use host_pki::join::Refusal;
use host_pki::join::decide::{Attempt, Decision, Grant, TokenRecord, TokenState, decide_join};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

const SECRET: [u8; 32] = [1; 32];
const HONEST: [u8; 32] = [2; 32];
const THIEF: [u8; 32] = [3; 32];

/// Where the host agent is killed while it answers one attempt.
#[derive(Clone, Copy, Debug)]
enum Crash {
    BeforeBurn,
    AfterBurn,
    AfterSign,
    AfterStore,
    Never,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Try { thief: bool, crash: Crash },
    WrongProof,
    Session,
}

fn record() -> TokenRecord {
    TokenRecord {
        cluster_id: "c".to_owned(),
        machine_uuid: "u".to_owned(),
        secret_hash: SECRET,
        expires: Timestamp::UNIX_EPOCH + SignedDuration::from_mins(10),
        state: TokenState::Unused,
    }
}

fn attempt(csr_hash: [u8; 32]) -> Attempt {
    Attempt {
        revoked: false,
        proven: Some(SECRET),
        machine_uuid: "U".to_owned(),
        machine_running: true,
        csr_hash: Some(csr_hash),
    }
}

/// The table and what has left the host.
#[derive(Debug)]
struct Host {
    record: TokenRecord,
    counter: u8,
    given: Vec<([u8; 32], Vec<u8>)>,
}

impl Host {
    /// Follows the decision as the authority does, up to the crash. Serial and key make the certificate.
    fn answer(&mut self, csr_hash: [u8; 32], crash: Crash) {
        let mut decision = decide_join(Some(&self.record), &attempt(csr_hash), Timestamp::UNIX_EPOCH);
        if matches!(crash, Crash::BeforeBurn) {
            return;
        }
        if decision == Decision::Burn {
            self.counter += 1;
            let grant = Grant {
                csr_hash,
                serial: [self.counter; 16],
                issued: Timestamp::UNIX_EPOCH,
                certificate: None,
            };
            self.record.state = TokenState::Burned(grant.clone());
            decision = Decision::Finish(grant);
        }
        if matches!(crash, Crash::AfterBurn) {
            return;
        }
        if let Decision::Finish(mut grant) = decision {
            let certificate = [&grant.serial[..], &csr_hash].concat();
            if matches!(crash, Crash::AfterSign) {
                return;
            }
            grant.certificate = Some(certificate.clone());
            self.record.state = TokenState::Burned(grant);
            decision = Decision::Again(certificate, Timestamp::UNIX_EPOCH);
        }
        if matches!(crash, Crash::AfterStore) {
            return;
        }
        if let Decision::Again(certificate, _) = decision {
            self.given.push((csr_hash, certificate));
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let crash = prop_oneof![
        Just(Crash::BeforeBurn),
        Just(Crash::AfterBurn),
        Just(Crash::AfterSign),
        Just(Crash::AfterStore),
        Just(Crash::Never),
    ];
    let act = prop_oneof![
        8 => (any::<bool>(), crash).prop_map(|(thief, crash)| Act::Try { thief, crash }),
        1 => Just(Act::WrongProof),
        1 => Just(Act::Session),
    ];
    prop::collection::vec(act, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn one_secret_gives_one_certificate_whatever_crashes(acts in acts()) {
        let mut host = Host { record: record(), counter: 0, given: Vec::new() };
        let mut closed = false;
        for act in acts {
            match act {
                Act::Try { thief, crash } => host.answer(if thief { THIEF } else { HONEST }, crash),
                Act::WrongProof => {
                    let before = host.record.clone();
                    let wrong = Attempt { proven: None, ..attempt(HONEST) };
                    let decision = decide_join(Some(&host.record), &wrong, Timestamp::UNIX_EPOCH);
                    prop_assert_eq!(decision, Decision::Refuse(Refusal::Proof));
                    prop_assert_eq!(&host.record, &before);
                }
                Act::Session if !host.given.is_empty() => {
                    host.record.state = TokenState::Closed;
                    closed = true;
                }
                Act::Session => {}
            }
        }
        // Whoever the token was burned for gets its certificate on the next clean try.
        let owner = match &host.record.state {
            TokenState::Burned(grant) => grant.csr_hash,
            TokenState::Unused => HONEST,
            TokenState::Closed => THIEF,
        };
        let before = host.given.len();
        host.answer(owner, Crash::Never);
        prop_assert_eq!(host.given.len(), if closed { before } else { before + 1 });
        let (first_key, first) = host.given[0].clone();
        prop_assert!(host.given.iter().all(|(key, certificate)| *key == first_key && *certificate == first));
        prop_assert!(host.counter <= 1);
    }
}

#[test]
fn each_reason_is_found_in_its_order() {
    let token = record();
    let decide = |attempt: &Attempt, now| decide_join(Some(&token), attempt, now);
    let good = attempt(HONEST);
    let start = Timestamp::UNIX_EPOCH;
    let end = token.expires;
    assert_eq!(decide(&good, start), Decision::Burn);
    assert_eq!(decide_join(None, &good, start), Decision::Refuse(Refusal::Proof));
    let refused = |change: &dyn Fn(&mut Attempt), now| {
        let mut attempt = good.clone();
        change(&mut attempt);
        decide(&attempt, now)
    };
    type Change<'a> = &'a dyn Fn(&mut Attempt);
    let cases: [(Change<'_>, Timestamp, Refusal); 7] = [
        (&|a| a.revoked = true, start, Refusal::Removed),
        (&|a| a.proven = None, end, Refusal::Proof),
        (&|a| a.proven = Some([0; 32]), start, Refusal::Proof),
        (&|_| {}, end, Refusal::Expired),
        (&|a| a.machine_running = false, start, Refusal::Machine),
        (&|a| a.machine_uuid = "other".to_owned(), start, Refusal::Machine),
        (&|a| a.csr_hash = None, start, Refusal::Csr),
    ];
    for (change, now, expected) in cases {
        assert_eq!(refused(change, now), Decision::Refuse(expected));
    }
}
