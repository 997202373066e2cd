//! HTTP/2 as bytes: frames, header blocks without compression, messages of gRPC. Whether any of it is allowed is not
//! looked at. Pure.

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// Of SETTINGS and PING.
pub const ACK: u8 = 1;
/// Of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// Largest payload that a server of ours takes.
pub const PAYLOAD: usize = 16 * 1024;
/// Bytes before a payload.
const HEAD: usize = 9;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    claiming(payload.len(), kind, flags, stream, payload)
}

/// A frame that says it had so many bytes.
pub fn claiming(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (length as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One setting.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// More to send, for a stream, or with 0 for all of them.
pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// A field of a header block, by its name, and not to be remembered.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    text(&mut block, name.as_bytes());
    text(&mut block, value.as_bytes());
    block
}

/// The header block of a call.
pub fn request(path: &str) -> Vec<u8> {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "host-agent"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    .iter()
    .flat_map(|(name, value)| field(name, value))
    .collect()
}

/// A small block that means a large list: a value that is to be remembered, and then named so many times.
pub fn bomb(value: usize, times: usize) -> Vec<u8> {
    let mut block = vec![0x40];
    text(&mut block, b"x-bomb");
    text(&mut block, &vec![b'b'; value]);
    // The first of the remembered ones.
    block.extend(std::iter::repeat_n(0xbe, times));
    block
}

/// A message of gRPC.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    [&message_claiming(bytes.len() as u32)[..], bytes].concat()
}

/// The begin of a message that is to be so long.
pub fn message_claiming(length: u32) -> [u8; 5] {
    let [a, b, c, d] = length.to_be_bytes();
    [0, a, b, c, d]
}

/// A length, and a text without Huffman's code.
fn text(block: &mut Vec<u8>, text: &[u8]) {
    let length = text.len();
    if length < 0x7f {
        block.push(length as u8);
    } else {
        block.push(0x7f);
        let mut rest = length - 0x7f;
        while rest >= 0x80 {
            block.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text);
}

/// A frame that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// Takes the first frame of what was read, once it is whole.
pub fn take(read: &mut Vec<u8>) -> Option<Frame> {
    let head: [u8; HEAD] = read.get(..HEAD)?.try_into().ok()?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    let payload = read.get(HEAD..HEAD + length)?.to_vec();
    read.drain(..HEAD + length);
    Some(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_however_it_comes() {
        let bytes =
            [frame(PING, ACK, 0, &[7; 8]), window_update(5, 9), frame(DATA, END_STREAM, 3, &[])].concat();
        let (mut read, mut found) = (Vec::new(), Vec::new());
        for byte in bytes {
            read.push(byte);
            found.extend(take(&mut read));
        }
        let heads: Vec<_> = found.iter().map(|it| (it.kind, it.flags, it.stream, it.payload.len())).collect();
        assert_eq!(heads, [(PING, ACK, 0, 8), (WINDOW_UPDATE, 0, 5, 4), (DATA, END_STREAM, 3, 0)]);
        assert!(read.is_empty());
    }

    #[test]
    fn lengths_are_written_as_the_papers_say() {
        assert_eq!(field("te", "x"), [0, 2, b't', b'e', 1, b'x']);
        let mut long = Vec::new();
        // The example of RFC 7541, C.1.2, with a prefix of seven bits.
        text(&mut long, &[b'a'; 1_337]);
        assert_eq!(long[..3], [0x7f, 0xba, 0x09]);
        assert_eq!(message(&[1, 2]), [0, 0, 0, 0, 2, 1, 2]);
        assert_eq!(claiming(0x0001_0203, DATA, 0, 1, &[]), [1, 2, 3, 0, 0, 0, 0, 0, 1]);
    }
}
