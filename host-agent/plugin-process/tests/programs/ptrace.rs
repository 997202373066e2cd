fn behave() {
    let parent = c_long::from(std::os::unix::process::parent_id());
    report("ptrace", call(101, [16, parent, 0, 0, 0]));
}
