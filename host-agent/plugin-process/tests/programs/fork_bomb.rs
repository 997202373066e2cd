/// Processes without end, and then as many threads as an honest program may have.
fn behave() {
    for number in [57, 56] {
        for _ in 0..1000 {
            if call(number, [17, 0, 0, 0, 0]).is_ok() {
                eprintln!("one more process");
            }
        }
    }
    let wait = || -> () {
        loop {
            std::thread::park();
        }
    };
    let begin = |_: &i32| std::thread::Builder::new().stack_size(64 << 10).spawn(wait).is_ok();
    let threads = (0..100).take_while(begin).count();
    eprintln!("threads: {threads}");
    std::process::exit(9);
}
