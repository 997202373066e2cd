//! What a reader asks for, looked at before any node is asked: mistakes are told at once, each with what is wrong and
//! what to write instead.

use std::collections::HashMap;

use k8sctl_proto::control::v1::StreamLogsRequest;
use k8sctl_proto::node::v1::{LogSelector, LogSource, PodLogs};
use k8sctl_rpc::limits::LOG_NAMES;
use k8sctl_types::failure::Failure;
use k8sctl_types::logs::grep::{Grep, GrepError};
use prost_types::Timestamp;

use super::position::Position;

/// Longest name of a unit, and of a Kubernetes object.
const NAME_LIMIT: usize = 253;

/// See the module.
#[derive(Debug)]
pub struct Wanted {
    /// For every node.
    pub selector: LogSelector,
    /// Where to go on, by name of the node.
    pub positions: HashMap<String, Position>,
}

/// Checks a request at this moment.
pub fn check(request: StreamLogsRequest, now: jiff::Timestamp) -> Result<Wanted, Failure> {
    let selector = request.selector.unwrap_or_default();
    check_names(&selector)?;
    check_times(&selector, now)?;
    check_grep(&selector.grep)?;
    if !selector.after_cursor.is_empty() {
        let next = "leave it out, and give back the positions of an earlier stream";
        return Err(refusal("selector.after_cursor", "it is for node agents only", next));
    }
    let mut positions = HashMap::new();
    for position in request.positions {
        let parsed = position.cursor.parse().map_err(|error: super::position::PositionError| {
            let next = "leave the positions out to read from the beginning";
            refusal(&format!("position of node {}", position.node_name), &error.to_string(), next)
        })?;
        positions.insert(position.node_name, parsed);
    }
    Ok(Wanted { selector, positions })
}

fn refusal(object: &str, reason: &str, next: &str) -> Failure {
    Failure::new("NODE-LOGS-REQUEST", object, reason, next)
}

fn check_names(selector: &LogSelector) -> Result<(), Failure> {
    check_sources(&selector.sources)?;
    let named = selector.units.len() + selector.pods.len();
    if named > LOG_NAMES {
        let reason = format!("{named} units and pods at once, {LOG_NAMES} are allowed");
        return Err(refusal("--unit and --pod", &reason, "name fewer"));
    }
    for unit in &selector.units {
        // What systemd allows.
        let is_part = |c: char| c.is_ascii_alphanumeric() || ":_.\\-@".contains(c);
        if unit.is_empty() || unit.len() > NAME_LIMIT || !unit.chars().all(is_part) {
            let next = "write it like systemd-networkd.service, or without .service";
            return Err(refusal("--unit", &format!("{unit:?} is no name of a systemd unit"), next));
        }
    }
    selector.pods.iter().try_for_each(check_pod)
}

/// An agent reads by the sources that it knows: of the others it might make anything.
fn check_sources(sources: &[i32]) -> Result<(), Failure> {
    let known = |source: i32| LogSource::try_from(source).ok().filter(|it| *it != LogSource::Unspecified);
    let Some(unknown) = sources.iter().find(|source| known(**source).is_none()) else { return Ok(()) };
    let sources =
        (1..).map_while(known).map(|source| format!("{} ({})", source.as_str_name(), source as i32));
    let next = format!("the sources are: {}", sources.collect::<Vec<_>>().join(", "));
    Err(Failure::new("NODE-LOG-SOURCE", "--source", format!("there is no log source {unknown}"), next))
}

fn check_pod(pod: &PodLogs) -> Result<(), Failure> {
    let is_name = |name: &str| {
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        !name.is_empty() && name.len() <= NAME_LIMIT && name.chars().all(is_part)
    };
    if pod.name.is_empty() && !pod.container.is_empty() {
        let next = "name its pod too: --pod NAMESPACE/NAME";
        return Err(refusal("--container", &format!("container {} of which pod?", pod.container), next));
    }
    if !is_name(&pod.namespace) || !is_name(&pod.name) {
        let reason = format!("{:?} is no pod", format!("{}/{}", pod.namespace, pod.name));
        return Err(refusal("--pod", &reason, "write it as NAMESPACE/NAME, like default/web-0"));
    }
    if !pod.container.is_empty() && !is_name(&pod.container) {
        let reason = format!("{:?} is no name of a container", pod.container);
        return Err(refusal("--container", &reason, "write it as the pod's spec has it"));
    }
    Ok(())
}

fn check_times(selector: &LogSelector, now: jiff::Timestamp) -> Result<(), Failure> {
    let next = "write it like 10m, 2h, \"2026-11-24 10:00\" or 2026-11-24T10:00:00Z";
    let moment = |flag: &str, stamp: &Option<Timestamp>| match stamp {
        None => Ok(None),
        Some(stamp) => jiff::Timestamp::new(stamp.seconds, stamp.nanos)
            .map(Some)
            .map_err(|_| refusal(flag, "it is no moment that there can be", next)),
    };
    let since = moment("--since", &selector.since)?;
    let until = moment("--until", &selector.until)?;
    if let Some(since) = since.filter(|since| *since > now) {
        let reason = format!("{since} is in the future: here it is {now:.0}");
        let next = "name a moment that has passed; --follow goes on with what comes";
        return Err(refusal("--since", &reason, next));
    }
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        let reason = format!("it ends at {until}, before it begins at {since}");
        return Err(refusal("--until", &reason, "exchange --since and --until"));
    }
    Ok(())
}

