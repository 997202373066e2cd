//! What happens to the lab's host: programs that end, a link that is cut, a file system without room; and what programs
//! hold.
//!
//! The lab is a network, process and mount namespace of its own: `/proc` has its processes only, and nothing of this is
//! seen outside. What is cut or laid over something comes off when its guard is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::Lab;

const MINUTE: Duration = Duration::from_secs(60);
/// Room of a small disk that is not full, in bytes.
const ROOM: u64 = 3 << 30;

impl Lab {
    /// Processes of this program, by the name of its file.
    pub fn processes(&self, program: &str) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that has just ended has none any more.
            let file = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            if file.file_name().is_some_and(|name| name == program) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// Sends a signal, `KILL`, to a process.
    pub fn signal(&self, pid: u32, signal: &str) -> Result<()> {
        self.run("sh", &["-c", &format!("kill -s {signal} {pid}")], MINUTE).map(drop)
    }

    /// The one libvirtd.
    pub fn libvirtd(&self) -> Result<u32> {
        let found = self.processes("libvirtd")?;
        ensure!(found.len() == 1, "libvirtd runs {} times: {found:?}", found.len());
        Ok(found[0])
    }

    /// Ends libvirtd as a restart of its unit would: VMs go on. Whoever needs it starts it again.
    pub fn end_libvirtd(&self) -> Result<()> {
        let pid = self.libvirtd()?;
        self.signal(pid, "TERM")?;
        crate::wait_until("libvirtd ends", MINUTE, || Ok(!self.processes("libvirtd")?.contains(&pid)))
    }

    /// From now on nothing passes between the host and this address, and nobody is told so.
    pub fn cut_link(&self, ip: &str) -> Result<Cut> {
        let mut cut = Cut { lab: self.clone(), ip: ip.to_owned(), rules: Vec::new() };
        for (chain, which) in [("INPUT", "-s"), ("OUTPUT", "-d")] {
            let rule = [chain, which, ip, "-j", "DROP"];
            self.run("iptables", &[&["-w", "30", "-I"][..], &rule].concat(), MINUTE)?;
            cut.rules.push(rule.map(str::to_owned).to_vec());
        }
        Ok(cut)
    }
}

/// A link that is cut, see [`Lab::cut_link`].
#[derive(Debug)]
pub struct Cut {
    lab: Lab,
    ip: String,
    rules: Vec<Vec<String>>,
}

impl Cut {
    /// Everything passes again.
    pub fn mend(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        while let Some(rule) = self.rules.pop() {
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            let args = [&["-w", "30", "-D"][..], &rule].concat();
            self.lab.run("iptables", &args, MINUTE).with_context(|| format!("{} stays cut off", self.ip))?;
        }
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            println!("lab: {error:#}");
        }
    }
}

/// A file or a folder on a file system of its own, in memory, whose size is the test's to say. It lies over the one on
/// the disk, which stays as it was.
#[derive(Debug)]
pub struct SmallDisk {
    lab: Lab,
    dir: PathBuf,
    over: PathBuf,
    is_laid: bool,
}

impl SmallDisk {
    /// Lays a copy of what is there over this path.
    pub fn over(lab: &Lab, path: &Path) -> Result<Self> {
        let dir = lab.file("small");
        fs::create_dir_all(&dir)?;
        let mut small = Self { lab: lab.clone(), dir, over: path.to_owned(), is_laid: false };
        let size = format!("size={ROOM},mode=755");
        lab.run("mount", &["-t", "tmpfs", "-o", &size, "lab-small", &text(&small.dir)], MINUTE)?;
        small.is_laid = true;
        let copy = small.dir.join("copy");
        lab.run("cp", &["-a", "--sparse=always", &text(path), &text(&copy)], 5 * MINUTE)?;
        lab.run("mount", &["--bind", &text(&copy), &text(path)], MINUTE)?;
        Ok(small)
    }

    /// Leaves only so many bytes of it.
    pub fn fill(&self, left: u64) -> Result<()> {
        // What is written between the two looks is more than there would be room for, and then nothing is changed.
        crate::wait_until("there is no more room than that", MINUTE, || {
            let used = self.lab.run("df", &["--block-size=1", "--output=used", &text(&self.dir)], MINUTE)?;
            let used: u64 = used.lines().last().unwrap_or_default().trim().parse().context("df")?;
            self.resize(used + left).map(|()| true)
        })
    }

