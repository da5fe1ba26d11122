//! Encoded arguments, where they are encoded.

use std::cmp::Ordering;
use std::ops::Deref;

/// Bytes that are written one after the other. The first few need no heap.
///
/// A short one is written where it lies and never read back meanwhile: on its way from one place to
/// another a processor would wait for the bytes that it has just written one by one.
#[derive(Clone)]
pub(crate) struct Material {
    length: usize,
    short: [u8; SHORT],
    /// All of them, once there are more than [`SHORT`].
    long: Vec<u8>,
}

const SHORT: usize = 48;

impl Material {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { length: 0, short: [0; SHORT], long: Vec::new() }
    }

    #[inline]
    pub(crate) fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    #[inline]
    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        match self.short.get_mut(self.length..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(place) => place.copy_from_slice(bytes),
            None => self.extend_long(bytes),
        }
        self.length += bytes.len();
    }

    /// The first few bytes. Where there are less of them, zeros follow.
    #[inline]
    pub(super) fn first_chunk_and_zeros<const N: usize>(&self) -> &[u8; N] {
        const { assert!(N <= SHORT) };
        self.short.first_chunk().expect("it is shorter")
    }

    #[cold]
    fn extend_long(&mut self, bytes: &[u8]) {
        if self.length <= SHORT {
            self.long.extend_from_slice(&self.short[..self.length]);
        }
        self.long.extend_from_slice(bytes);
    }
}

impl Deref for Material {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.short.get(..self.length).unwrap_or(&self.long)
    }
}

impl PartialEq for Material {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Material {}

impl PartialOrd for Material {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Material {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(other)
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn material_is_what_was_written(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        ) {
            let mut material = Material::new();
            for part in &parts {
                material.extend_from_slice(part);
            }
            prop_assert_eq!(material.to_vec(), parts.concat());
        }
    }
}
