//! containerd and the kubelet: their units by D-Bus signals, they themselves by asking them.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use k8sctl_proto::node::v1::ConditionStatus::{False, True, Unknown};
use tokio::sync::watch;
use tokio::time::sleep;

use super::patience::{Answer, Health, Patience, listen};
use super::process;
use crate::probe::{self, ProbeError};
use crate::retry::{self, Backoff};
use crate::service::Service;
use crate::status::Board;
use crate::steps::containerd;
use crate::steps::cri::{self, CriError};
use crate::steps::kubelet;
use crate::systemd::{Systemd, SystemdError, UnitState, Watched};

/// How often a service that is well is asked: with [`super::patience`]'s deadline, one that hangs is known to within 13 s.
const WELL: Duration = Duration::from_secs(5);
/// How often one that is not.
const UNWELL: Duration = Duration::from_secs(1);
/// How often systemd is asked for a unit's state where no signal came.
const ASK_SYSTEMD: Duration = Duration::from_secs(30);
/// Deadline of a question itself, by the clock: whether it was silence is [`super::patience`]'s to say before that.
const QUESTION: Duration = Duration::from_secs(60);
/// How long a service must have ended at each of its starts until systemd's next one is not waited for any more.
const ENDING: Duration = Duration::from_secs(60);

/// What is wrong with a service, so that it will not come to by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Its unit does not run, and systemd will not start it.
    Stopped(String),
    /// Its process does not answer.
    Hung(String),
    /// It ends at each start, and systemd starts it again and again.
    Ending(String),
}

impl Trouble {
    /// One line for a person.
    pub fn words(&self) -> String {
        let (Self::Stopped(words) | Self::Hung(words) | Self::Ending(words)) = self;
        words.clone()
    }
}

/// What is seen of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nothing yet, or systemd is silent.
    #[default]
    Unknown,
    /// It runs and answers.
    Well,
    /// It does not, and may come to by itself.
    Unwell(String),
    /// It does not, and will not.
    Trouble(Trouble),
}

/// Since when a service has not been well and ended at each start.
#[derive(Debug, Default)]
struct Endings(Option<Instant>);

impl Endings {
    /// Takes in a look; says whether it has gone on for too long.
    fn look(&mut self, unit: &UnitState, now: Instant) -> bool {
        match (unit.active.as_str(), unit.sub.as_str()) {
            // Somebody has stopped it.
            ("inactive" | "failed", _) => {
                self.0 = None;
                false
            }
            ("activating", sub) if sub.starts_with("auto-restart") => {
                now.duration_since(*self.0.get_or_insert(now)) >= ENDING
            }
            _ => false,
        }
    }

    /// It is well.
    fn forget(&mut self) {
        self.0 = None;
    }
}

/// Watches until the runtime ends.
pub async fn watch(board: Board, service: Service, sight: watch::Sender<Seen>) {
    let mut backoff = Backoff::new(retry::WATCH);
    loop {
        let error = match connect(service).await {
            Ok(mut watched) => {
                backoff.reset();
                follow(&board, service, &mut watched, &sight).await
            }
            Err(error) => error,
        };
        let why = k8sctl_rpc::chain(&error).to_string();
        board.condition(service.condition(), Unknown, "SystemdSilent", why);
        sight.send_replace(Seen::Unknown);
        sleep(backoff.next_pause()).await;
    }
}

async fn connect(service: Service) -> Result<Watched, SystemdError> {
    Systemd::connect().await?.watch(service.unit()).await
}

/// Until the connection ends.
async fn follow(
    board: &Board,
    service: Service,
    watched: &mut Watched,
    sight: &watch::Sender<Seen>,
) -> SystemdError {
    let (mut patience, mut endings) = (Patience::default(), Endings::default());
    loop {
        let unit = match watched.state().await {
            Ok(unit) => unit,
            Err(error) => return error,
        };
        let asked = Instant::now();
        loop {
            let health = if unit.active == "active" {
                let question = listen(unit.main_pid, ask(service), process::look);
                let Some(look) = unless_changed(watched, question).await else { break };
                patience.judge(&look)
            } else if endings.look(&unit, Instant::now()) {
                Health::Unwell(format!("it has ended at each start for {} s", ENDING.as_secs()))
            } else {
                Health::Unclear
            };
            let well = publish(board, service, sight, &unit, health);
            if well {
                endings.forget();
            }
            let pause = if well || unit.active != "active" { WELL } else { UNWELL };
            if unless_changed(watched, sleep(pause)).await.is_none() || asked.elapsed() >= ASK_SYSTEMD {
                break;
            }
        }
    }
}

