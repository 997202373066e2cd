/// Speaks just enough HTTP/2 to be asked, and describes a config that takes 2³⁰ steps to check.
fn behave() {
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
            let message = match answered {
                0 => greeting(&request),
                1 => description(),
                _ => Vec::new(),
            };
            answered += 1;
            request.clear();
            let mut data = vec![0];
            data.extend((message.len() as u32).to_be_bytes());
            data.extend(message);
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
fn description() -> Vec<u8> {
    let twice = |step: usize| {
        let next = format!(r##"{{"$ref":"#/$defs/d{}"}}"##, step + 1);
        format!(r#""d{step}":{{"allOf":[{next},{next}]}}"#)
    };
    let definitions: Vec<_> = (0..30).map(twice).collect();
    let schema = format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d30":{{}}}}}}"##, definitions.join(","));
    let mut message = Vec::new();
    for (field, text) in [(1, "hostile"), (2, "0.1.0"), (3, "Misbehaves"), (4, schema.as_str())] {
        message.push(field << 3 | 2);
        let mut left = text.len();
        while left > 127 {
            message.push(left as u8 | 128);
            left >>= 7;
        }
        message.push(left as u8);
        message.extend(text.as_bytes());
    }
    message
}
