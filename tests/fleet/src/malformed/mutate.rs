//! Sound bytes made unsound: a few changes, each of a kind that parsers get wrong. Pure.

use super::random::Random;

/// Changes of one piece.
const CHANGES: usize = 6;
/// Bytes that are put in, or said twice, at once.
const PIECE: usize = 64;
/// What lies at the bounds of lengths, tags and numbers.
const BOUNDS: [&[u8]; 10] = [
    &[0],
    &[1],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0],
];

/// Changes these bytes, of which there are at most so many afterwards.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, most: usize) {
    for _ in 0..random.between(1, CHANGES) {
        change(random, bytes);
    }
    bytes.truncate(most);
}

fn change(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len());
    let end = (at + random.between(1, PIECE)).min(bytes.len());
    match random.below(8) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            let value = random.draw() as u8;
            bytes.get_mut(at).into_iter().for_each(|byte| *byte = value);
        }
        2 => {
            let bound = random.pick(&BOUNDS);
            for (byte, value) in bytes.iter_mut().skip(at).zip(bound.iter()) {
                *byte = *value;
            }
        }
        3 => {
            let bound = random.pick(&BOUNDS).to_vec();
            drop(bytes.splice(at..at, bound));
        }
        4 => {
            let count = random.between(1, PIECE);
            let new = random.bytes(count);
            drop(bytes.splice(at..at, new));
        }
        5 => {
            bytes.drain(at..end);
        }
        6 => {
            let again = bytes[at..end].to_vec();
            drop(bytes.splice(end..end, again));
        }
        _ => bytes.truncate(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_are_changed_always_in_the_same_way_and_none_grows_without_end() {
        let sound: Vec<u8> = (0..200).collect();
        let mut changed = 0;
        for number in 0..1_000 {
            let made = || {
                let (mut random, mut bytes) = (Random::of(7, "mutate", 0, number), sound.clone());
                mutate(&mut random, &mut bytes, 256);
                bytes
            };
            assert_eq!(made(), made());
            assert!(made().len() <= 256);
            changed += usize::from(made() != sound);
        }
        assert!(changed > 950, "{changed} of 1000");
    }

    #[test]
    fn nothing_can_be_changed_as_well() {
        for number in 0..200 {
            let mut bytes = Vec::new();
            mutate(&mut Random::of(7, "nothing", 0, number), &mut bytes, 1_000);
            assert!(bytes.len() <= CHANGES * 2 * PIECE, "{} bytes", bytes.len());
        }
    }
}