/// `None` means: the unit may have changed meanwhile. Cancel-safe if the work is: a signal only wakes.
async fn unless_changed<T>(watched: &mut Watched, work: impl Future<Output = T>) -> Option<T> {
    let open = tokio::select! {
        done = work => return Some(done),
        open = watched.changed() => open,
    };
    if !open {
        // The next question to systemd says why.
        sleep(UNWELL).await;
    }
    None
}

async fn ask(service: Service) -> Answer {
    match service {
        Service::Containerd => match cri::version_within(Path::new(containerd::SOCKET), QUESTION).await {
            Ok(_) => Answer::Well,
            Err(CriError::Slow { .. }) => Answer::Silent,
            Err(error) => failed(&error),
        },
        Service::Kubelet => match probe::get_within(kubelet::HEALTHZ, "/healthz", QUESTION).await {
            Ok(answer) if answer.status == 200 => Answer::Well,
            Ok(answer) => Answer::Unwell(format!("healthz says {}", answer.status)),
            Err(ProbeError::Slow { .. }) => Answer::Silent,
            Err(error) => failed(&error),
        },
    }
}

/// What a question that failed says: a port that nobody has open, and a socket that is not there, are no word of the
/// service.
fn failed(error: &(dyn Error + 'static)) -> Answer {
    let why = k8sctl_rpc::chain(error).to_string();
    let mut causes = std::iter::successors(Some(error), |&cause| cause.source());
    let nobody_listens = causes.any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(ErrorKind::ConnectionRefused | ErrorKind::NotFound))
    });
    if nobody_listens { Answer::Away(why) } else { Answer::Unwell(why) }
}

/// Tells the board and repair; says whether all is well.
fn publish(
    board: &Board,
    service: Service,
    sight: &watch::Sender<Seen>,
    unit: &UnitState,
    health: Health,
) -> bool {
    let Some((reason, message, seen)) = judge(service, unit, health) else { return false };
    let well = seen == Seen::Well;
    board.condition(service.condition(), if well { True } else { False }, reason, message);
    sight.send_if_modified(|known| {
        let modified = *known != seen;
        *known = seen;
        modified
    });
    well
}

