//! Values that contain their key, writer and sequence number, and can be verified.

/// The tag of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaggedValue {
    pub(crate) key: usize,
    pub(crate) writer: u64,
    pub(crate) sequence: u64,
}

impl TaggedValue {
    /// Creates the value: up to 20 KiB, and sometimes more than the 64 KiB of a single read.
    pub(crate) fn value(self) -> String {
        let Self { key, writer, sequence } = self;
        let tag = format!("{key} {writer} {sequence} ");
        let mut random = Random::new(sequence ^ writer.rotate_left(32));
        let length = match random.below(16) {
            0 => 64 * 1024 + random.below(40 * 1024),
            _ => random.below(20 * 1024),
        };
        let mut value = tag.repeat(length / tag.len() + 1);
        value.push_str("end");
        value
    }

    /// Verifies a value that was found under this key.
    ///
    /// # Panics
    ///
    /// When it is not complete, or belongs to another key.
    pub(crate) fn of(value: &str, key: usize) -> Self {
        let mut numbers = value.split(' ').map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).expect("a value begins with numbers");
        let found = usize::try_from(next()).expect("the number of a key is small");
        let tag = Self { key: found, writer: next(), sequence: next() };
        assert_eq!(tag.key, key, "the value of another key was served");
        assert!(tag.value() == value, "{tag:?} is not whole: {} bytes", value.len());
        tag
    }
}

/// Pseudorandom numbers, the same in every run.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next_u64() >> 32).expect("32 bits fit") % end
    }
}
