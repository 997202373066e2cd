fn behave() {
    eprintln!("about to crash");
    std::process::abort();
}
