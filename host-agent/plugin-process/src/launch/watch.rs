//! Looks at a plugin process while it runs: how much memory it has, how much it has said on standard error, and the time.
//! The first of these that is too much is told to [`super::Launcher`], which ends it. Decides nothing about what it answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, MissedTickBehavior};

use super::Ceilings;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How much of the end of a plugin's standard error is kept, in bytes.
const TAIL_LIMIT: usize = 8 * 1024;
/// Lines of it that are logged; the rest is only kept as the tail.
const LOGGED_LINES: usize = 200;
/// In bytes. Plugins run on x86-64 only, which has no other.
const PAGE: u64 = 4096;

/// Why a process is ended before it has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// It has had its time.
    Time,
    /// It has so many bytes resident.
    Memory(u64),
    /// It has said so many bytes.
    Output(usize),
}

/// What a process has said on standard error so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    bytes: AtomicUsize,
    tail: Mutex<Vec<u8>>,
}

impl Heard {
    /// Reads to the end, or until it is more than `most` bytes: from then on the process waits for its reader. Logs the
    /// first lines and keeps the last bytes.
    pub(super) async fn listen(&self, plugin: &str, mut stderr: impl AsyncRead + Unpin, most: usize) {
        let (mut chunk, mut logged) = ([0; 4096], 0);
        while self.bytes.load(Ordering::Relaxed) <= most {
            let read = stderr.read(&mut chunk).await.unwrap_or_default();
            if read == 0 {
                break;
            }
            let said = &chunk[..read];
            for line in String::from_utf8_lossy(said).lines() {
                if logged < LOGGED_LINES {
                    tracing::info!(plugin.name = plugin, plugin.stderr = %visible(line), "a plugin said something");
                    logged += 1;
                }
            }
            self.bytes.fetch_add(read, Ordering::Relaxed);
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            tail.extend_from_slice(said);
            let excess = tail.len().saturating_sub(TAIL_LIMIT);
            tail.drain(..excess);
        }
    }

    /// The end of it, with control characters made visible.
    pub(super) fn tail(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail).lines().map(visible).collect::<Vec<_>>().join("\n")
    }
}

fn visible(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Ends with the first thing that is too much.
pub(super) async fn watch(pid: u32, heard: &Heard, ceilings: Ceilings, deadline: Instant) -> Excess {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let said = heard.bytes.load(Ordering::Relaxed);
        if said > ceilings.stderr_bytes {
            return Excess::Output(said);
        }
        if let Some(bytes) = resident(pid).filter(|bytes| *bytes > ceilings.memory_bytes) {
            return Excess::Memory(bytes);
        }
        if Instant::now() >= deadline {
            return Excess::Time;
        }
    }
}

/// `None`: it has ended.
fn resident(pid: u32) -> Option<u64> {
    resident_of(&std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?)
}

/// Of a line of `/proc/PID/statm`, in bytes.
fn resident_of(statm: &str) -> Option<u64> {
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE)
}

/// Whether a program that ended says that it got no memory, as the runtimes of Rust, Go and C++ do.
pub(super) fn tells_of_memory(tail: &str) -> bool {
    const WORDS: [&str; 4] =
        ["memory allocation of ", "out of memory", "cannot allocate memory", "std::bad_alloc"];
    tail.lines().any(|line| {
        let line = line.to_ascii_lowercase();
        WORDS.iter().any(|words| line.contains(words))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(memory_bytes: u64, stderr_bytes: usize) -> Ceilings {
        Ceilings { memory_bytes, stderr_bytes }
    }

    #[tokio::test]
    async fn the_first_that_is_too_much_is_told() {
        let (us, heard) = (std::process::id(), Heard::default());
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        assert_eq!(watch(us, &heard, ceilings(u64::MAX, 10), now).await, Excess::Time);
        let told = watch(us, &heard, ceilings(1, 10), later).await;
        assert!(matches!(told, Excess::Memory(bytes) if bytes > 1), "{told:?}");
        heard.listen("p", &[b'x'; 100][..], 10).await;
        assert_eq!(watch(us, &heard, ceilings(u64::MAX, 10), later).await, Excess::Output(100));
    }

    #[tokio::test]
    async fn only_the_end_is_kept_and_control_characters_are_seen() {
        let heard = Heard::default();
        let text = format!("{}\n\u{1b}[31mred", "x".repeat(3 * TAIL_LIMIT));
        heard.listen("p", text.as_bytes(), usize::MAX).await;
        let tail = heard.tail();
        assert!(tail.len() < TAIL_LIMIT + 10 && tail.ends_with("\n\u{fffd}[31mred"), "{}", tail.len());
    }

    #[tokio::test]
    async fn nothing_is_read_beyond_what_may_be_said() {
        let heard = Heard::default();
        let (reader, mut writer) = tokio::io::simplex(1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut writer, &vec![b'x'; 1 << 20]).await.expect("it has room");
        heard.listen("p", reader, 10_000).await;
        let said = heard.bytes.load(Ordering::Relaxed);
        assert!((10_001..20_000).contains(&said), "{said}");
    }

    #[test]
    fn memory_is_counted_in_pages() {
        assert_eq!(resident_of("5000 250 100 1 0 900 0\n"), Some(250 * 4096));
        assert_eq!(resident_of(""), None);
    }

    #[test]
    fn runtimes_say_that_they_got_no_memory() {
        for said in [
            "memory allocation of 67108864 bytes failed",
            "fatal error: runtime: out of memory",
            "runtime: cannot allocate memory",
            "terminate called after throwing an instance of 'std::bad_alloc'",
        ] {
            assert!(tells_of_memory(&format!("before\n{said}\nafter")), "{said}");
        }
        assert!(!tells_of_memory("thread 'main' panicked at src/main.rs:3:5: no such pool"));
    }
}
