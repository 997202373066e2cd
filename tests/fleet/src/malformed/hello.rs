//! The node port before TLS is there: garbage, first messages that are cut, changed or never finished, and certificates
//! that no authority has signed.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use super::conversation::{Conversation, Heard, is_patience};
use super::line::{Door, Tls};
use super::mutate::mutate;
use super::random::Random;

/// Largest piece of garbage.
const GARBAGE: usize = 4_096;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_millis(400);
/// Longest that a handshake is left where it is.
const HELD: usize = 1_500;
/// Pieces that a hello comes in.
const PIECES: usize = 20;

/// Bytes that mean nothing.
pub fn garbage(door: &Door, random: &mut Random) -> io::Result<Heard> {
    let count = random.between(1, GARBAGE);
    let bytes = random.bytes(count);
    send(door, &bytes)
}

/// Records of TLS that are none: of any kind, with lengths that are not so.
pub fn records(door: &Door, random: &mut Random) -> io::Result<Heard> {
    let mut bytes = Vec::new();
    for _ in 0..random.between(1, 16) {
        let kind = *random.pick(&[20, 21, 22, 23, 24, 255]);
        let length = *random.pick(&[0, 1, 4, 256, 16_384, 16_640, 65_535_u16]);
        let count = random.between(0, 300);
        bytes.extend([kind, 3, random.draw() as u8 % 5]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(random.bytes(count));
    }
    send(door, &bytes)
}

/// A sound hello, cut somewhere, and nothing behind it for a while.
pub fn cut(door: &Door, tls: &Tls, random: &mut Random) -> io::Result<Heard> {
    let mut bytes = first_message(tls)?;
    bytes.truncate(random.between(1, bytes.len()));
    let mut line = door.open()?;
    line.write_all(&bytes)?;
    Ok(listen(&mut *line, Duration::from_millis(random.below(HELD) as u64)))
}

/// A sound hello, changed, and garbage behind it or not.
pub fn changed(door: &Door, tls: &Tls, random: &mut Random) -> io::Result<Heard> {
    let mut bytes = first_message(tls)?;
    mutate(random, &mut bytes, 2 * GARBAGE);
    if random.once_in(2) {
        let count = random.between(1, GARBAGE);
        bytes.extend(random.bytes(count));
    }
    send(door, &bytes)
}

/// A sound hello, a few bytes now and then.
pub fn slow(door: &Door, tls: &Tls, random: &mut Random) -> io::Result<Heard> {
    let bytes = first_message(tls)?;
    let mut line = door.open()?;
    for piece in bytes.chunks(bytes.len() / PIECES + 1) {
        line.write_all(piece)?;
        // It is the point that time passes.
        std::thread::sleep(Duration::from_millis(random.between(1, 100) as u64));
    }
    Ok(listen(&mut *line, ANSWER))
}

/// A handshake with what should open nothing, and HTTP/2 behind it.
pub fn unwanted(door: &Door, _: &mut Random) -> io::Result<Heard> {
    let mut conversation = Conversation::open(door)?;
    conversation.hear(usize::MAX, ANSWER);
    Ok(conversation.end(Ok(())))
}

fn first_message(tls: &Tls) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tls.connection()?.write_tls(&mut bytes)?;
    Ok(bytes)
}

fn send(door: &Door, bytes: &[u8]) -> io::Result<Heard> {
    let mut line = door.open()?;
    line.write_all(bytes)?;
    Ok(listen(&mut *line, ANSWER))
}

/// What comes until the other end closes, or the time is over.
pub(super) fn listen(line: &mut dyn super::line::Duplex, patience: Duration) -> Heard {
    let (end, mut heard, mut bytes) = (Instant::now() + patience, Heard::default(), [0; 16 * 1024]);
    while Instant::now() < end {
        match line.read(&mut bytes) {
            Ok(count) if count > 0 => heard.bytes += count,
            Err(error) if is_patience(&error) => {}
            _ => {
                heard.closed = 1;
                break;
            }
        }
    }
    heard
}
