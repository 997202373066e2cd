//! What is to be seen in a terminal.

use ratatui::text::Span;

use crate::ansi;
use crate::fake::scenes::{CONTROL_SHOWN, MARKUP, WIDE, api_down, dead_node, hostile, line};
use crate::fake::{Answers, story};
use crate::harness::Bench;
use crate::tmux::{Size, Tmux};

const USUAL: Size = (120, 40);

fn columns(row: &str) -> u16 {
    Span::raw(row).width() as u16
}

fn has_sides(row: &str) -> bool {
    row.starts_with(['┌', '│', '└']) && row.ends_with(['┐', '│', '┘'])
}

/// Nothing is wider or higher than the terminal, and what has a frame fills it.
fn fits(screen: &str, (width, height): Size) -> bool {
    let rows: Vec<&str> = screen.lines().collect();
    let [head, body @ .., keys] = &rows[..] else { return false };
    let is_whole =
        rows.len() == usize::from(height) && head.starts_with("home ") && keys.starts_with("q leave");
    let fits = rows.iter().all(|row| columns(row) <= width);
    // From here on, panes have no sides.
    let is_framed = if width < 60 {
        body.iter().any(|row| columns(row) == width && row.ends_with('─'))
    } else {
        // What is said of old pictures is above the panes.
        let panes: Vec<_> = body.iter().skip_while(|row| !row.starts_with('┌')).collect();
        panes.len() + 3 >= body.len() && panes.iter().all(|row| has_sides(row) && columns(row) == width)
    };
    is_whole && fits && is_framed
}

async fn fits_itself(tmux: &Tmux, size: Size) -> String {
    tmux.until(&format!("a screen that fits into {size:?}"), |screen| fits(screen, size)).await
}

/// Only this pane is on the screen.
fn is_alone(screen: &str, pane: &str) -> bool {
    let all = [" Nodes ", " Conditions ", " Operation: ", " Plugins ", " Logs "];
    let there: Vec<_> = all.into_iter().filter(|one| screen.contains(one)).collect();
    there == [pane]
}

#[tokio::test]
async fn all_of_it_is_there_and_fits_every_terminal() {
    let bench = Bench::new(dead_node());
    let tmux = Tmux::run(&bench, &["dashboard"], USUAL, &[]).await;
    tmux.shows(&[
        "home ! not well yet: 1 of 3 nodes Ready  Kubernetes v1.29.0",
        " Nodes ",
        "✓  k8s-control-plane-1  control-plane  192.168.122.10  running  Ready",
        "✗  k8s-worker-1         worker         192.168.122.11  crashed  VM",
        "VMRunning,Agent",
        "  k8s-worker-1: the VM is crashed",
        " Conditions ",
        "KubernetesAPI",
        " Operation: up is running, for ",
        "✓  k8s-control-plane-1",
        "k8s-worker-2",
        " Plugins ",
        "✓  hello",
        " Logs ",
        "its agent went away; it is waited for",
        "step cni: running",
    ])
    .await;
    fits_itself(&tmux, USUAL).await;
    for size in [(80, 24), (40, 12), (61, 20), (20, 5), (200, 50), (59, 14), USUAL] {
        tmux.resize(size).await;
        fits_itself(&tmux, size).await;
    }
    // While it is shown, more comes.
    bench.fake.add(|answers| answers.logs.push(line(0, "k8s-worker-2", "agent", "step cni: done")));
    tmux.shows(&["step cni: done"]).await;
    tmux.press(&["q"]).await;
    tmux.gives_back(0).await;
}

#[tokio::test]
async fn keys_move_what_is_looked_at() {
    let bench = Bench::new(dead_node());
    let tmux = Tmux::run(&bench, &["dashboard"], USUAL, &[]).await;
    tmux.shows(&["step cni: running", "✓  hello", " Operation: "]).await;
    for (keys, pane) in [
        (&["Tab", "z"][..], " Nodes "),
        (&["Tab"], " Conditions "),
        (&["Tab"], " Operation: "),
        (&["BTab"], " Conditions "),
    ] {
        tmux.press(keys).await;
        tmux.until(&format!("{pane} alone"), |screen| is_alone(screen, pane)).await;
        fits_itself(&tmux, USUAL).await;
    }
    tmux.press(&["Escape"]).await;
    tmux.shows(&[" Nodes ", " Conditions ", " Operation: ", " Plugins ", " Logs "]).await;

    tmux.press(&["Space"]).await;
    tmux.shows(&[" Logs held, 0 newer below "]).await;
    // More than there is room for, in a pane that is not full.
    let last = "0123456789abcdefghijKLMNOP";
    let later = (0..40).map(|number| format!("came while they were held {number}")).chain([last.to_owned()]);
    let later: Vec<_> = later.map(|text| line(0, "k8s-worker-2", "agent", &text)).collect();
    bench.fake.add(|answers| answers.logs.extend(later));
    let is_counted = |screen: &str| screen.contains(" newer below ") && !screen.contains(" 0 newer below ");
    let held = tmux.until("newer lines are counted", is_counted).await;
    assert!(held.contains(" Logs held, ") && !held.contains(last), "{held}");
    tmux.press(&["Space"]).await;
    tmux.until("the logs go on", |screen| screen.contains(last) && !screen.contains(" held, ")).await;
    tmux.press(&["Right"]).await;
    tmux.until("shifted lines", |screen| screen.contains("KLMNOP") && !screen.contains("hijKLM")).await;
    tmux.press(&["Left"]).await;
    tmux.shows(&[last]).await;
    tmux.press(&["C-c"]).await;
    tmux.gives_back(130).await;
}

