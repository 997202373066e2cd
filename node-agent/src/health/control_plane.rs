//! The parts of a control plane, each asked on its own health port: `ApiServerReady`, `ControllerManagerReady`,
//! `SchedulerReady`, `EtcdReady`. Only where a control plane shall be and its static pods have been written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8sctl_proto::node::v1::ConditionStatus::{False, True, Unknown};
use k8sctl_proto::node::v1::{DesiredState, ManagedFile};
use tokio::sync::watch;
use tokio::time::sleep;

use super::is_control_plane;
use crate::converge::step::StepError;
use crate::durable::Root;
use crate::kubeconfig::Kubeconfig;
use crate::probe::{self, Answer, ApiClient, ProbeError};
use crate::status::Board;
use crate::steps::files::ADMIN_CONF;
use crate::steps::kubeadm::observe::{self, failing_checks};

/// How often a control plane that is well is asked: each question to the API server is a TLS handshake.
const WELL: Duration = Duration::from_secs(10);
/// How often one that is not.
const UNWELL: Duration = Duration::from_secs(3);
/// Silences in a row that say that a part is not ready: on a busy machine one is late now and then.
const SILENCES: u32 = 2;

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

// Where kubeadm's static pods listen, in every version that there is a bundle of.
const CONTROLLER_MANAGER: SocketAddr = loopback(10257);
const SCHEDULER: SocketAddr = loopback(10259);
/// `--listen-metrics-urls`: plain HTTP, which says its health without the client certificate that its other port asks for.
const ETCD: SocketAddr = loopback(2381);

/// A part, and how often it was silent.
struct Part {
    condition: &'static str,
    manifest: &'static str,
    silences: u32,
}

impl Part {
    fn new(condition: &'static str, manifest: &'static str) -> Self {
        Self { condition, manifest, silences: 0 }
    }

    /// Puts an answer on the board; says whether it is well.
    fn report(&mut self, board: &Board, answer: Result<(), Unwell>) -> bool {
        self.silences = if matches!(answer, Err(Unwell::Silent(_))) { self.silences + 1 } else { 0 };
        match answer {
            Ok(()) => board.condition(self.condition, True, "Healthy", ""),
            Err(Unwell::Silent(why)) => {
                if self.silences >= SILENCES {
                    board.condition(self.condition, False, "Silent", why);
                }
                return false;
            }
            Err(Unwell::Away(why)) => {
                board.condition(self.condition, False, "NotAnswering", why);
                return false;
            }
            Err(Unwell::Says(why)) => {
                board.condition(self.condition, False, "Unhealthy", why);
                return false;
            }
        }
        true
    }
}

/// Why a part is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unwell {
    /// Nothing within the deadline.
    Silent(String),
    /// Nobody listens there.
    Away(String),
    /// It says so itself.
    Says(String),
}

impl From<ProbeError> for Unwell {
    fn from(error: ProbeError) -> Self {
        let why = k8sctl_rpc::chain(&error).to_string();
        if matches!(error, ProbeError::Slow { .. }) { Self::Silent(why) } else { Self::Away(why) }
    }
}

/// Looks until the host has gone for good.
pub async fn watch(board: Board, root: Root, mut desired: watch::Receiver<Option<DesiredState>>) {
    let mut parts = [
        Part::new("ApiServerReady", "kube-apiserver"),
        Part::new("ControllerManagerReady", "kube-controller-manager"),
        Part::new("SchedulerReady", "kube-scheduler"),
        Part::new("EtcdReady", "etcd"),
    ];
    let mut trusted = Trusted::default();
    loop {
        let wanted = desired.borrow_and_update().clone().filter(is_control_plane);
        let mut well = true;
        if let Some(desired) = &wanted
            && parts.iter().all(|part| root.exists(observe::manifest_path(part.manifest)))
        {
            for (part, answer) in parts.iter_mut().zip(ask(trusted.clients(desired)).await) {
                well &= part.report(&board, answer);
            }
        } else if wanted.is_some() {
            // Written again, or not written yet: what was known does not hold.
            for part in parts.iter().filter(|part| board.has_condition(part.condition)) {
                board.condition(part.condition, Unknown, "NoManifest", "a static pod's manifest is missing");
            }
        }
        let pause = if well { WELL } else { UNWELL };
        // Cancel-safe: it is looked anew in any case.
        tokio::select! {
            () = sleep(pause) => {}
            changed = desired.changed() => if changed.is_err() { return },
        }
    }
}

/// Clients of the parts that speak TLS.
struct Clients {
    api_server: ApiClient,
    controller_manager: ApiClient,
    scheduler: ApiClient,
}

