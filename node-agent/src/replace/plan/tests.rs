//! A machine in memory that loses its power, whose processes die, and whose new program may be good or bad, at every
//! point and in every order.

use proptest::prelude::*;

use super::*;

const OLD: &str = "old";
const NEW: &str = "new";

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// The agent looks once.
    Agent,
    /// The guard looks once, where it runs.
    Guard,
    /// The agent's process dies; systemd starts what has the place.
    AgentDies,
    /// The guard's process dies; systemd starts it again.
    GuardDies,
    /// The power is lost, and comes back.
    PowerLoss,
    /// The time of a trial is up.
    TimePasses,
    /// The agent gets a session, where its program is one that can.
    Session,
    /// The host's wish is heard, or is told again.
    Wish,
}

struct Machine {
    disk: Disk,
    /// The program that runs.
    running: String,
    has_session: bool,
    wanted: Option<Wanted>,
    guard: Option<GuardMemory>,
    is_good: bool,
    has_concluded: u32,
}

impl Machine {
    fn new(is_good: bool) -> Self {
        let disk = Disk { program: Some(OLD.to_owned()), ..Disk::default() };
        Self {
            disk,
            running: OLD.to_owned(),
            has_session: false,
            wanted: None,
            guard: None,
            is_good,
            has_concluded: 0,
        }
    }

    fn start_agent(&mut self) {
        self.running = self.disk.program.clone().expect("there is always a program");
        (self.has_session, self.wanted) = (false, None);
    }

    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Agent => self.agent(),
            Turn::Guard => self.guard_once(),
            Turn::AgentDies => self.start_agent(),
            Turn::GuardDies => {
                if self.guard.is_some() {
                    self.guard = Some(GuardMemory::default());
                }
            }
            Turn::PowerLoss => {
                self.start_agent();
                // Its unit has the trial's file as condition.
                self.guard = self.disk.trial.as_ref().map(|_| GuardMemory::default());
            }
            Turn::TimePasses => {
                if let Some(memory) = &mut self.guard {
                    memory.is_late = true;
                }
            }
            Turn::Session => self.has_session |= self.running == OLD || self.is_good,
            Turn::Wish => {
                // Heard in a session only.
                if self.has_session {
                    self.wanted = Some(Wanted {
                        attempt: "first".to_owned(),
                        sha256: NEW.to_owned(),
                        size: 1,
                        seconds: 60,
                    });
                }
            }
        }
        self.check();
    }

    fn agent(&mut self) {
        match plan_agent(&self.disk, &self.running, self.wanted.as_ref(), self.has_session) {
            AgentStep::Rest => {}
            AgentStep::Fetch => self.disk.staged = Some(NEW.to_owned()),
            AgentStep::Keep => self.disk.kept = Some(self.running.clone()),
            AgentStep::Begin(trial) => self.disk.trial = Some(trial),
            AgentStep::Confirm(word) => self.disk.confirmed = Some(word),
            AgentStep::Guard => {
                self.guard.get_or_insert_default();
            }
        }
    }

    fn guard_once(&mut self) {
        let Some(mut memory) = self.guard else { return };
        match plan_guard(&self.disk, memory) {
            GuardStep::Finish => return self.guard = None,
            GuardStep::Write(trial) => {
                memory.is_counted = true;
                self.disk.trial = Some(trial);
            }
            GuardStep::Install => {
                self.disk.program = self.disk.staged.take();
                memory.has_restarted = false;
            }
            GuardStep::Restart => {
                self.start_agent();
                memory.has_restarted = true;
            }
            GuardStep::Wait => {}
            GuardStep::Restore => {
                self.disk.program = self.disk.kept.clone();
                memory.has_restarted = false;
            }
            GuardStep::Conclude(outcome) => {
                self.has_concluded += 1;
                self.disk.outcome = Some(outcome);
            }
            GuardStep::Clear => (self.disk.staged, self.disk.trial) = (None, None),
        }
        self.guard = Some(memory);
    }

    /// What holds at every moment.
    fn check(&self) {
        let program = self.disk.program.as_deref();
        assert!(program == Some(OLD) || program == Some(NEW), "{:?}", self.disk);
        if self.disk.trial.is_some() {
            assert_eq!(self.disk.kept.as_deref(), Some(OLD), "there is a way back: {:?}", self.disk);
        }
        if let Some(outcome) = &self.disk.outcome {
            let expected = if outcome.reason.is_none() { NEW } else { OLD };
            assert_eq!(program, Some(expected), "{:?}", self.disk);
        }
        assert!(self.has_concluded <= 1, "it is judged once");
    }

    /// Nothing dies any more; all that can happen does, in turn.
    fn settle(&mut self) {
        for _ in 0..50 {
            for turn in [Turn::Session, Turn::Wish, Turn::Agent, Turn::Guard, Turn::Agent, Turn::Guard] {
                self.take(turn);
            }
        }
        self.take(Turn::TimePasses);
        for _ in 0..50 {
            for turn in [Turn::Guard, Turn::Session, Turn::Wish, Turn::Agent] {
                self.take(turn);
            }
        }
    }
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        6 => Just(Turn::Agent),
        8 => Just(Turn::Guard),
        1 => Just(Turn::AgentDies),
        1 => Just(Turn::GuardDies),
        1 => Just(Turn::PowerLoss),
        1 => Just(Turn::TimePasses),
        4 => Just(Turn::Session),
        3 => Just(Turn::Wish),
    ];
    proptest::collection::vec(turn, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_dies_whenever_there_is_one_whole_program_and_an_end(turns in turns(), is_good: bool) {
        let mut machine = Machine::new(is_good);
        for turn in turns {
            machine.take(turn);
        }
        machine.settle();
        let Machine { disk, running, guard, has_session, .. } = &machine;
        prop_assert_eq!(&disk.trial, &None);
        prop_assert_eq!(guard, &None, "the guard has ended");
        let outcome = disk.outcome.as_ref().expect("an end");
        prop_assert_eq!(Some(running), disk.program.as_ref(), "what runs is what has the place");
        prop_assert!(*has_session, "the node is reached");
        if !is_good {
            prop_assert_eq!(running, OLD);
            prop_assert!(outcome.reason.is_some());
        }
    }
}

