fn behave() {
    probes();
    std::process::exit(7);
}