#[tokio::test]
async fn texts_of_strangers_move_nothing() {
    let bench = Bench::new(hostile());
    let tmux = Tmux::run(&bench, &["dashboard"], USUAL, &[]).await;
    let node = format!("  k8s-worker-1: {CONTROL_SHOWN} <img src=x");
    tmux.shows(&[&node, CONTROL_SHOWN, MARKUP, WIDE, &WIDE.repeat(3), "last failure: NODE-SILENT"]).await;
    // Each of those would have left a trace.
    assert_ne!(tmux.knows("#{pane_title}").await, "stolen");
    assert_eq!(tmux.knows("#{alternate_on} #{cursor_flag}").await, "1 0");
    // Their longest line is cut somewhere else each time.
    let sizes = [(80, 24), (81, 25), (61, 20), (62, 20), (40, 12), (41, 12), USUAL];
    for size in sizes {
        tmux.resize(size).await;
        fits_itself(&tmux, size).await;
    }
    tmux.press(&["z"]).await;
    tmux.until("the logs alone", |screen| is_alone(screen, " Logs ")).await;
    for size in sizes {
        tmux.resize(size).await;
        fits_itself(&tmux, size).await;
    }
    tmux.press(&["q"]).await;
    tmux.gives_back(0).await;
}

#[tokio::test]
async fn what_was_seen_stays_and_goes_on() {
    let mut bench = Bench::apart(Answers { endless: true, ..story::answers() });
    let tmux = Tmux::run(&bench, &["dashboard"], USUAL, &[]).await;
    tmux.shows(&["home ✓ well: 3 of 3 nodes Ready", "✓  k8s-worker-1", "started late"]).await;
    // A node dies, and the API with it.
    bench.fake.add(|answers| answers.status.push(api_down()));
    bench.fake.add(|answers| answers.logs.push(line(0, "k8s-worker-2", "kubelet", "still told")));
    let ill = tmux.shows(&["home ✗ not well", "✗  k8s-worker-1", "crashed", "seen ", "still told"]).await;
    let api = |row: &str| row.contains("KubernetesAPI") && row.contains("False");
    assert!(ill.lines().any(api) && !ill.contains(" OLD "), "{ill}");
    fits_itself(&tmux, USUAL).await;

    bench.leave().await;
    let old = [
        " OLD  the host agent does not answer, for ",
        "home ! was not well",
        "✗  k8s-worker-1",
        "still told",
    ];
    tmux.shows(&old).await;
    for size in [(80, 24), (40, 12), USUAL] {
        tmux.resize(size).await;
        let screen = fits_itself(&tmux, size).await;
        assert!(screen.contains(" OLD "), "{screen}");
    }
    bench.come_back();
    bench.fake.add(|answers| answers.logs.push(line(0, "k8s-worker-2", "kubelet", "told after that")));
    let back = tmux
        .until("it goes on", |screen| {
            screen.contains("told after that")
                && screen.contains("home ✗ not well")
                && !screen.contains(" OLD ")
        })
        .await;
    assert_eq!(back.matches("still told").count(), 1, "no line comes twice:\n{back}");
    tmux.press(&["q"]).await;
    tmux.gives_back(0).await;
}

#[tokio::test]
async fn colours_are_there_unless_nobody_wants_them() {
    let bench = Bench::new(dead_node());
    for (set, is_coloured) in [(&[("NO_COLOR", "1")][..], false), (&[], true)] {
        let tmux = Tmux::run(&bench, &["dashboard"], USUAL, set).await;
        tmux.shows(&["✗  k8s-worker-1", "✓  hello", "step cni: running"]).await;
        let painted = tmux.painted().await;
        let has_colour = |(style, _): &(ansi::Style, String)| style.text.is_some() || style.back.is_some();
        assert_eq!(ansi::pieces(&painted).iter().any(has_colour), is_coloured, "{painted:?}");
        tmux.press(&["q"]).await;
        tmux.gives_back(0).await;
    }
}
