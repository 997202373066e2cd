//! The header of a qcow2 file: what libvirt tells of a volume, read from files that it does not list. Called by
//! `observe`; decides nothing.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

const MAGIC: &[u8] = b"QFI\xfb";
/// By the format.
const LONGEST_BACKING: u64 = 1023;

/// What we want to know of a disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Size of the disk in the VM, in bytes.
    pub capacity: u64,
    /// The backing file, as it is written.
    pub backing: Option<PathBuf>,
}

/// The header at the start of `file`; `None` where it is no qcow2.
pub(super) fn read_header(file: &mut (impl Read + Seek)) -> io::Result<Option<Header>> {
    let mut head = [0; 32];
    match file.read_exact(&mut head) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u64, byte| (number << 8) | u64::from(*byte));
    let (offset, length) = (number(&head[8..16]), number(&head[16..20]));
    if &head[..4] != MAGIC || length > LONGEST_BACKING {
        return Ok(None);
    }
    let mut backing = None;
    if offset != 0 && length != 0 {
        let mut path = Vec::new();
        file.seek(SeekFrom::Start(offset))?;
        file.by_ref().take(length).read_to_end(&mut path)?;
        backing = Some(PathBuf::from(OsString::from_vec(path)));
    }
    Ok(Some(Header { capacity: number(&head[24..32]), backing }))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A header of version 3 with a name behind it.
    fn file(offset: u64, length: u32, size: u64, backing: &str) -> Vec<u8> {
        let mut bytes = [MAGIC, &3_u32.to_be_bytes()].concat();
        bytes.extend(offset.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(16_u32.to_be_bytes());
        bytes.extend(size.to_be_bytes());
        bytes.resize(104, 0);
        bytes.extend(backing.bytes());
        bytes
    }

    fn read(bytes: impl AsRef<[u8]>) -> Option<Header> {
        read_header(&mut Cursor::new(bytes)).expect("memory can be read")
    }

    #[test]
    fn size_and_backing_file_are_where_the_format_has_them() {
        let base = "/pool/base-0123456789abcdef.qcow2";
        let seen = read(file(104, base.len() as u32, 30 << 30, base));
        assert_eq!(seen, Some(Header { capacity: 30 << 30, backing: Some(base.into()) }));
        let alone = Some(Header { capacity: 5 << 40, backing: None });
        assert_eq!(read(file(0, 0, 5 << 40, "")), alone);
        assert_eq!(read(file(104, 0, 5 << 40, "x")), alone);
    }

    #[test]
    fn what_is_no_qcow2_has_no_header() {
        for bytes in [&b""[..], b"disk", b"QFI\xfb", &[0; 4096]] {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
        assert_eq!(read(file(104, 1024, 1 << 30, "/pool/base")), None, "no name is that long");
    }
}
