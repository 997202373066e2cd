//! How much a node can say of itself. Its agent says far less; whoever is root in a VM can say anything. What is longer
//! is cut before it is kept, and marked as cut.

use k8sctl_command::last_lines;
use k8sctl_proto::node::v1::{
    AgentReplacement, Condition, ConditionStatus, Evidence, Hello, NodeFacts, Repair, StatusReport,
};

/// Steps, and conditions, of a report. An agent of this release has six steps and fourteen conditions at most.
const ITEMS: usize = 64;
/// Repairs of a report, the newest: as many as an agent of this release keeps.
const REPAIRS: usize = 32;
/// Words of a command line.
const WORDS: usize = 64;
/// Names, types and reasons, in bytes.
const NAME: usize = 128;
/// Messages and words, in bytes.
const TEXT: usize = 2 * 1024;
/// What is told of a repair, in bytes: twice what the agent keeps.
const NOTE: usize = 1024;
/// Last output of a command or a journal, in bytes: twice what the agent keeps.
const TAIL: usize = 16 * 1024;
const MARK: &str = "… (cut)";
/// Type of the condition that marks a report of which something was left out.
const WHOLE: &str = "ReportWhole";

/// Cuts a report.
pub(super) fn cut_report(report: &mut StatusReport) {
    let (steps, conditions, repairs) = (report.steps.len(), report.conditions.len(), report.repairs.len());
    report.steps.truncate(ITEMS);
    report.conditions.truncate(ITEMS);
    // The last ones are the news.
    report.repairs.drain(..repairs.saturating_sub(REPAIRS));
    // A new vector of the right size: what was cut would stay allocated.
    report.steps.shrink_to_fit();
    report.conditions.shrink_to_fit();
    report.repairs.shrink_to_fit();
    for step in &mut report.steps {
        cut_head(&mut step.name, NAME);
        cut_head(&mut step.message, TEXT);
        if let Some(evidence) = &mut step.evidence {
            cut_evidence(evidence);
        }
    }
    for condition in &mut report.conditions {
        cut_head(&mut condition.r#type, NAME);
        cut_head(&mut condition.reason, NAME);
        cut_head(&mut condition.message, TEXT);
    }
    report.repairs.iter_mut().for_each(cut_repair);
    if let Some(facts) = &mut report.facts {
        cut_facts(facts);
    }
    if let Some(replacement) = &mut report.replacement {
        cut_replacement(replacement);
    }
    if steps > ITEMS || conditions > ITEMS || repairs > REPAIRS {
        report.conditions.push(Condition {
            r#type: WHOLE.to_owned(),
            status: ConditionStatus::False.into(),
            reason: "TooMuch".to_owned(),
            message: format!(
                "{steps} steps, {conditions} conditions and {repairs} repairs; of each the first {ITEMS} are kept, \
                 of repairs the last {REPAIRS}"
            ),
            since: None,
        });
    }
}

/// Cuts an agent's first message.
pub(super) fn cut_hello(hello: &mut Hello) {
    for text in
        [&mut hello.agent_version, &mut hello.boot_id, &mut hello.machine_uuid, &mut hello.program_sha256]
    {
        cut_head(text, NAME);
    }
    if let Some(facts) = &mut hello.facts {
        cut_facts(facts);
    }
}

fn cut_facts(facts: &mut NodeFacts) {
    for text in [&mut facts.kernel, &mut facts.os, &mut facts.hostname] {
        cut_head(text, TEXT);
    }
}

/// Cuts what an agent says of its own replacement.
pub(super) fn cut_replacement(replacement: &mut AgentReplacement) {
    for text in [&mut replacement.attempt, &mut replacement.sha256] {
        cut_head(text, NAME);
    }
    cut_head(&mut replacement.message, TEXT);
}

fn cut_repair(repair: &mut Repair) {
    cut_head(&mut repair.object, NAME);
    for text in [&mut repair.reason, &mut repair.action, &mut repair.message] {
        cut_head(text, NOTE);
    }
}

fn cut_evidence(evidence: &mut Evidence) {
    if evidence.argv.len() > WORDS {
        evidence.argv.truncate(WORDS);
        evidence.argv.push(MARK.to_owned());
        evidence.argv.shrink_to_fit();
    }
    for word in &mut evidence.argv {
        cut_head(word, TEXT);
    }
    cut_tail(&mut evidence.output_tail);
    cut_tail(&mut evidence.journal_tail);
}

/// Keeps the begin.
fn cut_head(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        *text = format!("{}{MARK}", &text[..end]);
    }
}

