fn behave() {
    eprintln!("hanging");
    loop {
        std::thread::park();
    }
}
