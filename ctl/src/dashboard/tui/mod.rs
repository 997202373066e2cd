//! The dashboard in the terminal: draws what changed, at most so often, and takes keys, until the user leaves.
//!
//! - `screen`: the terminal itself, taken and given back
//! - `sight`: what of the picture is looked at, and the keys that change it
//! - `gone`: what ends it with the terminal
//! - `draw`: the picture as cells; `grid` lays out tables, `log` the lines

mod draw;
mod gone;
mod grid;
mod log;
mod paint;
mod screen;
mod sight;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::pin;
use std::time::Duration;

use crossterm::event::{Event, EventStream};
use jiff::Timestamp;
use k8sctl_types::failure::Failure;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::StreamExt as _;

use super::model::Model;
use super::picture::Picture;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::signals::Signals;
use paint::Paint;
use screen::Screen;
use sight::{Act, Sight};

/// The least time between two frames, however much happens.
const FRAME: Duration = Duration::from_millis(50);
/// How often it is drawn again, for the ages.
const SECOND: Duration = Duration::from_secs(1);

/// Runs until the user leaves; `sources` feed the model.
pub async fn run(
    color: bool,
    mut models: watch::Receiver<Model>,
    sources: impl Future<Output = ()>,
) -> Result<Exit, Ended> {
    let mut signals = Signals::new()?;
    let mut screen = Screen::open(color).map_err(|error| no_screen(&error))?;
    gone::watch()?;
    let mut keys = EventStream::new();
    let mut sources = pin!(sources);
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seconds = interval(SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sight = Sight::default();
    let mut is_dirty = true;
    loop {
        // All are cancel-safe: signals, keys and ticks stay where they are until they are taken, and `sources` goes on
        // where it was.
        tokio::select! {
            // Whoever wants to leave does not wait for what there is to be drawn.
            biased;
            () = signals.any() => return Ok(Exit::Interrupted),
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) => match sight.key(&key, models.borrow().newest()) {
                    Act::Leave => return Ok(Exit::Ok),
                    Act::Interrupt => return Ok(Exit::Interrupted),
                    Act::Look => is_dirty = true,
                },
                // Another size, or the terminal is looked at again.
                Some(Ok(_)) => is_dirty = true,
                Some(Err(error)) => return Err(no_screen(&error)),
                None => return Ok(Exit::Ok),
            },
            _ = frames.tick(), if is_dirty => {
                is_dirty = false;
                let model = models.borrow_and_update();
                let picture = Picture::of(&model, Timestamp::now());
                screen.draw(|frame| draw::draw(frame, &picture, model.lines(), &mut sight, Paint { color }))?;
            }
            _ = seconds.tick() => is_dirty = true,
            Ok(()) = models.changed() => is_dirty = true,
            () = &mut sources => return Ok(Exit::Ok),
        }
    }
}

fn no_screen(error: &io::Error) -> Ended {
    let next = "watch the cluster with: k8sctl status -w";
    let reason = format!("the terminal cannot be used: {error}");
    Ended::with(Exit::Usage, Failure::new("HOST-TERMINAL", "dashboard", reason, next))
}