/// Keeps the end, where a program says why it failed, in whole lines.
fn cut_tail(text: &mut String) {
    if text.len() > TAIL {
        *text = format!("{MARK}\n{}", last_lines(text, TAIL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8sctl_proto::node::v1::StepStatus;

    #[test]
    fn what_is_too_long_is_cut_and_marked() {
        let long = || "ä".repeat(100_000);
        let evidence = Evidence {
            argv: vec![long(); 100],
            output_tail: format!("{}\nthe end", long()),
            journal_tail: long(),
            ..Evidence::default()
        };
        let step =
            StepStatus { name: long(), message: long(), evidence: Some(evidence), ..StepStatus::default() };
        let condition = Condition { r#type: long(), reason: long(), message: long(), ..Condition::default() };
        let facts = NodeFacts { kernel: long(), os: long(), hostname: long(), ..NodeFacts::default() };
        let repair = |number| Repair {
            number,
            object: long(),
            reason: long(),
            action: long(),
            message: long(),
            ..Repair::default()
        };
        let mut report = StatusReport {
            steps: vec![step],
            conditions: [vec![condition; ITEMS], vec![Condition::default(); 5_000 - ITEMS]].concat(),
            repairs: (1..=100).map(repair).collect(),
            facts: Some(facts),
            ..StatusReport::default()
        };
        cut_report(&mut report);
        let numbers: Vec<u64> = report.repairs.iter().map(|repair| repair.number).collect();
        assert_eq!(numbers, (69..=100).collect::<Vec<_>>());
        let repair = &report.repairs[0];
        assert!(repair.object.len() <= NAME + MARK.len());
        assert!(repair.message.len() <= NOTE + MARK.len() && repair.message.ends_with(MARK));
        let step = &report.steps[0];
        assert!(step.message.ends_with(MARK) && step.name.len() <= NAME + MARK.len());
        let evidence = step.evidence.as_ref().expect("it is there");
        assert_eq!(evidence.output_tail, format!("{MARK}\nthe end"));
        assert_eq!(evidence.journal_tail, format!("{MARK}\n"));
        assert!(evidence.argv.len() == WORDS + 1 && evidence.argv[WORDS] == MARK);
        let last = report.conditions.last().expect("conditions");
        assert_eq!((report.conditions.len(), last.r#type.as_str()), (ITEMS + 1, WHOLE));
        assert!(last.message.contains("5000 conditions and 100 repairs"), "{}", last.message);
        assert!(format!("{report:?}").len() < 512 * 1024);

        let mut hello =
            Hello { agent_version: long(), boot_id: long(), machine_uuid: long(), ..Hello::default() };
        cut_hello(&mut hello);
        assert!(format!("{hello:?}").len() < 1024 && hello.agent_version.ends_with(MARK));
    }

    #[test]
    fn of_a_tail_whole_lines_are_kept() {
        let cut = |mut text: String| {
            cut_tail(&mut text);
            text
        };
        let line = "x".repeat(TAIL - 1);
        assert_eq!(cut(format!("{line}\n")), format!("{line}\n"));
        assert_eq!(cut(format!("before\n{line}\n")), format!("{MARK}\n{line}\n"));
        assert_eq!(cut(format!("password: {line}\nthe end\n")), format!("{MARK}\nthe end\n"));
        assert_eq!(cut(format!("password: {line}")), format!("{MARK}\n"));
    }

    #[test]
    fn what_an_agent_says_stays_as_it_is() {
        let evidence = Evidence { output_tail: "x".repeat(8 * 1024), ..Evidence::default() };
        let step = StepStatus {
            name: "kubeadm".into(),
            message: "m".repeat(1024),
            evidence: Some(evidence),
            ..StepStatus::default()
        };
        let condition = Condition { message: "m".repeat(1024), ..Condition::default() };
        let repair = Repair { reason: "r".repeat(515), message: "m".repeat(515), ..Repair::default() };
        let mut report = StatusReport {
            steps: vec![step; 6],
            conditions: vec![condition; 14],
            repairs: vec![repair; REPAIRS],
            ..StatusReport::default()
        };
        let before = report.clone();
        cut_report(&mut report);
        assert_eq!(report, before);
    }
}
