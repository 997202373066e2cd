//! The dashboard on screens of several sizes, as a terminal would show it.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::draw::{draw, plan_heights};
use super::paint::Paint;
use super::sight::{Pane, Sight};
use crate::dashboard::fake::{at, line, model, now, operation, status, troubled};
use crate::dashboard::model::{Feed, Model, News};
use crate::dashboard::picture::Picture;
use crate::view::LogView;

const PLAIN: Paint = Paint { color: false };

fn drawn(model: &Model, sight: &mut Sight, size: (u16, u16), paint: Paint) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).expect("a terminal");
    let picture = Picture::of(model, now());
    terminal.draw(|frame| draw(frame, &picture, model.lines(), sight, paint)).expect("it draws");
    terminal
}

/// The rows, without the blanks at their ends.
fn rows(terminal: &Terminal<TestBackend>) -> Vec<String> {
    let buffer = terminal.backend().buffer();
    let width = usize::from(buffer.area.width);
    let row = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect::<String>();
    buffer.content().chunks(width.max(1)).map(|cells| row(cells).trim_end().to_owned()).collect()
}

fn screen(model: &Model, size: (u16, u16)) -> String {
    rows(&drawn(model, &mut Sight::default(), size, PLAIN)).join("\n")
}

fn has(screen: &str, texts: &[&str]) {
    for text in texts {
        assert!(screen.contains(text), "{text:?} is not in:\n{screen}");
    }
}

fn busy() -> Model {
    let late = LogView { late: true, ..line("worker-1", "evil \x1b[2J\tred") };
    let lines = vec![line("control-plane-1", "started"), late];
    let notice = News::Notice { node: "worker-1".to_owned(), message: "its agent went away".to_owned() };
    model([News::Status(troubled()), News::Operation(operation("running")), News::Lines(lines), notice])
}

fn well() -> Model {
    model([News::Status(status()), News::Lines(vec![line("worker-1", "started")])])
}

#[test]
fn a_usual_screen() {
    let screen = screen(&busy(), (100, 40));
    has(
        &screen,
        &[
            "home ! not well yet: 1 of 2 nodes Ready  Kubernetes v1.29.0\n",
            "✗  worker-1         worker         crashed  Disconnected  seen 1m12s ago  1h06m  AgentReady",
            "  worker-1: its agent has no session\\x1b[2J",
            "!            KubernetesAPI",
            " Operation: up is running, for 4m12s ",
            "containerd ✓  kubeadm …",
            "last failure: NODE-SILENT: node worker-1: its agent has not called home",
            "| Kernel panic\\x1b[31m <b>",
            "✓  hello   0.1.0    Ready  2 of 2 objects are ready",
            "10:00:00.007 control-plane-1 kubelet    started",
            "10:00:00.007 worker-1        kubelet    (late) evil \\x1b[2J    red",
            "worker-1        its agent went away",
            "q leave  Tab next pane  z whole screen",
        ],
    );
    assert!(!screen.contains(['\x1b', '\t']), "{screen:?}");
    insta::assert_snapshot!(screen);
}

#[test]
fn a_wide_screen_has_panes_side_by_side() {
    let screen = screen(&busy(), (160, 40));
    let side_by_side = screen.lines().find(|row| row.contains(" Conditions ")).expect("it is there");
    has(side_by_side, &[" Operation: up is running", " Plugins "]);
    insta::assert_snapshot!(screen);
}

#[test]
fn a_narrow_screen_keeps_what_matters() {
    let screen = screen(&busy(), (44, 30));
    has(
        &screen,
        &[
            "home ! not well yet: 1 of 2 nodes Ready",
            "worker-1         Disconnected",
            "AgentReady",
            "started",
        ],
    );
    for text in ["192.168", "10:00:00", "│", "kubelet "] {
        assert!(!screen.contains(text), "{text:?} is in:\n{screen}");
    }
    insta::assert_snapshot!(screen);
}

#[test]
fn no_screen_is_too_small() {
    for model in [busy(), well(), Model::new("home")] {
        for width in [1, 2, 3, 19, 20, 59, 60, 119, 120, 300] {
            for height in [1, 2, 3, 4, 5, 9, 15, 16, 17, 24, 100] {
                for focus in Pane::ALL {
                    let mut sight = Sight { focus, scroll: [usize::MAX; 5], ..Sight::default() };
                    drawn(&model, &mut sight, (width, height), PLAIN);
                    sight.is_whole = true;
                    drawn(&model, &mut sight, (width, height), PLAIN);
                }
            }
        }
    }
    has(&screen(&well(), (30, 3)), &["home ✓ well: 2 of 2 nodes Rea"]);
}

