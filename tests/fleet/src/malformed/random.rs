//! Numbers that a seed gives. Pure.

/// SplitMix64: whatever is built from it stays the same with every release of every library.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// Of one exchange: its target, the thread that sends it, and its number there.
    pub fn of(seed: u64, target: &str, lane: usize, number: u64) -> Self {
        let mut random = Self(seed);
        let name = target.bytes().map(u64::from);
        for part in name.chain([lane as u64, number]) {
            random.0 ^= part;
            random.draw();
            random.0 = random.mixed();
        }
        random
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.mixed()
    }

    fn mixed(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one; 0 of 0.
    pub fn below(&mut self, count: usize) -> usize {
        let drawn = self.draw();
        match count {
            0 => 0,
            count => (drawn % count as u64) as usize,
        }
    }

    /// A number from one to the other, which is in it.
    pub fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// One time in so many.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of them, which must not be none.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.draw() as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_the_same_again_and_each_is_another() {
        let drawn = |seed, target, lane, number| Random::of(seed, target, lane, number).bytes(32);
        assert_eq!(drawn(1, "metrics", 2, 3), drawn(1, "metrics", 2, 3));
        let all = [
            drawn(1, "metrics", 2, 3),
            drawn(2, "metrics", 2, 3),
            drawn(1, "control", 2, 3),
            drawn(1, "metrics", 3, 2),
            drawn(1, "metrics", 2, 4),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }

    #[test]
    fn numbers_are_within_their_bounds() {
        let mut random = Random::of(1, "", 0, 0);
        let drawn: Vec<usize> = (0..500).map(|_| random.between(3, 7)).collect();
        assert!((3..=7).all(|it| drawn.contains(&it)) && drawn.iter().all(|it| (3..=7).contains(it)));
        assert_eq!((random.below(0), random.between(4, 4)), (0, 4));
    }
}
