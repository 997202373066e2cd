//! Many small frames of HTTP/2 that cost their sender little: more than a server should do anything for.

use std::io;
use std::time::Duration;

use super::conversation::{Conversation, Heard};
use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PAYLOAD, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, bomb, claiming, field, frame, message, request, setting,
    window_update,
};
use super::line::Door;
use super::mutate::mutate;
use super::random::Random;

/// How long it is heard what the other end says to it.
const ANSWER: Duration = Duration::from_millis(200);
/// Reasons for the end of a stream, one that nobody knows included.
const REASONS: [u32; 4] = [0, 8, 11, u32::MAX];

/// Says a sound greeting and all of this, and hears what comes.
fn flood(door: &Door, pieces: impl IntoIterator<Item = Vec<u8>>) -> io::Result<Heard> {
    let mut conversation = Conversation::open(door)?;
    let said = conversation.say_all(pieces);
    if said.is_ok() {
        conversation.hear(usize::MAX, ANSWER);
    }
    Ok(conversation.end(said))
}

/// Streams of a client, in their order.
fn streams(count: usize) -> impl Iterator<Item = u32> {
    (0..count as u32).map(|number| 2 * number + 1)
}

/// Calls that are begun and not ended, many more than there may be.
pub fn headers(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let (block, count) = (request(path), random.between(100, 2_000));
    flood(door, streams(count).map(|stream| frame(HEADERS, END_HEADERS, stream, &block)))
}

/// Calls that are begun and reset at once.
pub fn rapid_reset(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let (block, count) = (request(path), random.between(100, 5_000));
    let reason = random.pick(&REASONS).to_be_bytes();
    let call = |stream| {
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, &block), frame(RST_STREAM, 0, stream, &reason)]
            .concat()
    };
    flood(door, streams(count).map(call))
}

/// Calls for which the other end must reset the stream, again and again.
pub fn made_you_reset(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let (block, count) = (request(path), random.between(100, 2_000));
    let wrong = random.below(3);
    let call = |stream| {
        let error = match wrong {
            0 => window_update(stream, 0),
            1 => [window_update(stream, 0x7fff_ffff), window_update(stream, 0x7fff_ffff)].concat(),
            _ => frame(PRIORITY, 0, stream, &stream.to_be_bytes()),
        };
        [frame(HEADERS, END_HEADERS, stream, &block), error].concat()
    };
    flood(door, streams(count).map(call))
}

/// A header block that goes on and on.
pub fn continuations(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let (count, size) = (random.between(10, 5_000), *random.pick(&[0, 1, 100, 1_000]));
    let more = field("x-more", &"m".repeat(size));
    let piece = if size == 0 { Vec::new() } else { more };
    let begin = frame(HEADERS, END_STREAM, 1, &request(path));
    let rest = (0..count).map(|_| frame(CONTINUATION, 0, 1, &piece));
    flood(door, std::iter::once(begin).chain(rest))
}

/// Header lists that are larger than they may be, or small on the wire alone.
pub fn large_headers(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let mut block = request(path);
    match random.below(3) {
        0 => block.extend(field("x-large", &"l".repeat(random.between(1, 200_000)))),
        1 => {
            let count = random.between(1, 20_000);
            block.extend((0..count).flat_map(|_| field("x", "y")));
        }
        _ => block.extend(bomb(3_900, random.between(1, 10_000))),
    }
    let mut pieces: Vec<&[u8]> = block.chunks(PAYLOAD).collect();
    let last = pieces.pop().unwrap_or_default();
    let mut frames = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        frames.push(frame(if at == 0 { HEADERS } else { CONTINUATION }, 0, 1, piece));
    }
    let kind = if frames.is_empty() { HEADERS } else { CONTINUATION };
    frames.push(frame(kind, END_HEADERS, 1, last));
    flood(door, frames)
}

/// Pings, settings or frames of no known kind, each of which may want an answer.
pub fn small_frames(door: &Door, _: &str, random: &mut Random) -> io::Result<Heard> {
    let (count, kind) = (random.between(100, 20_000), random.below(5));
    let mut drawn = *random;
    let piece = move |_| match kind {
        0 => frame(PING, 0, 0, &drawn.draw().to_be_bytes()),
        1 => frame(SETTINGS, 0, 0, &setting(drawn.between(0, 9) as u16, drawn.draw() as u32 >> 1)),
        2 => frame(drawn.between(10, 255) as u8, drawn.draw() as u8, drawn.below(9) as u32, &[0; 8]),
        3 => frame(PING, ACK, 0, &drawn.draw().to_be_bytes()),
        _ => frame(PRIORITY, 0, 2 * drawn.below(5_000) as u32 + 1, &[0, 0, 0, 3, 9]),
    };
    flood(door, (0..count).map(piece))
}

/// Room for answers that is more than a number can say, or none at all, again and again.
pub fn windows(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let stream = *random.pick(&[0, 1, 3]);
    let by = *random.pick(&[0, 1, 0x7fff_ffff, 0xffff_ffff]);
    let count = random.between(2, 5_000);
    let begin = frame(HEADERS, END_HEADERS, 1, &request(path));
    flood(door, std::iter::once(begin).chain((0..count).map(|_| window_update(stream, by))))
}

/// A message in pieces of one byte, or of none.
pub fn small_data(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let (count, size) = (random.between(100, 20_000), random.below(2));
    let begin = [frame(HEADERS, END_HEADERS, 1, &request(path)), frame(DATA, 0, 1, &[0, 0, 0, 0xff, 0xff])];
    let rest = (0..count).map(|_| frame(DATA, 0, 1, &[0; 1][..size]));
    flood(door, begin.into_iter().chain(rest))
}

/// A sound connection with a call, some of whose bytes are others.
pub fn changed(door: &Door, path: &str, random: &mut Random) -> io::Result<Heard> {
    let mut conversation = Conversation::silent(door)?;
    let mut bytes = Conversation::greeting(1 << 16);
    for stream in streams(random.between(1, 8)) {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &request(path)));
        let count = random.between(0, 200);
        bytes.extend(frame(DATA, END_STREAM, stream, &message(&random.bytes(count))));
        match random.below(4) {
            0 => bytes.extend(frame(PUSH_PROMISE, END_HEADERS, stream, &[0, 0, 0, 2, 0x82])),
            1 => bytes.extend(frame(GOAWAY, 0, 0, &[0; 8])),
            2 => {
                bytes.extend(claiming(random.between(0, 0xff_ffff), WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]))
            }
            _ => {}
        }
    }
    // Half of the time the greeting stays whole: behind a broken one nothing is looked at.
    let sound = if random.once_in(2) { Conversation::greeting(1 << 16).len() } else { 0 };
    let mut tail = bytes.split_off(sound);
    mutate(random, &mut tail, 1 << 16);
    bytes.extend(tail);
    let said = conversation.say(&bytes);
    if said.is_ok() {
        conversation.hear(usize::MAX, ANSWER);
    }
    Ok(conversation.end(said))
}
