//! Every control method, called by every kind of user: refused exactly where the `.proto` files say so.
//!
//! The callers are processes of other users, the groups are in a user database that only the host agent sees, and
//! the methods come from the table that the build makes: a new method is tested by being there.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use k8sctl_proto::roles::{CONTROL_METHODS, Role};

use super::host::{Host, Setup};
use super::root::is_root;

pub(super) const CALLER: &str = env!("CARGO_BIN_EXE_integration-caller");

pub(super) const PASSWD: &str = "root:x:0:0::/root:/bin/sh\n\
    plain:x:61001:61001::/:/bin/false\n\
    looker:x:61002:61001::/:/bin/false\n\
    worker:x:61003:61001::/:/bin/false\n\
    chief:x:61004:61001::/:/bin/false\n";
/// Nobody in `k8sctl-admin` is in `k8sctl`.
pub(super) const GROUP: &str = "root:x:0:\n\
    users:x:61001:\n\
    lookers:x:61010:looker\n\
    k8sctl:x:61011:worker\n\
    k8sctl-admin:x:61012:chief\n";

/// Who calls: name, uid, gid, role.
const CALLERS: [(&str, u32, u32, Role); 9] = [
    ("a user that nobody knows", 61999, 61999, Role::Unspecified),
    ("a user in no group of ours", 61001, 61001, Role::Unspecified),
    ("a member of the reader group", 61002, 61001, Role::Reader),
    ("a user whose own group is the reader group", 61001, 61010, Role::Reader),
    ("a member of k8sctl", 61003, 61001, Role::Operator),
    ("a user whose own group is k8sctl", 61001, 61011, Role::Operator),
    ("a member of k8sctl-admin", 61004, 61001, Role::Admin),
    ("a user whose own group is k8sctl-admin", 61001, 61012, Role::Admin),
    ("root", 0, 0, Role::Admin),
];

/// What no caller may: methods that are no control methods, of whatever service.
const NOBODYS: [&str; 4] = [
    "/k8sctl.control.v1.ClusterService/Nope",
    "/k8sctl.node.v1.NodeService/Session",
    "/k8sctl.node.v1.JoinService/Join",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// What came of a call: gRPC code and failure id.
type Answers = BTreeMap<String, (String, String)>;

fn call_as(host: &Host, uid: u32, gid: u32) -> Result<Answers> {
    let output = Command::new(CALLER)
        .arg(host.socket())
        .args([uid.to_string(), gid.to_string()])
        .args(NOBODYS)
        .output()
        .context("cannot start the caller")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "the caller ended with {}: {err}{out}", output.status);
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some((words.next()?, (words.next()?, words.next()?)))
    };
    Ok(out.lines().filter_map(line).collect())
}

/// Sentences on all answers that should be others.
fn mistakes(answers: &Answers, role: Role) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (path, needed) in CONTROL_METHODS {
        let Some((code, id)) = answers.get(*path) else {
            mistakes.push(format!("{path} was not called"));
            continue;
        };
        let allowed = role as i32 >= *needed as i32;
        let refused = code == "PermissionDenied" && id == "AUTH-ROLE";
        let lost = code == "Unavailable" && id == "-";
        if refused == allowed || lost || (allowed && code == "PermissionDenied") {
            mistakes.push(format!("{path} needs {needed:?}, {role:?} got {code} {id}"));
        }
    }
    for path in NOBODYS {
        if answers
            .get(path)
            .is_none_or(|(code, id)| code != "PermissionDenied" || id != "AUTH-UNKNOWN-METHOD")
        {
            mistakes.push(format!("{path}: {:?}", answers.get(path)));
        }
    }
    mistakes
}

#[test]
fn every_method_is_refused_exactly_where_its_rule_says() -> Result<()> {
    if !is_root("control_roles::every_method_is_refused_exactly_where_its_rule_says")? {
        return Ok(());
    }
    let host = Host::start(&Setup { config: "reader_group = \"lookers\"\n", users: Some((PASSWD, GROUP)) })?;
    let mut wrong = Vec::new();
    for (who, uid, gid, role) in CALLERS {
        let answers = call_as(&host, uid, gid).with_context(|| who.to_owned())?;
        ensure!(answers.len() == CONTROL_METHODS.len() + NOBODYS.len(), "{who}: {answers:?}");
        wrong.extend(mistakes(&answers, role).into_iter().map(|mistake| format!("{who}: {mistake}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_reader_group_that_is_not_configured_opens_nothing() -> Result<()> {
    if !is_root("control_roles::a_reader_group_that_is_not_configured_opens_nothing")? {
        return Ok(());
    }
    let host = Host::start(&Setup { config: "", users: Some((PASSWD, GROUP)) })?;
    let wrong = mistakes(&call_as(&host, 61002, 61001)?, Role::Unspecified);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The user database counts as it is at the call.
    std::fs::write(
        host.file("group"),
        GROUP.replace("k8sctl:x:61011:worker", "k8sctl:x:61011:worker,looker"),
    )?;
    let wrong = mistakes(&call_as(&host, 61002, 61001)?, Role::Operator);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn users_reach_a_host_agent_that_is_closed_to_them() -> Result<()> {
    if !is_root("control_roles::users_reach_a_host_agent_that_is_closed_to_them")? {
        return Ok(());
    }
    let host = Host::start(&Setup::default())?;
    let mode = |name: &str| {
        let permissions = std::fs::metadata(host.file(name))?.permissions();
        Ok(format!("{:o}", permissions.mode() & 0o777))
    };
    let paths =
        ["run", "run/api.sock", "run/metrics.sock", "run/k8s-host-agent.pid", "state", "state/k8s-myhome.db"];
    let modes = paths.map(mode).into_iter().collect::<Result<Vec<String>>>()?;
    ensure!(modes == ["755", "666", "666", "600", "700", "600"], "{paths:?}: {modes:?}");
    let answers = call_as(&host, 61999, 61999)?;
    ensure!(answers.values().all(|(code, _)| code == "PermissionDenied"), "{answers:?}");
    Ok(())
}

#[test]
fn the_mistakes_are_found() {
    let answer = |code: &str, id: &str| (code.to_owned(), id.to_owned());
    let of = |code: &str, id: &str| -> Answers {
        let control = CONTROL_METHODS.iter().map(|(path, _)| ((*path).to_owned(), answer(code, id)));
        let nobodys =
            NOBODYS.map(|path| (path.to_owned(), answer("PermissionDenied", "AUTH-UNKNOWN-METHOD")));
        control.chain(nobodys).collect()
    };
    let count =
        |role: Role| CONTROL_METHODS.iter().filter(|(_, needed)| *needed as i32 <= role as i32).count();
    let refused = of("PermissionDenied", "AUTH-ROLE");
    let served = of("Ok", "-");
    for role in [Role::Unspecified, Role::Reader, Role::Operator, Role::Admin] {
        assert_eq!(mistakes(&refused, role).len(), count(role), "{role:?}");
        assert_eq!(mistakes(&served, role).len(), CONTROL_METHODS.len() - count(role), "{role:?}");
    }
    assert_eq!(mistakes(&of("Unavailable", "-"), Role::Admin).len(), CONTROL_METHODS.len());
    assert_eq!(mistakes(&Answers::new(), Role::Admin).len(), CONTROL_METHODS.len() + NOBODYS.len());
}
