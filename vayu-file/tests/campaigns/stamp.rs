//! Values that say for which key, by whom and when they were written, and whether they are whole.

/// What a value says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) key: usize,
    pub(crate) writer: u64,
    pub(crate) sequence: u64,
}

impl Stamp {
    /// The value: up to 20 KiB, and now and then more than the 64 KiB that are read at once.
    pub(crate) fn value(self) -> String {
        let Self { key, writer, sequence } = self;
        let stamp = format!("{key} {writer} {sequence} ");
        let mut dice = Dice::new(sequence ^ writer.rotate_left(32));
        let length = match dice.below(16) {
            0 => 64 * 1024 + dice.below(40 * 1024),
            _ => dice.below(20 * 1024),
        };
        let mut value = stamp.repeat(length / stamp.len() + 1);
        value.push_str("end");
        value
    }

    /// Reads a value that was found under this key.
    ///
    /// # Panics
    ///
    /// When it is not whole, or of another key.
    pub(crate) fn of(value: &str, key: usize) -> Self {
        let mut numbers = value.split(' ').map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).expect("a value begins with numbers");
        let found = usize::try_from(next()).expect("the number of a key is small");
        let stamp = Self { key: found, writer: next(), sequence: next() };
        assert_eq!(stamp.key, key, "the value of another key was served");
        assert!(stamp.value() == value, "{stamp:?} is not whole: {} bytes", value.len());
        stamp
    }
}

/// Numbers that look random and are the same in every run.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() >> 32).expect("32 bits fit") % end
    }
}