fn check_grep(pattern: &str) -> Result<(), Failure> {
    let Err(error) = Grep::new(pattern) else { return Ok(()) };
    let next = match error {
        GrepError::Syntax { .. } => "mend it, or put a backslash before characters that stand for themselves",
        GrepError::TooLong { .. } | GrepError::TooBig => "look for less at once",
    };
    let failure = refusal("--grep", &format!("it is no regular expression that can be used: {error}"), next);
    let GrepError::Syntax { at, .. } = error else { return Err(failure) };
    // Of several lines the mark would stand anywhere.
    let is_plain = pattern.chars().all(|c| !c.is_control());
    let marked = format!("{pattern}\n{}^", " ".repeat(at.saturating_sub(1)));
    Err(if is_plain { failure.with_evidence(marked) } else { failure })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8sctl_proto::control::v1::LogPosition;

    const NOW: i64 = 1_000_000;

    fn checked(selector: LogSelector) -> Result<Wanted, Failure> {
        let request = StreamLogsRequest { selector: Some(selector), ..StreamLogsRequest::default() };
        check(request, jiff::Timestamp::from_second(NOW).expect("a time"))
    }

    fn refused(selector: LogSelector) -> Failure {
        let failure = checked(selector).expect_err("it is refused");
        assert_eq!(failure.id, "NODE-LOGS-REQUEST");
        failure
    }

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn times_must_make_sense() {
        checked(LogSelector { since: at(NOW), until: at(NOW), ..LogSelector::default() }).expect("it does");
        checked(LogSelector { until: at(2 * NOW), follow: true, ..LogSelector::default() }).expect("it does");
        let future = refused(LogSelector { since: at(NOW + 1), ..LogSelector::default() });
        assert_eq!(future.object, "--since");
        assert!(future.reason.contains("1970-01-12T13:46:41Z is in the future"), "{}", future.reason);
        let turned = refused(LogSelector { since: at(8), until: at(7), ..LogSelector::default() });
        assert!(turned.reason.contains("before it begins"), "{}", turned.reason);
        let none = Some(Timestamp { seconds: i64::MAX, nanos: 0 });
        assert_eq!(refused(LogSelector { until: none, ..LogSelector::default() }).object, "--until");
    }

    #[test]
    fn an_expression_is_shown_with_its_mistake() {
        let grep = |grep: &str| LogSelector { grep: grep.to_owned(), ..LogSelector::default() };
        checked(grep("a|b")).expect("it is one");
        let failure = refused(grep("error(s"));
        assert!(failure.reason.ends_with("unclosed group, at character 6"), "{}", failure.reason);
        assert_eq!(failure.evidence, "error(s\n     ^");
        assert_eq!(refused(grep("a\n(")).evidence, "");
        assert!(refused(grep(&"a".repeat(10_000))).reason.contains("10000 bytes"));
    }

    #[test]
    fn names_must_be_names() {
        let pod = |namespace: &str, name: &str, container: &str| LogSelector {
            pods: vec![PodLogs {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                container: container.to_owned(),
            }],
            ..LogSelector::default()
        };
        checked(pod("kube-system", "web-0.x", "app")).expect("it is one");
        assert_eq!(refused(pod("", "", "app")).object, "--container");
        assert_eq!(refused(pod("default", "../etc", "")).object, "--pod");
        assert_eq!(refused(pod("", "web", "")).object, "--pod");
        assert_eq!(refused(pod("default", "web", "A_b")).object, "--container");
        let unit = |unit: &str| LogSelector { units: vec![unit.to_owned()], ..LogSelector::default() };
        checked(unit("getty@tty1.service")).expect("it is one");
        for name in ["", "a b", "a*", "ä", "a/b"] {
            assert_eq!(refused(unit(name)).object, "--unit");
        }
        assert_eq!(
            refused(LogSelector { units: vec!["a".into(); LOG_NAMES + 1], ..LogSelector::default() }).object,
            "--unit and --pod"
        );
        assert_eq!(
            refused(LogSelector { after_cursor: "x".into(), ..LogSelector::default() }).object,
            "selector.after_cursor"
        );
    }

    #[test]
    fn log_sources_that_there_are_not_are_refused_and_the_others_named() {
        let of = |sources: Vec<i32>| checked(LogSelector { sources, ..LogSelector::default() });
        for sources in [vec![0], vec![99], vec![1, -1]] {
            let failure = of(sources).expect_err("one is none");
            assert_eq!((failure.id.as_str(), failure.object.as_str()), ("NODE-LOG-SOURCE", "--source"));
            assert!(failure.next_step.contains("LOG_SOURCE_KUBELET (1)"), "{failure:?}");
            assert!(failure.next_step.contains("LOG_SOURCE_SCHEDULER (8)"), "{failure:?}");
        }
        for sources in [vec![], (1..=8).collect()] {
            of(sources).expect("all are known");
        }
    }

    #[test]
    fn positions_are_those_that_were_given_out() {
        let request = |cursor: &str| StreamLogsRequest {
            positions: vec![LogPosition { node_name: "a".to_owned(), cursor: cursor.to_owned() }],
            ..StreamLogsRequest::default()
        };
        let position = Position { behind: "c".to_owned(), ..Position::default() };
        let wanted = check(request(&position.to_string()), jiff::Timestamp::now()).expect("it is one");
        assert_eq!(wanted.positions["a"], position);
        let failure = check(request("x"), jiff::Timestamp::now()).expect_err("it is none");
        assert_eq!(
            (failure.id.as_str(), failure.object.as_str()),
            ("NODE-LOGS-REQUEST", "position of node a")
        );
    }
}
