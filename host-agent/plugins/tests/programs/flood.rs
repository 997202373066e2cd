fn behave() {
    let line = format!("{}\u{1b}[31mred\n", "x".repeat(4000));
    for _ in 0..5000 {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    std::process::abort();
}