#[test]
fn heights_fill_the_screen_and_the_log_has_a_third() {
    assert_eq!(plan_heights(&[7], 20, true), [20]);
    assert_eq!(plan_heights(&[], 20, false), [0; 0]);
    assert_eq!(plan_heights(&[5, 6, 2], 30, true), [5, 6, 19]);
    assert_eq!(plan_heights(&[20, 30, 5, 2], 30, true), [8, 7, 5, 10]);
    assert_eq!(plan_heights(&[9, 9, 9, 2], 15, true), [4, 4, 0, 7]);
    assert_eq!(plan_heights(&[u16::MAX, u16::MAX, 2], 3, true), [0, 0, 3]);
    assert_eq!(plan_heights(&[u16::MAX, u16::MAX, 2], u16::MAX, true), [21_845; 3]);
}

#[test]
fn what_is_old_is_marked_across_the_screen() {
    let mut model = model([]);
    model.apply(News::Status(status()), at(20));
    model.apply(News::Lost(Feed::Status, "the host agent does not answer".to_owned()), at(15));
    model.apply(News::Lost(Feed::Logs, "the host agent does not answer".to_owned()), at(15));
    let terminal = drawn(&model, &mut Sight::default(), (100, 30), PLAIN);
    let rows = rows(&terminal);
    assert!(rows[0].starts_with("home ! was well: 2 of 2 nodes Ready"), "{rows:?}");
    let old = " OLD  the host agent does not answer, for 15s: this is how it was 20s ago";
    assert_eq!(rows[1], old);
    let buffer = terminal.backend().buffer();
    let cell = |x: u16, y: u16| buffer.cell((x, y)).expect("it is on the screen").modifier;
    assert!(cell(5, 1).contains(Modifier::REVERSED));
    let node = rows.iter().position(|row| row.contains("worker-1")).expect("it is still shown");
    assert!(cell(20, u16::try_from(node).expect("a row")).contains(Modifier::DIM));
    has(&rows.join("\n"), &[" Logs the host agent does not answer "]);
}

#[test]
fn without_colours_there_are_none() {
    let colours = |paint| {
        let terminal = drawn(&busy(), &mut Sight::default(), (100, 40), paint);
        let cells = terminal.backend().buffer().content();
        cells.iter().filter(|cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset)).count()
    };
    assert_eq!(colours(PLAIN), 0);
    assert!(colours(Paint { color: true }) > 50);
}

#[test]
fn one_pane_can_have_the_screen_and_scrolls() {
    let mut status = status();
    status.nodes =
        (0..50).map(|place| crate::dashboard::fake::node(&format!("node-{place}"), "worker", "")).collect();
    let model = model([News::Status(status)]);
    let mut sight = Sight { focus: Pane::Nodes, is_whole: true, ..Sight::default() };
    let first = rows(&drawn(&model, &mut sight, (80, 24), PLAIN)).join("\n");
    has(&first, &[" Nodes 1-19 of 50 ", "node-0 ", "node-18 "]);
    sight.scroll[Pane::Nodes.place()] = usize::MAX;
    let last = rows(&drawn(&model, &mut sight, (80, 24), PLAIN)).join("\n");
    has(&last, &[" Nodes 32-50 of 50 ", "NODE", "node-49 "]);
    assert_eq!(sight.scroll[Pane::Nodes.place()], 31, "what is beyond the end counts for nothing");
    // What is there no more has no focus.
    sight.focus = Pane::Operation;
    drawn(&model, &mut sight, (80, 24), PLAIN);
    assert_eq!(sight.focus, Pane::Logs);
}

#[test]
fn held_lines_stay_while_others_come() {
    let lines = |from: usize, to: usize| {
        News::Lines((from..to).map(|count| line("a", &format!("<{count}>"))).collect())
    };
    let mut model = model([News::Status(status()), lines(1, 101)]);
    let mut sight = Sight { is_whole: true, held: Some(50), ..Sight::default() };
    let held = rows(&drawn(&model, &mut sight, (80, 24), PLAIN)).join("\n");
    has(&held, &["<50>", "<31>", "held, 50 newer below"]);
    assert!(!held.contains("<51>") && !held.contains("<30>"), "{held}");
    model.apply(lines(101, 900), now());
    let later = rows(&drawn(&model, &mut sight, (80, 24), PLAIN)).join("\n");
    has(&later, &["<50>", "<31>", "held, 849 newer below"]);
    // They have left: the oldest that are there are shown.
    model.apply(lines(900, 1200), now());
    let gone = rows(&drawn(&model, &mut sight, (80, 24), PLAIN)).join("\n");
    has(&gone, &["<200>", "<219>"]);
    assert_eq!(sight.held, Some(219), "keys go on from what is shown");
    sight.held = None;
    has(&rows(&drawn(&model, &mut sight, (80, 24), PLAIN)).join("\n"), &["<1199>"]);
    sight.shift = 4;
    has(&rows(&drawn(&model, &mut sight, (80, 24), PLAIN)).join("\n"), &["kubelet    9>"]);
}
