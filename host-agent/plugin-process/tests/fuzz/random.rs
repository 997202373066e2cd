//! Numbers that a seed gives, and sound bytes made unsound by them. Pure.

/// SplitMix64: whatever is built from it stays the same with every release of every library.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

/// Changes of one input.
const CHANGES: usize = 6;
/// Bytes that are put in, or said twice, at once.
const PIECE: usize = 64;
/// What lies at the bounds of lengths, tags and numbers, and what parsers of text look for.
const BOUNDS: [&[u8]; 18] = [
    &[0],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    b"\n---\n",
    b"*a ",
    b"&a ",
    b"!!binary ",
    b": |\n  ",
    b"{}",
    b"[[[[[[[[",
    b"\"",
    b"/",
    b"../",
    b"null",
    b"1e999",
];

impl Random {
    /// Of one input: its target and its number.
    pub fn of(seed: u64, target: &str, number: u64) -> Self {
        let mut random = Self(seed);
        for part in target.bytes().map(u64::from).chain([number]) {
            random.0 ^= part;
            random.0 = random.draw();
        }
        random
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one; 0 of 0.
    pub fn below(&mut self, count: usize) -> usize {
        if count == 0 { 0 } else { (self.draw() % count as u64) as usize }
    }

    /// Changes these bytes, a little, and makes no more than so many of them.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>, most: usize) {
        for _ in 0..=self.below(CHANGES) {
            self.change(bytes);
        }
        bytes.truncate(most);
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let end = (at + 1 + self.below(PIECE)).min(bytes.len());
        match self.below(7) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            1 => {
                let bound = BOUNDS[self.below(BOUNDS.len())];
                for (byte, value) in bytes.iter_mut().skip(at).zip(bound) {
                    *byte = *value;
                }
            }
            2 => {
                let bound = BOUNDS[self.below(BOUNDS.len())].to_vec();
                drop(bytes.splice(at..at, bound));
            }
            3 => {
                let new: Vec<u8> = (0..=self.below(PIECE)).map(|_| self.draw() as u8).collect();
                drop(bytes.splice(at..at, new));
            }
            4 => {
                bytes.drain(at..end);
            }
            5 => {
                let again = bytes[at..end].to_vec();
                let times = 1 + self.below(PIECE);
                drop(bytes.splice(end..end, again.repeat(times)));
            }
            _ => bytes.truncate(end),
        }
    }
}
