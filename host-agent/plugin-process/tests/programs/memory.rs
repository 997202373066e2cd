fn behave() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![0_u8; 64 << 20]);
    }
}
