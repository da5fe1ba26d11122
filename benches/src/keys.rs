//! Sequences of keys, made beforehand and the same in every run.

/// A pseudorandom number generator (xorshift64*, Marsaglia 2003 and Vigna 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number in `0.0..1.0`.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Returns numbers below `count`, uniformly distributed.
pub(crate) fn uniform(count: u64, length: usize, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    (0..length).map(|_| random.next() % count).collect()
}

/// Returns numbers below `count`, the n-th most frequent with a frequency in proportion to 1/n^skew. The
/// ranks are assigned at random.
pub(crate) fn zipf(count: u64, skew: f64, length: usize, seed: u64) -> Vec<u64> {
    let mut names: Vec<_> = (0..count).collect();
    let mut random = Random::new(seed);
    for index in (1..names.len()).rev() {
        names.swap(index, (random.next() % (index as u64 + 1)) as usize);
    }
    let ranks = ranks(count, skew, length, random);
    ranks.map(|rank| names[rank]).collect()
}

/// The same, where the number n has the rank n.
pub(crate) fn zipf_by_rank(count: u64, skew: f64, length: usize, seed: u64) -> Vec<u64> {
    ranks(count, skew, length, Random::new(seed)).map(|rank| rank as u64).collect()
}

fn ranks(count: u64, skew: f64, length: usize, mut random: Random) -> impl Iterator<Item = usize> {
    let mut sums = Vec::with_capacity(count as usize);
    let mut sum = 0.0;
    for rank in 1..=count {
        sum += (rank as f64).powf(-skew);
        sums.push(sum);
    }
    (0..length).map(move |_| {
        let at = random.fraction() * sum;
        sums.partition_point(|&sum| sum < at).min(sums.len() - 1)
    })
}

/// A cyclic iterator over keys, a power of two of them, so that it needs no division.
#[derive(Debug, Clone)]
pub(crate) struct Cycle<'a> {
    keys: &'a [u64],
    at: usize,
}

impl<'a> Cycle<'a> {
    pub(crate) fn new(keys: &'a [u64]) -> Self {
        assert!(keys.len().is_power_of_two(), "a power of two");
        Self { keys, at: 0 }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.at = (self.at + 1) & (self.keys.len() - 1);
        self.keys[self.at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_has_few_frequent_keys() {
        let keys = zipf(1000, 0.9, 100_000, 1);
        let mut counts = vec![0_u32; 1000];
        keys.iter().for_each(|&key| counts[key as usize] += 1);
        counts.sort_unstable_by(|one, other| other.cmp(one));
        let first_ten: u32 = counts[..10].iter().sum();
        assert!((20_000..40_000).contains(&first_ten), "{first_ten}");
        assert_eq!(keys, zipf(1000, 0.9, 100_000, 1), "it is the same in every run");
    }

    #[test]
    fn uniform_has_all_keys() {
        let mut keys = uniform(100, 10_000, 7);
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 100);
    }
}
