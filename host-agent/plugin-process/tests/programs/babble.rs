fn behave() {
    use std::os::fd::FromRawFd;
    let mut socket = unsafe { UnixStream::from_raw_fd(3) };
    for _ in 0..1000 {
        if socket.write_all(&[b'!'; 4096]).is_err() {
            break;
        }
    }
    loop {
        std::thread::park();
    }
}