    /// Gives it room again.
    pub fn make_room(&self) -> Result<()> {
        self.resize(ROOM)
    }

    fn resize(&self, bytes: u64) -> Result<()> {
        let size = format!("remount,size={bytes}");
        self.lab.run("mount", &["-o", &size, &text(&self.dir)], MINUTE).map(drop)
    }

    /// Takes it off and writes a folder that has changed back to the disk. Nobody may have a file of it open.
    pub fn write_back(mut self) -> Result<()> {
        self.lab.run("umount", &[&text(&self.over)], MINUTE)?;
        let script = r#"find "$1" -mindepth 1 -delete && cp -a "$2"/. "$1"/"#;
        let (to, from) = (text(&self.over), text(&self.dir.join("copy")));
        self.lab.run("sh", &["-c", script, "sh", &to, &from], 5 * MINUTE)?;
        self.is_laid = false;
        self.lab.run("umount", &[&text(&self.dir)], MINUTE).map(drop)
    }

    /// Takes it off. Who has it open keeps it, and to everybody else it is as it was before.
    pub fn forget(mut self) -> Result<()> {
        self.is_laid = false;
        self.lab.run("umount", &["--lazy", &text(&self.over)], MINUTE)?;
        self.lab.run("umount", &["--lazy", &text(&self.dir)], MINUTE).map(drop)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.is_laid {
            // Only one of them may be mounted by now.
            for path in [&self.over, &self.dir] {
                let _ = self.lab.try_run("umount", &["--lazy", &text(path)], MINUTE);
            }
        }
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Open file descriptors.
    pub files: u64,
    /// Threads.
    pub threads: u64,
    /// Resident memory, in KiB.
    pub memory_kib: u64,
}

impl Held {
    /// By a process of the host.
    pub fn by(pid: u32) -> Result<Self> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let files = fs::read_dir(dir.join("fd")).with_context(|| format!("process {pid}"))?.count();
        Self::parse(&format!("{files}\n{}", fs::read_to_string(dir.join("status"))?))
    }

    /// A shell command that prints the same of a process, for [`Self::parse`]; `pid` is a shell's word.
    pub fn command(pid: &str) -> String {
        format!("p={pid}; ls /proc/$p/fd | wc -l; cat /proc/$p/status")
    }

    /// The number of files on the first line, and what `/proc/PID/status` has.
    pub fn parse(text: &str) -> Result<Self> {
        let (files, status) = text.split_once('\n').context("two parts")?;
        let number = |key: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(key));
            let value = value.with_context(|| key.to_owned())?;
            value.trim().trim_end_matches(" kB").parse().with_context(|| format!("{key}{value}"))
        };
        Ok(Self {
            files: files.trim().parse().with_context(|| files.to_owned())?,
            threads: number("Threads:")?,
            memory_kib: number("VmRSS:")?,
        })
    }

    /// Whether something was held back since `before`, and what; a little more or less is no leak.
    pub fn leaked_since(self, before: Self, memory_kib: u64) -> Option<String> {
        let is_more = self.files > before.files + 16
            || self.threads > before.threads + 16
            || self.memory_kib > before.memory_kib + memory_kib;
        is_more.then(|| format!("before {before:?}, after {self:?}"))
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_holds_is_read() {
        let status = "12\nName:\tk8s-node-agent\nVmRSS:\t   10240 kB\nThreads:\t4\n";
        let held = Held { files: 12, threads: 4, memory_kib: 10240 };
        assert_eq!(Held::parse(status).expect("it is whole"), held);
        Held::parse("12\nName:\tx\n").expect_err("nothing of memory");
        assert!(Held::by(std::process::id()).expect("this one").files > 2);
    }

    #[test]
    fn a_little_more_is_no_leak() {
        let before = Held { files: 12, threads: 4, memory_kib: 10240 };
        assert_eq!(Held { files: 28, ..before }.leaked_since(before, 1024), None);
        assert!(Held { files: 29, ..before }.leaked_since(before, 1024).is_some());
        let told = Held { memory_kib: 11265, ..before }.leaked_since(before, 1024).expect("it is one");
        assert!(told.contains("11265") && told.contains("10240"), "{told}");
    }
}
