//! What the kernel says of a process: whether it is stopped, and whether it has done anything. From `/proc`.

use std::time::Duration;

/// What `/proc/PID/stat` counts in. 100 on every Linux that there is: it is part of the kernel's interface.
const TICKS_PER_SECOND: u64 = 100;

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// It was stopped by a signal, and does nothing until it is continued.
    pub is_stopped: bool,
    /// Processor time so far, of all its threads, in hundredths of a second.
    pub ticks: u64,
    /// How long it has been there.
    pub age: Duration,
}

/// Looks at a process. `None` means: there is none of this id.
pub fn look(pid: u32) -> Option<Work> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let booted = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    parse(&stat, Duration::try_from(booted).ok()?)
}

/// `1234 (name) S …`; the name may have anything in it.
fn parse(stat: &str, since_boot: Duration) -> Option<Work> {
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    let state = words.next()?;
    // Behind the state: utime and stime are the 11th and 12th, starttime is the 19th.
    let mut numbers = words.skip(10).map(|word| word.parse::<u64>().ok());
    let (user, system) = (numbers.next()??, numbers.next()??);
    let started = numbers.nth(6)??;
    let started = Duration::from_millis(started * 1000 / TICKS_PER_SECOND);
    Some(Work {
        is_stopped: state == "T",
        ticks: user + system,
        age: since_boot.checked_sub(started).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let line =
            "812 (a ) b) T 1 812 812 0 -1 4194560 7000 0 12 0 250 31 0 0 20 0 14 0 4200 1900000000 9000\n";
        let work = parse(line, Duration::from_secs(60)).expect("read");
        assert_eq!(work, Work { is_stopped: true, ticks: 281, age: Duration::from_secs(18) });
        assert_eq!(parse("812 (x", Duration::ZERO), None);
    }

    #[test]
    fn this_process_runs_and_no_process_has_the_id_0() {
        let work = look(std::process::id()).expect("there");
        assert!(!work.is_stopped && work.age < Duration::from_secs(3600), "{work:?}");
        assert_eq!(look(0), None);
    }
}
