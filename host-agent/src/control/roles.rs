//! Who may call what on the control socket. The rule of each method comes from the `.proto` files; the role of
//! a caller comes from the kernel. What has no rule is refused. Each user has so many calls at a time: of those whose
//! messages do not end, what has come is kept. And so many answers: of those that nobody reads, what is to be sent is kept.

use std::ffi::CString;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt, ready};
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use k8sctl_proto::roles::{Role, required_role};
use k8sctl_rpc::allowance::Allowance;
use k8sctl_rpc::answer::Answer;
use k8sctl_rpc::limits;
use k8sctl_rpc::places::{UserPlace, UserPlaces};
use k8sctl_rpc::status::status;
use k8sctl_rpc::task::blocking;
use k8sctl_rpc::unix::PeerCredentials;
use k8sctl_types::failure::Failure;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::time::{Instant, Sleep, sleep};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::queue::{NOBODY, Queue};

/// Group whose members administer.
pub const ADMIN_GROUP: &str = "k8sctl-admin";
/// Group whose members operate.
pub const OPERATOR_GROUP: &str = "k8sctl";

/// Warnings about one user at once.
const BURST: u32 = 20;
/// Warnings about one user a minute after that.
const PER_MINUTE: u32 = 2;
/// Users with an allowance of their own.
const USERS: usize = 1024;
/// How much of the path that a caller made up is logged, in bytes.
const PATH_BYTES: usize = 128;

/// Guards every method of the services behind it.
#[derive(Clone, Debug)]
pub struct RoleLayer(Guard);

impl RoleLayer {
    /// `reader_group` is the configured group whose members may look.
    pub fn new(reader_group: Option<String>) -> Self {
        Self(Guard {
            reader_group,
            warnings: Warnings::default(),
            calls: UserPlaces::new(limits::CALLS_PER_USER, limits::CALLS_PER_PROCESS),
            answers: UserPlaces::new(limits::ANSWERS_PER_USER, limits::ANSWERS_PER_PROCESS),
            look_ups: Queue::new("look-ups of groups", limits::LOOK_UPS),
        })
    }
}

impl<S> Layer<S> for RoleLayer {
    type Service = RoleService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RoleService { inner, guard: self.0.clone() }
    }
}

/// See [`RoleLayer`].
#[derive(Clone, Debug)]
pub struct RoleService<S> {
    inner: S,
    guard: Guard,
}

/// What the guards of all connections have in common.
#[derive(Clone, Debug)]
struct Guard {
    reader_group: Option<String>,
    warnings: Warnings,
    /// Calls that wait for their response to begin.
    calls: UserPlaces,
    /// Calls that wait for their response to end.
    answers: UserPlaces,
    look_ups: Queue,
}

impl Guard {
    /// Lets a call through with the role of its caller, or tells why not.
    async fn admit(&self, path: &str, peer: Option<PeerCredentials>) -> Result<(UserPlace, Role), Status> {
        let role = self.role(peer).await.map_err(|failure| status(Code::ResourceExhausted, &failure))?;
        if let Err(failure) = decide(path, role) {
            self.warnings.tell(path, peer.map(|peer| peer.uid));
            return Err(status(Code::PermissionDenied, &failure));
        }
        let (uid, pid) = (uid_of(peer), peer.and_then(|peer| peer.pid));
        let place = self.answers.take(uid, pid).ok_or_else(|| {
            let (of_user, of_process) = (limits::ANSWERS_PER_USER, limits::ANSWERS_PER_PROCESS);
            busy(
                uid,
                format!("{of_user} of its calls, or {of_process} of one process, are not read to their end"),
            )
        })?;
        Ok((place, role))
    }

    /// The role of a caller, as of now.
    async fn role(&self, peer: Option<PeerCredentials>) -> Result<Role, Failure> {
        let Some(peer) = peer else { return Ok(Role::Unspecified) };
        if is_root(&peer) {
            return Ok(Role::Admin);
        }
        let (turn, reader_group) = (self.look_ups.turn(peer.uid).await?, self.reader_group.clone());
        // The host's user database may be on another machine: no thread of the runtime waits for it.
        let look_up = move || {
            let role = peer_role(&peer, reader_group.as_deref());
            drop(turn);
            role
        };
        Ok(blocking(look_up).await)
    }
}

