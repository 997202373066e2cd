fn behave() {
    let line = format!("{}\u{1b}[31mred\n", "x".repeat(4000));
    loop {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
