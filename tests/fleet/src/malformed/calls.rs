//! Sound HTTP/2 with calls whose messages are not: changed ones of every method, and ones of many empty parts.

use std::io;
use std::time::Duration;

use super::conversation::{Conversation, Heard};
use super::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, PAYLOAD, frame, message, request};
use super::line::Door;
use super::messages::Method;
use super::mutate::mutate;
use super::random::Random;

/// Largest changed message.
const MOST: usize = 32 * 1024;
/// Calls of one connection, one after the other.
const CALLS: usize = 6;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_millis(500);
/// How long it is sent to somebody who reads slowly.
const POURED: Duration = Duration::from_secs(2);
/// No field has this type: nothing that ends so can be decoded.
const SPOILED: u8 = 0x0f;

/// Calls of one method. One time in four its messages are sound, so that something answers what follows.
pub fn changed(door: &Door, method: &Method, random: &mut Random) -> io::Result<Heard> {
    let mut conversation = Conversation::open(door)?;
    let mut said = Ok(());
    for number in 0..CALLS {
        let stream = 2 * number as u32 + 1;
        let mut bytes = Vec::new();
        for sound in &method.messages {
            let mut bytes_of_one = sound.clone();
            if !random.once_in(4) {
                mutate(random, &mut bytes_of_one, MOST);
            }
            if method.is_spoiled {
                bytes_of_one.push(SPOILED);
            }
            bytes.extend(message(&bytes_of_one));
        }
        let ends = !random.once_in(8);
        said = conversation.say_all(call(method.path, stream, &bytes, ends));
        if said.is_err() {
            break;
        }
        conversation.hear(number + 1, ANSWER);
    }
    Ok(conversation.end(said))
}

/// A call, whole, or with an end that does not come.
fn call(path: &str, stream: u32, bytes: &[u8], ends: bool) -> Vec<Vec<u8>> {
    let mut frames = vec![frame(HEADERS, END_HEADERS, stream, &request(path))];
    frames.extend(bytes.chunks(PAYLOAD).map(|piece| frame(DATA, 0, stream, piece)));
    if ends {
        frames.push(frame(DATA, END_STREAM, stream, &[]));
    }
    frames
}

/// A message whose bytes are given, however large, and the answer to it.
pub fn whole(door: &Door, path: &str, bytes: &[u8]) -> io::Result<Heard> {
    let mut conversation = Conversation::open(door)?;
    let said = conversation
        .say(&frame(HEADERS, END_HEADERS, 1, &request(path)))
        .and_then(|()| conversation.send(1, &message(bytes), POURED));
    if said.is_ok() {
        conversation.hear(1, ANSWER);
    }
    Ok(conversation.end(said))
}