impl<S> Service<Request<Body>> for RoleService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let peer = request.extensions().get::<PeerCredentials>().copied();
        let uid = uid_of(peer);
        let Some(place) = self.guard.calls.take(uid, peer.and_then(|peer| peer.pid)) else {
            let (of_user, of_process) = (limits::CALLS_PER_USER, limits::CALLS_PER_PROCESS);
            let reason =
                format!("{of_user} of its calls, or {of_process} of one process, wait for an answer already");
            return ready(Ok(busy(uid, reason).into_http())).boxed();
        };
        let guard = self.guard.clone();
        // The one that has said that it is ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        async move {
            // Until the response begins: what follows is only sent, and waits for its reader.
            let _place = place;
            match guard.admit(&path, peer).await {
                Err(refused) => Ok(refused.into_http()),
                Ok((place, role)) => {
                    // For what of a method takes a higher role than the method itself.
                    let mut request = request.map(Timely::body);
                    request.extensions_mut().insert(role);
                    let answer = inner.call(request).await;
                    answer.map(|response| response.map(|body| Answer::body(body, place)))
                }
            }
        }
        .boxed()
    }
}

/// The role of whoever calls, as the guard has found it; of a call that passed no guard, none.
pub(super) fn caller_role<T>(request: &tonic::Request<T>) -> Role {
    request.extensions().get::<Role>().copied().unwrap_or(Role::Unspecified)
}

/// The message of a call, which must come in time: until it has, the call has a place of its user.
struct Timely {
    body: Body,
    deadline: Pin<Box<Sleep>>,
}

impl Timely {
    fn body(body: Body) -> Body {
        Body::new(Self { body, deadline: Box::pin(sleep(limits::MESSAGE_TIMEOUT)) })
    }
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(late())));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Writes refusals to the host agent's own log within an allowance for each user: anybody on the host can be refused,
/// as often as he likes. Clones share the allowances.
#[derive(Clone, Debug)]
struct Warnings(Arc<Mutex<Allowance<Option<u32>>>>);

impl Default for Warnings {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Allowance::new(BURST, PER_MINUTE, USERS))))
    }
}

impl Warnings {
    fn tell(&self, path: &str, uid: Option<u32>) {
        let (is_told, left_out) = {
            let now = Instant::now().into_std();
            // Counters: what a panic leaves behind is a little wrong at worst.
            let mut allowance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let left_out = allowance.over(now);
            (allowance.take(&uid, now), left_out)
        };
        for (uid, count) in left_out {
            tracing::warn!(
                peer.uid = uid.flatten(),
                count,
                "refused control calls more often than was logged"
            );
        }
        let path = String::from_utf8_lossy(&path.as_bytes()[..path.len().min(PATH_BYTES)]);
        if is_told {
            tracing::warn!(rpc.method = ?path, peer.uid = uid, "refused a control call");
        } else {
            tracing::debug!(rpc.method = ?path, peer.uid = uid, "refused a control call");
        }
    }
}

/// Whether a role may call a method.
pub fn decide(path: &str, role: Role) -> Result<(), Failure> {
    let needed = required_role(path).ok_or_else(|| {
        Failure::new(
            "AUTH-UNKNOWN-METHOD",
            format!("method {path}"),
            "the host agent has no such method",
            "use the k8sctl of the same version as the host agent (`k8sctl version`)",
        )
    })?;
    if role as i32 >= needed as i32 {
        return Ok(());
    }
    let group = if needed == Role::Admin { ADMIN_GROUP } else { OPERATOR_GROUP };
    Err(Failure::new(
        "AUTH-ROLE",
        format!("method {path}"),
        format!("it needs the role {}, you have {}", name(needed), name(role)),
        format!("run it as root, or have an administrator add you to the group {group}"),
    ))
}

