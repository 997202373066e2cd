/// `getppid` by its number in another interface of the same processor, which rules that know numbers only do not know.
fn behave() {
    report("x32", call(0x4000_0000 + 110, [0; 5]));
}