/// `None` means: what was known holds.
fn judge(service: Service, unit: &UnitState, health: Health) -> Option<(&'static str, String, Seen)> {
    let words = format!("{} is {} ({})", service.unit(), unit.active, unit.sub);
    let hangs = |why: &str| format!("{} does not answer: {why}", service.unit());
    Some(match (unit.active.as_str(), health) {
        ("active", Health::Well) => ("Running", String::new(), Seen::Well),
        ("active", Health::Unclear) => return None,
        ("active", Health::Unwell(why)) => ("NotAnswering", why.clone(), Seen::Unwell(why)),
        ("active", Health::Hung(why)) => ("Hung", hangs(&why), Seen::Trouble(Trouble::Hung(hangs(&why)))),
        ("activating", Health::Unwell(why)) => {
            let words = format!("{words}: {why}");
            ("Ending", words.clone(), Seen::Trouble(Trouble::Ending(words)))
        }
        ("activating" | "reloading", _) => ("Starting", words.clone(), Seen::Unwell(words)),
        ("deactivating", _) => ("NotRunning", words.clone(), Seen::Unwell(words)),
        ("failed", _) => ("Failed", words.clone(), Seen::Trouble(Trouble::Stopped(words))),
        _ => ("NotRunning", words.clone(), Seen::Trouble(Trouble::Stopped(words))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(active: &str, health: Health) -> Option<(&'static str, Seen)> {
        let unit = UnitState { active: active.into(), sub: "x".into(), main_pid: 1 };
        judge(Service::Containerd, &unit, health).map(|(reason, _, seen)| (reason, seen))
    }

    fn reason(active: &str, health: Health) -> &'static str {
        judged(active, health).expect("judged").0
    }

    #[test]
    fn a_unit_is_ready_when_it_runs_and_answers() {
        assert_eq!(judged("active", Health::Well), Some(("Running", Seen::Well)));
        assert_eq!(reason("active", Health::Unwell("refused".into())), "NotAnswering");
        assert_eq!(reason("active", Health::Hung("silent".into())), "Hung");
        assert_eq!(reason("failed", Health::Unclear), "Failed");
        assert_eq!(reason("inactive", Health::Unclear), "NotRunning");
        assert_eq!(judged("active", Health::Unclear), None);
    }

    #[test]
    fn only_what_will_not_come_to_by_itself_is_repairs_business() {
        let is_trouble = |active, health| matches!(judged(active, health), Some((_, Seen::Trouble(_))));
        assert!(is_trouble("inactive", Health::Unclear) && is_trouble("failed", Health::Unclear));
        assert!(is_trouble("active", Health::Hung("silent".into())));
        for active in ["activating", "deactivating", "reloading"] {
            assert!(!is_trouble(active, Health::Unclear), "{active}");
        }
        assert!(!is_trouble("active", Health::Unwell("refused".into())));
    }

    #[tokio::test]
    async fn that_nobody_listens_is_told_from_what_a_service_says_of_itself() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = dir.path().join("cri.sock");
        let gone = cri::version(&socket).await.expect_err("no socket");
        assert!(matches!(failed(&gone), Answer::Away(_)), "{gone:?}");
        // The socket of one that has ended.
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
        let refused = cri::version(&socket).await.expect_err("nobody listens");
        assert!(matches!(failed(&refused), Answer::Away(_)), "{refused:?}");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let refused = probe::get(address, "/healthz").await.expect_err("nobody listens");
        assert!(matches!(failed(&refused), Answer::Away(_)), "{refused:?}");

        let said = CriError::Call(Box::new(tonic::Status::unavailable("server is not initialized yet")));
        assert!(matches!(failed(&said), Answer::Unwell(_)));
        assert!(matches!(failed(&ProbeError::Malformed { address }), Answer::Unwell(_)));
    }

    #[test]
    fn one_that_ends_at_each_start_for_a_minute_will_not_come_to_by_itself() {
        let (mut endings, begun) = (Endings::default(), Instant::now());
        let mut look = |active: &str, sub: &str, seconds| {
            let unit = UnitState { active: active.into(), sub: sub.into(), main_pid: 0 };
            endings.look(&unit, begun + Duration::from_secs(seconds))
        };
        for seconds in [0, 30, 59] {
            assert!(!look("activating", "auto-restart", seconds));
            assert!(!look("active", "running", seconds));
            assert!(!look("activating", "start", seconds + 600));
        }
        assert!(look("activating", "auto-restart", 60) && look("activating", "auto-restart-queued", 61));
        assert!(!look("inactive", "dead", 62) && !look("activating", "auto-restart", 63));
        assert!(look("activating", "auto-restart", 123));
        endings.forget();
        assert_eq!(endings.0, None);
        let seen = judged("activating", Health::Unwell("it ended".into()));
        let words = "containerd.service is activating (x): it ended".to_owned();
        assert_eq!(seen, Some(("Ending", Seen::Trouble(Trouble::Ending(words)))));
    }

    #[test]
    fn one_look_tells_the_board_and_repair_and_an_unclear_one_neither() {
        let (board, (sight, seen)) = (Board::default(), watch::channel(Seen::Unknown));
        let unit = |active: &str| UnitState { active: active.into(), sub: "dead".into(), main_pid: 0 };
        publish(&board, Service::Containerd, &sight, &unit("inactive"), Health::Unclear);
        let words = "containerd.service is inactive (dead)".to_owned();
        assert_eq!(*seen.borrow(), Seen::Trouble(Trouble::Stopped(words.clone())));
        assert!(publish(&board, Service::Containerd, &sight, &unit("active"), Health::Well));
        assert!(!publish(&board, Service::Containerd, &sight, &unit("active"), Health::Unclear));
        let report = board.subscribe().borrow().clone();
        assert_eq!((report.conditions.len(), report.conditions[0].status()), (1, True));
        assert_eq!(*seen.borrow(), Seen::Well);
    }
}
