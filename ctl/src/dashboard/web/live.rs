//! What a browser is sent as it changes: server-sent events, of which each carries the whole picture or the lines since
//! the last one. Nothing is kept for a browser but where it is: one that reads slowly gets fewer pictures, and is told
//! how many lines it missed.

use std::convert::Infallible;
use std::time::Duration;

use hyper::body::{Bytes, Frame};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::dashboard::model::{Line, Model};
use crate::dashboard::picture::Picture;

/// The least time between two messages.
const PACE: Duration = Duration::from_millis(250);
/// The longest: ages go on, and a page that hears nothing for longer knows that it is alone.
const REFRESH: Duration = Duration::from_secs(2);

/// What hyper sends on.
pub type Messages = ReceiverStream<Result<Frame<Bytes>, Infallible>>;

/// Messages from now on, with the lines behind this number. The place is given back with the stream.
pub fn messages(models: watch::Receiver<Model>, after: u64, place: OwnedSemaphorePermit) -> Messages {
    // One lies ready, no more.
    let (sender, receiver) = mpsc::channel(1);
    k8sctl_rpc::task::spawn("dashboard watcher", async move {
        feed(models, after, &sender).await;
        drop(place);
    });
    ReceiverStream::new(receiver)
}

async fn feed(
    mut models: watch::Receiver<Model>,
    mut after: u64,
    sender: &mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
) {
    loop {
        let message = {
            let model = models.borrow_and_update();
            let message = message(&model, after, Timestamp::now());
            after = model.newest();
            message
        };
        if sender.send(Ok(Frame::data(Bytes::from(message)))).await.is_err() {
            return;
        }
        let changed = async {
            sleep(PACE).await;
            timeout(REFRESH, models.changed()).await
        };
        // Cancel-safe: what is left is left for good.
        tokio::select! {
            () = sender.closed() => return,
            // There is nobody left who tells the model.
            changed = changed => if let Ok(Err(_)) = changed { return },
        }
    }
}

/// The lines of a message.
#[derive(Serialize)]
struct Lines<'a> {
    /// How many came before them and are no longer kept.
    left_out: u64,
    lines: Vec<&'a Line>,
}

/// The picture, and the lines behind this number where there are any.
fn message(model: &Model, after: u64, now: Timestamp) -> String {
    let mut text = format!("event: picture\ndata: {}\n\n", json(&Picture::of(model, now)));
    let (left_out, lines) = model.lines_after(after);
    let lines: Vec<_> = lines.collect();
    if left_out > 0 || !lines.is_empty() {
        let lines = json(&Lines { left_out, lines });
        text.push_str(&format!("id: {}\nevent: lines\ndata: {lines}\n\n", model.newest()));
    }
    text
}

/// On one line, and without a character that means something to HTML, wherever it may end up.
fn json(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("texts and numbers become JSON");
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::dashboard::fake::{line, model, now, troubled};
    use crate::dashboard::model::{LINES, News};

    /// The data of each event, by its name.
    fn events(message: &str) -> Vec<(&str, Value)> {
        message.trim_end().split("\n\n").map(event).collect()
    }

    fn event(text: &str) -> (&str, Value) {
        (field(text, "event: "), serde_json::from_str(field(text, "data: ")).expect("JSON"))
    }

    fn field<'a>(text: &'a str, name: &str) -> &'a str {
        text.lines().find_map(|line| line.strip_prefix(name)).expect("the event has it")
    }

    #[test]
    fn a_message_has_the_picture_and_the_lines_that_are_new() {
        let model = model([News::Status(troubled()), News::Lines(vec![line("a", "one"), line("a", "two")])]);
        let first = message(&model, 0, now());
        let told = events(&first);
        let [(picture, of), (lines, all)] = &told[..] else { panic!("{first}") };
        assert_eq!((*picture, *lines), ("picture", "lines"));
        assert_eq!((&of["cluster"], &of["verdict"]["tone"]), (&"home".into(), &"warn".into()));
        assert_eq!((&all["left_out"], &all["lines"][1]["text"]), (&0.into(), &"two".into()));
        assert!(first.contains("\nid: 2\n"), "{first}");
        let next = message(&model, 1, now());
        assert_eq!(events(&next)[1].1["lines"].as_array().map(Vec::len), Some(1));
        assert_eq!(events(&message(&model, 2, now())).len(), 1);
    }

    #[test]
    fn whoever_was_away_too_long_is_told_what_is_missing() {
        let lines = (0..LINES + 7).map(|_| line("a", "x")).collect();
        let message = message(&model([News::Lines(lines)]), 3, now());
        assert_eq!(events(&message)[1].1["left_out"], 4);
    }

    #[test]
    fn strangers_write_no_html_and_no_events() {
        let evil = "</script><img src=x onerror=alert(1)>&\n\nevent: picture\ndata: {}\n\n\u{2028}\x1b[2J\0";
        let mut status = troubled();
        status.nodes[0].name = evil.to_owned();
        status.nodes[0].conditions[0].message = Some(evil.to_owned());
        status.plugins[0].message = Some(evil.to_owned());
        status.name = evil.to_owned();
        let mut wrong = line("a", evil);
        wrong.source = evil.to_owned();
        let notice = News::Notice { node: evil.to_owned(), message: evil.to_owned() };
        let message = message(&model([News::Status(status), News::Lines(vec![wrong]), notice]), 0, now());
        assert!(!message.contains(['<', '>', '&', '\x1b', '\0', '\r', '\u{2028}']), "{message}");
        let events = events(&message);
        assert_eq!(events.len(), 2, "{message}");
        let shown = "</script><img src=x onerror=alert(1)>&\\n\\nevent: picture";
        for text in [&events[0].1["nodes"][0]["name"], &events[1].1["lines"][0]["text"]] {
            assert!(text.as_str().is_some_and(|text| text.starts_with(shown)), "{text}");
        }
    }
}
