//! Text: HTTP/1 for the metrics, and the lines of a join channel.

use std::io::{self, Write as _};
use std::thread;
use std::time::Duration;

use super::conversation::Heard;
use super::hello::listen;
use super::line::Door;
use super::mutate::mutate;
use super::random::Random;

/// Largest request.
const MOST: usize = 64 * 1024;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_millis(400);
/// How long a request is left as it is, at most, in milliseconds.
const HELD: usize = 1_500;
/// What is asked, soundly and less so.
const REQUESTS: [&str; 9] = [
    "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "GET /metrics HTTP/1.0\r\n\r\n",
    "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551616\r\n\r\nx",
    "POST /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
    "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET http://[::1/metrics HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n folded: x\r\n\0: \0\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
];

/// A request, changed or not.
pub fn request(door: &Door, random: &mut Random) -> io::Result<Heard> {
    let mut bytes = random.pick(&REQUESTS).as_bytes().to_vec();
    if random.once_in(8) {
        // One behind the other, for one answer.
        bytes = bytes.repeat(random.between(2, 50));
    }
    if !random.once_in(6) {
        mutate(random, &mut bytes, MOST);
    }
    say(door, &bytes)
}

/// A header that is too long, or has too many lines.
pub fn large(door: &Door, random: &mut Random) -> io::Result<Heard> {
    let count = random.between(1, MOST);
    let header = match random.below(4) {
        0 => format!("X: {}\r\n", "x".repeat(count)),
        1 => "X: y\r\n".repeat(count / 6),
        2 => "x".repeat(count),
        _ => "\r\n".repeat(count / 2),
    };
    say(door, format!("GET /metrics HTTP/1.1\r\n{header}\r\n").as_bytes())
}

/// A request that comes slowly, and to no end.
pub fn slow(door: &Door, random: &mut Random) -> io::Result<Heard> {
    let mut line = door.open()?;
    let request = REQUESTS[0].as_bytes();
    for byte in &request[..random.below(request.len())] {
        line.write_all(&[*byte])?;
        // It is the point that time passes.
        thread::sleep(Duration::from_millis(random.between(1, 40) as u64));
    }
    Ok(listen(&mut *line, Duration::from_millis(random.below(HELD) as u64)))
}

/// A sound request, whose answer nobody reads for a while.
pub fn unread(door: &Door, random: &mut Random) -> io::Result<Heard> {
    let mut line = door.open()?;
    line.write_all(REQUESTS[0].as_bytes())?;
    thread::sleep(Duration::from_millis(random.below(HELD) as u64));
    Ok(listen(&mut *line, ANSWER))
}

/// Lines for a join channel: changed requests for a secret, and ones without an end.
pub fn secrets(door: &Door, machine_uuid: &str, random: &mut Random) -> io::Result<Heard> {
    let mut bytes = Vec::new();
    for sequence in 0..random.between(1, 4) {
        let line = format!(
            "{{\"version\":1,\"boot_id\":\"boot\",\"machine_uuid\":\"{machine_uuid}\",\"sequence\":{sequence}}}\n"
        );
        let mut line = match random.below(4) {
            0 => "[".repeat(random.between(1, MOST)).into_bytes(),
            _ => line.into_bytes(),
        };
        if !random.once_in(4) {
            mutate(random, &mut line, MOST);
        }
        bytes.extend(line);
    }
    say(door, &bytes)
}

fn say(door: &Door, bytes: &[u8]) -> io::Result<Heard> {
    let mut line = door.open()?;
    // Whoever has enough may say so before all is sent.
    let said = line.write_all(bytes);
    let mut heard = listen(&mut *line, ANSWER);
    heard.closed = heard.closed.max(usize::from(said.is_err()));
    Ok(heard)
}
