/// Memory that no limit of a process counts but the outermost: a mapping that could be shared.
fn behave() {
    const BYTES: usize = 1 << 30;
    unsafe extern "C" {
        fn mmap(at: *mut u8, length: usize, protection: i32, flags: i32, fd: i32, offset: i64) -> *mut u8;
    }
    let memory = unsafe { mmap(std::ptr::null_mut(), BYTES, 3, 0x21, -1, 0) };
    assert!(memory as isize != -1, "no memory");
    for page in (0..BYTES).step_by(4096) {
        unsafe { memory.add(page).write_volatile(1) };
    }
    eprintln!("had all of it");
    loop {
        std::thread::park();
    }
}
