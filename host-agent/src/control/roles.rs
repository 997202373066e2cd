//! Who may call what on the control socket. The rule of each method comes from the `.proto` files; the role of
//! a caller comes from the kernel. What has no rule is refused.

use std::ffi::CString;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt, ready};
use http::{Request, Response};
use k8sctl_proto::roles::{Role, required_role};
use k8sctl_rpc::unix::PeerCredentials;
use k8sctl_types::failure::Failure;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};

/// Group whose members administer.
pub const ADMIN_GROUP: &str = "k8sctl-admin";
/// Group whose members operate.
pub const OPERATOR_GROUP: &str = "k8sctl";

/// Guards every method of the services behind it.
#[derive(Clone, Debug)]
pub struct RoleLayer {
    reader_group: Option<String>,
}

impl RoleLayer {
    /// `reader_group` is the configured group whose members may look.
    pub fn new(reader_group: Option<String>) -> Self {
        Self { reader_group }
    }
}

impl<S> Layer<S> for RoleLayer {
    type Service = RoleService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RoleService { inner, reader_group: self.reader_group.clone() }
    }
}

/// See [`RoleLayer`].
#[derive(Clone, Debug)]
pub struct RoleService<S> {
    inner: S,
    reader_group: Option<String>,
}

impl<S, B> Service<Request<B>> for RoleService<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let peer = request.extensions().get::<PeerCredentials>().cloned();
        let role =
            peer.as_ref().map_or(Role::Unspecified, |peer| peer_role(peer, self.reader_group.as_deref()));
        match decide(&path, role) {
            Ok(()) => self.inner.call(request).boxed(),
            Err(failure) => {
                tracing::warn!(rpc.method = %path, peer.uid = peer.map(|peer| peer.uid), "refused a control call");
                let status = k8sctl_rpc::status::status(Code::PermissionDenied, &failure);
                ready(Ok(status.into_http())).boxed()
            }
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

/// The role of whoever is at the other end of a control connection, as of now.
pub fn peer_role(peer: &PeerCredentials, reader_group: Option<&str>) -> Role {
    role_of(peer.uid, &group_names(peer.uid, peer.gid), reader_group)
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
    use k8sctl_proto::roles::CONTROL_METHODS;

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
    fn unknown_methods_are_refused_even_to_admins() {
        assert_eq!(
            decide("/k8sctl.control.v1.ClusterService/Nope", Role::Admin).map_err(|f| f.id),
            Err("AUTH-UNKNOWN-METHOD".to_owned())
        );
    }
}