fn run(machine: &mut Machine, turns: &[Turn]) {
    turns.iter().for_each(|turn| machine.take(*turn));
}

/// Up to the guard's first look.
fn on_trial(is_good: bool) -> Machine {
    let mut machine = Machine::new(is_good);
    run(&mut machine, &[Turn::Session, Turn::Wish]);
    run(&mut machine, &[Turn::Agent; 4]);
    assert!(machine.guard.is_some(), "{:?}", machine.disk);
    machine
}

#[test]
fn a_good_program_takes_the_place() {
    let mut machine = on_trial(true);
    run(&mut machine, &[Turn::Guard; 4]);
    assert_eq!(machine.running, NEW);
    run(&mut machine, &[Turn::Session, Turn::Agent]);
    run(&mut machine, &[Turn::Guard; 3]);
    assert_eq!((machine.guard, machine.disk.staged.as_deref()), (None, None));
    let expected = Outcome { attempt: "first".to_owned(), new: NEW.to_owned(), reason: None };
    assert_eq!(machine.disk.outcome, Some(expected));
}

#[test]
fn one_without_a_session_gives_it_back_and_is_not_tried_again_for_the_same_wish() {
    let mut machine = on_trial(false);
    run(&mut machine, &[Turn::Guard; 5]);
    assert_eq!(machine.running, NEW);
    run(&mut machine, &[Turn::Session, Turn::Agent, Turn::TimePasses]);
    run(&mut machine, &[Turn::Guard; 6]);
    assert_eq!((machine.running.as_str(), machine.guard), (OLD, None));
    let reason = machine.disk.outcome.as_ref().and_then(|outcome| outcome.reason.clone());
    assert_eq!(reason.as_deref(), Some("it had no lasting session within 60 s"));
    run(&mut machine, &[Turn::Session, Turn::Wish, Turn::Agent, Turn::Agent]);
    assert_eq!((machine.disk.trial.is_none(), machine.disk.staged.as_deref()), (true, None));
}

#[test]
fn a_guard_that_dies_each_time_ends_in_the_old_program() {
    let mut machine = on_trial(true);
    for _ in 0..=MOST_STARTS {
        run(&mut machine, &[Turn::GuardDies, Turn::Guard]);
    }
    run(&mut machine, &[Turn::Guard; 8]);
    assert_eq!(machine.running, OLD);
    assert!(machine.disk.outcome.is_some_and(|it| it.reason.is_some_and(|why| why.contains("6 times"))));
}

#[test]
fn a_staged_program_that_is_not_as_it_was_fetched_is_not_started() {
    let mut machine = on_trial(true);
    machine.disk.staged = Some("half".to_owned());
    run(&mut machine, &[Turn::Guard; 6]);
    assert_eq!(machine.running, OLD);
}
