//! The root disk: ext4 on the whole disk, no partitions, grown by each VM to its own size.
//!
//! Called by [`super::store`].

use std::path::Path;

use k8sctl_command::Program;

use super::{ImageError, STEP_DEADLINE, run};

/// Room beyond the files, in MiB: until the VM has grown the file system.
const SLACK_MIB: u64 = 512;

/// Makes a qcow2 of the files in `root`; `id` gives the file system its UUID.
pub(super) async fn make(root: &Path, raw: &Path, qcow2: &Path, id: &str) -> Result<(), ImageError> {
    let used = Program::new("du", STEP_DEADLINE).args(["--summarize", "--block-size=1M"]).arg(root);
    let used = run("measure the root file system", used).await?;
    let used: u64 = used.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(4096);
    let size = used + used / 8 + SLACK_MIB;
    let uuid = uuid_of(id);
    let mke2fs = Program::new("mke2fs", STEP_DEADLINE)
        .args(["-q", "-F", "-t", "ext4", "-L", "k8sroot", "-m", "1", "-b", "4096", "-U", &uuid])
        .arg("-E")
        .arg(format!("lazy_itable_init=1,lazy_journal_init=1,hash_seed={uuid},root_owner=0:0"))
        .arg("-d")
        .args([root, raw])
        .arg(format!("{size}M"))
        .env("SOURCE_DATE_EPOCH", "0");
    run("make the root file system", mke2fs).await?;
    let convert = Program::new("qemu-img", STEP_DEADLINE)
        .args(["convert", "-f", "raw", "-O", "qcow2", "-o", "lazy_refcounts=on"])
        .args([raw, qcow2]);
    run("convert the root disk", convert).await.map(drop)
}

/// A UUID made of an id's 32 hexadecimal digits.
fn uuid_of(id: &str) -> String {
    let part = |from: usize, to: usize| id.get(from..to).unwrap_or("0000");
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_becomes_a_uuid() {
        assert_eq!(uuid_of("00112233445566778899aabbccddeeff"), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