fn busy(uid: u32, reason: String) -> Status {
    let next = "wait for the other commands, or end them, then run it again";
    status(Code::ResourceExhausted, &Failure::new("HOST-BUSY", format!("user {uid}"), reason, next))
}

fn late() -> Status {
    let reason = format!("its message did not come within {} s", limits::MESSAGE_TIMEOUT.as_secs());
    let next = "run the command again; if it never succeeds, use the k8sctl of the host agent's version";
    status(Code::DeadlineExceeded, &Failure::new("HOST-CALL-DEADLINE", "control socket", reason, next))
}

/// Whom the kernel does not name has no role, and gets nowhere.
fn uid_of(peer: Option<PeerCredentials>) -> u32 {
    peer.map_or(NOBODY, |peer| peer.uid)
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "none",
        Role::Reader => "reader",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// The role of a user in these groups.
pub fn role_of(uid: u32, groups: &[String], reader_group: Option<&str>) -> Role {
    let member = |group: &str| groups.iter().any(|name| name == group);
    if uid == 0 || member(ADMIN_GROUP) {
        Role::Admin
    } else if member(OPERATOR_GROUP) {
        Role::Operator
    } else if reader_group.is_some_and(member) {
        Role::Reader
    } else {
        Role::Unspecified
    }
}

/// The role of whoever is at the other end of a control connection, as of now. Blocks while the groups are looked up.
pub fn peer_role(peer: &PeerCredentials, reader_group: Option<&str>) -> Role {
    if is_root(peer) {
        return Role::Admin;
    }
    role_of(peer.uid, &group_names(peer.uid, peer.gid), reader_group)
}

/// Nothing is looked up of root, who is to get through also where the user database does not answer.
pub fn is_root(peer: &PeerCredentials) -> bool {
    peer.uid == 0
}

/// Names of all groups of a user, as the host's user database has them now.
fn group_names(uid: u32, gid: u32) -> Vec<String> {
    let primary = Gid::from_raw(gid);
    let mut gids = User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .and_then(|user| CString::new(user.name).ok())
        .and_then(|name| getgrouplist(&name, primary).ok())
        .unwrap_or_default();
    gids.push(primary);
    gids.into_iter().filter_map(|gid| Group::from_gid(gid).ok().flatten()).map(|group| group.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_lines;
    use futures::stream::StreamExt;
    use http_body_util::{BodyExt as _, Full};
    use k8sctl_proto::roles::CONTROL_METHODS;
    use tower::service_fn;
    use tracing::Level;

    fn groups(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn roles_come_from_groups() {
        assert_eq!(role_of(0, &[], None), Role::Admin);
        assert_eq!(role_of(7, &groups(&["k8sctl-admin"]), None), Role::Admin);
        assert_eq!(role_of(7, &groups(&["k8sctl"]), None), Role::Operator);
        assert_eq!(role_of(7, &groups(&["users"]), Some("users")), Role::Reader);
        assert_eq!(role_of(7, &groups(&["users"]), None), Role::Unspecified);
    }

    #[test]
    fn every_method_has_a_rule_for_every_role() {
        assert!(CONTROL_METHODS.len() >= 20, "the table is read from the proto files");
        for (path, needed) in CONTROL_METHODS {
            for role in [Role::Unspecified, Role::Reader, Role::Operator, Role::Admin] {
                assert_eq!(decide(path, role).is_ok(), role as i32 >= *needed as i32, "{path} {role:?}");
            }
            assert!(decide(path, Role::Unspecified).is_err(), "{path} is open to strangers");
        }
    }

    #[test]
    fn credentials_are_for_admins_alone() {
        let path = "/k8sctl.control.v1.ClusterService/GetKubeconfig";
        assert!(decide(path, Role::Operator).is_err() && decide(path, Role::Admin).is_ok());
    }

    #[test]
    fn what_an_image_is_built_of_comes_from_upstream_or_from_an_admin() {
        let [import, fetch, build] =
            ["BundleService/ImportBundle", "BundleService/FetchBundle", "ImageService/BuildImage"]
                .map(|method| format!("/k8sctl.control.v1.{method}"));
        assert!(decide(&fetch, Role::Operator).is_ok() && decide(&build, Role::Operator).is_ok());
        assert!(decide(&import, Role::Admin).is_ok());
        let refused = decide(&import, Role::Operator).expect_err("an operator's own bundle");
        assert_eq!(refused.id, "AUTH-ROLE");
        assert!(refused.reason.contains("needs the role admin, you have operator"), "{refused:?}");
        assert!(refused.next_step.contains("the group k8sctl-admin"), "{refused:?}");
    }

    #[test]
    fn unknown_methods_are_refused_even_to_admins() {
        assert_eq!(
            decide("/k8sctl.control.v1.ClusterService/Nope", Role::Admin).map_err(|f| f.id),
            Err("AUTH-UNKNOWN-METHOD".to_owned())
        );
    }

    async fn serve(_: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
        panic!("a call without a role came through")
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_is_refused_in_a_loop_does_not_fill_the_log() {
        let (warnings, _guard) = log_lines::collect(Level::WARN);
        let guard = RoleLayer::new(None);
        let paths = [CONTROL_METHODS[0].0.to_owned(), format!("/{}", "x".repeat(8_000))];
        let mut calls = 0;
        let mut call = async |uid: u32| {
            let mut request =
                Request::builder().uri(&paths[calls % 2]).body(Body::empty()).expect("a request");
            request.extensions_mut().insert(PeerCredentials { uid, gid: uid, pid: None });
            calls += 1;
            // Each connection has a service of its own.
            let answer = guard.layer(service_fn(serve)).call(request).await.expect("an answer");
            let status = tonic::Status::from_header_map(answer.headers()).expect("a status");
            assert_eq!(status.code(), Code::PermissionDenied, "it is refused each time");
        };
        let (bad, good) = (4_000_000_001, 4_000_000_002);
        for _ in 0..10_000 {
            call(bad).await;
        }
        assert_eq!(warnings.count(), BURST as usize);
        call(good).await;
        assert_eq!(warnings.count(), BURST as usize + 1, "another user is heard");
        tokio::time::advance(std::time::Duration::from_secs(61)).await;
        call(bad).await;
        assert_eq!(warnings.count(), BURST as usize + 3, "how many there were, and the new one");
        let lines = warnings.all();
        assert!(lines.iter().all(|line| line.len() < 256), "{lines:?}");
    }

    #[tokio::test]
    async fn a_method_is_told_the_role_of_its_caller() {
        let said = |request: Request<()>| {
            let request = tonic::Request::from_parts(
                tonic::metadata::MetadataMap::new(),
                request.extensions().clone(),
                (),
            );
            let body = Body::new(Full::new(Bytes::from(name(caller_role(&request)))));
            ready(Ok::<_, std::convert::Infallible>(Response::new(body)))
        };
        let guard = RoleLayer::new(None);
        let mut request = Request::builder().uri(CONTROL_METHODS[0].0).body(()).expect("a request");
        request.extensions_mut().insert(PeerCredentials { uid: 0, gid: 0, pid: None });
        let answer = guard.layer(service_fn(said)).call(request).await.expect("it cannot fail");
        assert_eq!(answer.into_body().collect().await.expect("it is read").to_bytes(), "admin");
        assert_eq!(caller_role(&tonic::Request::new(())), Role::Unspecified, "it passed no guard");
    }

    #[tokio::test]
    async fn a_user_has_so_many_calls_and_gets_their_places_back() {
        type Answer = BoxFuture<'static, Result<Response<Body>, std::convert::Infallible>>;
        let unfinished =
            |_: Request<Body>| std::future::pending::<Result<Response<Body>, std::convert::Infallible>>();
        let guard = RoleLayer::new(None);
        let call = |pid| -> Answer {
            let mut request =
                Request::builder().uri(CONTROL_METHODS[0].0).body(Body::empty()).expect("a request");
            request.extensions_mut().insert(PeerCredentials { uid: 0, gid: 0, pid });
            // Each connection has a service of its own.
            guard.layer(service_fn(unfinished)).call(request)
        };
        let waits = |answer: Answer| match answer.now_or_never() {
            None => true,
            Some(answer) => {
                let answer = answer.expect("it cannot fail");
                let status = tonic::Status::from_header_map(answer.headers()).expect("a status");
                let failure = k8sctl_rpc::status::failure_from(&status).expect("a failure");
                assert_eq!((status.code(), failure.id.as_str()), (Code::ResourceExhausted, "HOST-BUSY"));
                false
            }
        };
        let mut held: Vec<Answer> = (0..limits::CALLS_PER_USER).map(|_| call(None)).collect();
        assert!(!waits(call(None)) && !waits(call(Some(1))));
        held.pop();
        assert!(waits(call(None)), "one has ended");
        held.clear();
        let mut held: Vec<Answer> = (0..limits::CALLS_PER_PROCESS).map(|_| call(Some(1))).collect();
        assert!(!waits(call(Some(1))), "one process has all that it may");
        assert!(waits(call(Some(2))), "another of the user has its own");
        held.pop();
        assert!(waits(call(Some(1))), "one has ended");
    }

    #[tokio::test]
    async fn an_answer_has_a_place_until_it_is_read_or_its_reader_gone() {
        let text = |_: Request<Body>| {
            let body = Body::new(Full::new(Bytes::from_static(b"answer")));
            ready(Ok::<_, std::convert::Infallible>(Response::new(body)))
        };
        let guard = RoleLayer::new(None);
        let call = async || {
            let mut request =
                Request::builder().uri(CONTROL_METHODS[0].0).body(Body::empty()).expect("a request");
            request.extensions_mut().insert(PeerCredentials { uid: 0, gid: 0, pid: None });
            guard.layer(service_fn(text)).call(request).await.expect("it cannot fail")
        };
        let is_refused = |answer: &Response<Body>| {
            let status = tonic::Status::from_header_map(answer.headers());
            status.is_some_and(|status| status.code() == Code::ResourceExhausted)
        };
        let mut unread = Vec::new();
        for _ in 0..limits::ANSWERS_PER_USER {
            unread.push(call().await);
        }
        assert!(unread.iter().all(|answer| !is_refused(answer)));
        assert!(is_refused(&call().await));
        unread.pop();
        let last = call().await;
        assert!(!is_refused(&last), "the reader of one is gone");
        assert!(is_refused(&call().await));
        let read = last.into_body().collect().await.expect("it is read").to_bytes();
        assert_eq!(read, "answer");
        // As HTTP/2 does, which has all of it long before its reader.
        assert!(is_refused(&call().await), "it is not sent yet");
        drop(read);
        assert!(!is_refused(&call().await), "it is sent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_end_ends_its_call() {
        let read = |request: Request<Body>| async {
            let message = request.into_body().collect().await;
            let status = message.map_or_else(|status| status, |_| Status::ok(""));
            Ok::<_, std::convert::Infallible>(status.into_http())
        };
        let guard = RoleLayer::new(None);
        let call = async |body| {
            let mut request = Request::builder().uri(CONTROL_METHODS[0].0).body(body).expect("a request");
            request.extensions_mut().insert(PeerCredentials { uid: 0, gid: 0, pid: None });
            let answer = guard.layer(service_fn(read)).call(request).await.expect("it cannot fail");
            tonic::Status::from_header_map(answer.headers()).expect("a status").code()
        };
        let began = Instant::now();
        assert_eq!(call(Body::new(Full::new(Bytes::from_static(b"whole")))).await, Code::Ok);
        let piece = futures::stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"begin")))]);
        let unfinished = http_body_util::StreamBody::new(StreamExt::chain(piece, futures::stream::pending()));
        assert_eq!(call(Body::new(unfinished)).await, Code::DeadlineExceeded);
        assert!(began.elapsed() < 2 * limits::MESSAGE_TIMEOUT, "{:?}", began.elapsed());
    }
}
