//! What ends the dashboard when its terminal is gone and the rest of it does not notice: crossterm 0.29 reads a terminal
//! that was closed for ever, in whichever thread comes to it first, and that may be the one that would hear of the hangup
//! (crossterm's issue 793).

use std::io::{self, stdout};
use std::os::fd::AsFd;
use std::process;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::exit::Exit;

/// How long everything else has to end by itself.
const GRACE: Duration = Duration::from_secs(1);

/// Watches the terminal in a thread of its own, until the process ends.
pub fn watch() -> io::Result<()> {
    let watch = || {
        if until_gone(stdout().as_fd()).is_ok() {
            thread::sleep(GRACE);
            // There is nothing left to give back.
            process::exit(Exit::Interrupted as i32);
        }
    };
    thread::Builder::new().name("terminal-gone".to_owned()).spawn(watch).map(drop)
}

/// Waits until the other side of a terminal is closed.
fn until_gone(terminal: impl AsFd) -> Result<(), Errno> {
    let ends = PollFlags::HUP | PollFlags::ERR;
    loop {
        // What there is to be read is of no interest: an end is always told.
        let mut watched = [PollFd::new(&terminal, PollFlags::empty())];
        match poll(&mut watched, None) {
            Ok(_) if watched[0].revents().intersects(ends) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::os::unix::ffi::OsStrExt as _;
    use std::sync::mpsc;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn a_terminal_is_gone_when_its_other_side_is_closed_and_not_before() {
        let mut ours = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal"));
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it is ours");
        let name = ptsname(&ours, Vec::new()).expect("it has a name");
        let path = std::ffi::OsStr::from_bytes(name.as_bytes());
        let mut theirs = File::options().read(true).write(true).open(path).expect("its other side");
        let (gone, told) = mpsc::channel();
        let watched = theirs.try_clone().expect("the same");
        let watcher = thread::spawn(move || gone.send(until_gone(watched)));
        theirs.write_all(b"a picture").expect("writes");
        ours.read_exact(&mut [0; 9]).expect("reads");
        ours.write_all(b"q\n").expect("a key");
        told.recv_timeout(Duration::from_millis(200)).expect_err("it is there");
        drop(ours);
        told.recv_timeout(Duration::from_secs(60)).expect("it is told").expect("it is watched");
        watcher.join().expect("it ends").expect("somebody listens");
    }
}
