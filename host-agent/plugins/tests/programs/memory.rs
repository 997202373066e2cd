fn behave() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1_u8; 64 << 20]);
    }
}
