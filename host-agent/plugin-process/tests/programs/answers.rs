/// Speaks just enough HTTP/2 to be asked: shakes hands, and answers the calls behind that, the first of which is number 1,
/// with these messages.
fn serve(answers: impl Fn(usize) -> Vec<Vec<u8>>) {
    use std::io::Read;
    use std::os::fd::FromRawFd;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    let mut socket = unsafe { UnixStream::from_raw_fd(3) };
    let (mut answered, mut request) = (0, Vec::new());
    socket.read_exact(&mut [0; 24]).expect("the preface");
    send(&mut socket, SETTINGS, 0, 0, &[]);
    let mut head = [0; 9];
    while socket.read_exact(&mut head).is_ok() {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        socket.read_exact(&mut payload).expect("a whole frame");
        if kind == DATA {
            request.extend(&payload);
        }
        // The same bit says of settings that they are an answer, and of the others that they are a stream's last.
        let is_last = flags & END_STREAM != 0;
        if kind == SETTINGS && !is_last {
            send(&mut socket, SETTINGS, 1, 0, &[]);
        }
        if kind <= HEADERS && is_last {
            let stream = u32::from_be_bytes(stream);
            let messages = if answered == 0 { vec![greeting(&request)] } else { answers(answered) };
            answered += 1;
            request.clear();
            let mut data = Vec::new();
            for message in messages {
                data.push(0);
                data.extend((message.len() as u32).to_be_bytes());
                data.extend(message);
            }
            send(&mut socket, HEADERS, END_HEADERS, stream, b"\x88\x0f\x10\x10application/grpc");
            send(&mut socket, DATA, 0, stream, &data);
            send(&mut socket, HEADERS, END_HEADERS | END_STREAM, stream, b"\x00\x0bgrpc-status\x010");
        }
    }
}

fn send(socket: &mut UnixStream, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    socket.write_all(&frame).expect("the host agent reads");
}

/// Version 1, and the nonce of the request: its field 3, of 16 bytes.
fn greeting(request: &[u8]) -> Vec<u8> {
    let nonce = request.windows(18).find(|it| it[..2] == [0x1a, 16]).expect("a nonce");
    [&[8, 1][..], nonce].concat()
}

/// Name, version, summary and schema of a `DescribeResponse`.
fn description(schema: &str) -> Vec<u8> {
    let fields = [(1, "hostile"), (2, "0.1.0"), (3, "Misbehaves"), (4, schema)];
    fields.map(|(number, text)| field(number, text.as_bytes())).concat()
}

/// A field that has a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let (mut message, mut left) = (vec![number << 3 | 2], content.len());
    while left > 127 {
        message.push(left as u8 | 128);
        left >>= 7;
    }
    message.push(left as u8);
    message.extend(content);
    message
}
