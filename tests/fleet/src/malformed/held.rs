//! What is begun and not ended: messages, calls, answers that nobody reads, and whoever is slow.

use std::io;
use std::thread;
use std::time::Duration;

use super::conversation::{Conversation, Heard};
use super::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, frame, message, message_claiming, request};
use super::line::Door;
use super::random::Random;

/// Streams of one connection, more than may wait for an answer.
const STREAMS: u32 = 48;
/// How long they are held, at most, in milliseconds.
const HELD: usize = 1_500;
/// How long it is sent to them.
const POURED: Duration = Duration::from_secs(2);
/// Claimed lengths of messages: at the limits of the services, beyond them, and more than there can be.
const CLAIMS: [u32; 7] =
    [64 * 1024, 64 * 1024 + 1, 512 * 1024, 1024 * 1024 + 64 * 1024, 4 << 20, 0x7fff_ffff, u32::MAX];
/// Most that is sent of one message.
const SENT: u32 = 2 << 20;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_millis(300);

fn hold(random: &mut Random) -> Duration {
    Duration::from_millis(random.below(HELD) as u64)
}

/// Many messages at a time that are to be large, and never end.
pub fn unfinished(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let claim = *random.pick(&CLAIMS);
    let streams: Vec<u32> = (0..STREAMS).map(|number| 2 * number + 1).collect();
    let mut conversation = Conversation::open(door)?;
    let block = request(path);
    let said = conversation
        .say_all(streams.iter().map(|stream| {
            let begin = frame(DATA, 0, *stream, &message_claiming(claim));
            [frame(HEADERS, END_HEADERS, *stream, &block), begin].concat()
        }))
        .and_then(|()| conversation.pour(&streams, claim.min(SENT) as usize - 64, POURED));
    if said.is_ok() {
        conversation.hear(usize::MAX, hold(random));
    }
    Ok(conversation.end(said))
}

/// One message that is larger than it may be, whole.
pub fn oversized(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let size = *random.pick(&[64 * 1024 + 1, 512 * 1024 + 1, SENT]);
    let mut conversation = Conversation::open(door)?;
    let begin =
        [frame(HEADERS, END_HEADERS, 1, &request(path)), frame(DATA, 0, 1, &message_claiming(size))].concat();
    let said = conversation.say(&begin).and_then(|()| conversation.pour(&[1], size as usize, POURED));
    if said.is_ok() {
        conversation.hear(1, ANSWER);
    }
    Ok(conversation.end(said))
}

/// Answers for which there is no room.
pub fn unread(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let mut conversation = Conversation::silent(door)?;
    let block = request(path);
    let calls = (0..STREAMS).map(|number| {
        let stream = 2 * number + 1;
        [frame(HEADERS, END_HEADERS, stream, &block), frame(DATA, END_STREAM, stream, &message(&[]))].concat()
    });
    let said = conversation.say_all(std::iter::once(Conversation::greeting(0)).chain(calls));
    if said.is_ok() {
        // Not read at all, what is sent for the connection itself included.
        thread::sleep(hold(random));
        conversation.hear(usize::MAX, ANSWER);
    }
    Ok(conversation.end(said))
}

/// A connection that says nothing, or a little at a time, and is left.
pub fn slow(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let mut conversation = Conversation::silent(door)?;
    let bytes = [Conversation::greeting(1 << 16), frame(HEADERS, END_HEADERS, 1, &request(path))].concat();
    let until = random.below(bytes.len() + 1);
    let mut said = Ok(());
    for piece in bytes[..until].chunks(8) {
        said = conversation.say(piece);
        if said.is_err() {
            break;
        }
        // It is the point that time passes.
        thread::sleep(Duration::from_millis(random.between(1, 40) as u64));
    }
    if said.is_ok() {
        conversation.hear(usize::MAX, hold(random));
    }
    Ok(conversation.end(said))
}