impl Clients {
    /// Only the API server is told who asks.
    fn new(desired: &DesiredState, credentials: &ManagedFile) -> Result<Self, Unwell> {
        let kubeconfig = Kubeconfig::parse(&credentials.content)
            .map_err(|error| Unwell::Says(format!("{ADMIN_CONF}: {}", k8sctl_rpc::chain(&error))))?;
        let address = format!("{}:6443", desired.node_ip);
        Ok(Self {
            api_server: observe::client(desired, &address, ADMIN_CONF).map_err(unusable)?,
            controller_manager: ApiClient::anonymous(CONTROLLER_MANAGER, &kubeconfig.ca_pem)?,
            scheduler: ApiClient::anonymous(SCHEDULER, &kubeconfig.ca_pem)?,
        })
    }
}

fn unusable(error: StepError) -> Unwell {
    Unwell::Says(error.to_string())
}

/// Clients that are kept for as long as the credentials are the same.
#[derive(Default)]
struct Trusted(Option<(ManagedFile, Clients)>);

impl Trusted {
    fn clients(&mut self, desired: &DesiredState) -> Result<&Clients, Unwell> {
        let credentials = observe::delivered(desired, ADMIN_CONF).map_err(unusable)?;
        let known = match self.0.take().filter(|(known, _)| known == credentials) {
            Some(known) => known,
            None => (credentials.clone(), Clients::new(desired, credentials)?),
        };
        Ok(&self.0.insert(known).1)
    }
}

/// Asks all parts, in their order.
async fn ask(clients: Result<&Clients, Unwell>) -> [Result<(), Unwell>; 4] {
    match clients {
        Ok(clients) => {
            let (api_server, controller_manager, scheduler, etcd) = tokio::join!(
                livez(&clients.api_server),
                healthz(&clients.controller_manager),
                healthz(&clients.scheduler),
                etcd(ETCD)
            );
            [api_server, controller_manager, scheduler, etcd]
        }
        Err(why) => [Err(why.clone()), Err(why.clone()), Err(why), etcd(ETCD).await],
    }
}

async fn livez(client: &ApiClient) -> Result<(), Unwell> {
    judge_livez(&client.get("/livez").await?)
}

/// `/livez` lists its checks; one that may not read it is answered all the same.
fn judge_livez(answer: &Answer) -> Result<(), Unwell> {
    match answer.status {
        200 | 401 | 403 => Ok(()),
        _ => Err(Unwell::Says(failing_checks(&answer.body))),
    }
}

async fn healthz(client: &ApiClient) -> Result<(), Unwell> {
    let answer = client.get("/healthz").await?;
    if answer.status == 200 { Ok(()) } else { Err(Unwell::Says(failing_checks(&answer.body))) }
}

async fn etcd(address: SocketAddr) -> Result<(), Unwell> {
    judge_etcd(&probe::get(address, "/health").await?)
}

/// `{"health":"false","reason":"ALARM NOSPACE"}`
fn judge_etcd(answer: &Answer) -> Result<(), Unwell> {
    let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status == 200 && said["health"] == "true" {
        return Ok(());
    }
    let reason = said["reason"].as_str().filter(|reason| !reason.is_empty());
    Err(Unwell::Says(reason.map_or_else(|| format!("health says {}", answer.status), str::to_owned)))
}

#[cfg(test)]
mod tests {
    use k8sctl_proto::node::v1::ConditionStatus;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn etcd_is_well_when_it_says_so_and_an_alarm_is_its_reason() {
        assert_eq!(judge_etcd(&answer(200, r#"{"health":"true","reason":""}"#)), Ok(()));
        let alarm = answer(503, r#"{"health":"false","reason":"ALARM NOSPACE"}"#);
        assert_eq!(judge_etcd(&alarm), Err(Unwell::Says("ALARM NOSPACE".into())));
        assert_eq!(judge_etcd(&answer(503, "")), Err(Unwell::Says("health says 503".into())));
    }

    #[test]
    fn an_api_server_lives_also_for_one_who_may_not_ask() {
        assert_eq!(judge_livez(&answer(200, "ok")), Ok(()));
        assert_eq!(judge_livez(&answer(403, "")), Ok(()));
        let failed = answer(500, "[+]ping ok\n[-]etcd failed: reason withheld\n");
        assert_eq!(judge_livez(&failed), Err(Unwell::Says("[-]etcd failed: reason withheld".into())));
    }

    #[test]
    fn one_silence_is_no_news_and_two_are() {
        let (board, mut part) = (Board::default(), Part::new("EtcdReady", "etcd"));
        let status = |board: &Board| board.subscribe().borrow().conditions[0].status();
        assert!(part.report(&board, Ok(())));
        let silent = || Err(Unwell::Silent("no answer".into()));
        assert!(!part.report(&board, silent()));
        assert_eq!(status(&board), ConditionStatus::True);
        part.report(&board, silent());
        assert_eq!(status(&board), ConditionStatus::False);
        part.report(&board, Ok(()));
        part.report(&board, silent());
        assert_eq!(status(&board), ConditionStatus::True);
        part.report(&board, Err(Unwell::Away("refused".into())));
        assert_eq!(status(&board), ConditionStatus::False);
    }
}
