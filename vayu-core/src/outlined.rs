//! Values whose destructor is compiled once.

use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};

/// A value whose destructor is a function that is called.
///
/// The destructors of types are compiled into each codegen unit that may drop them, with those of all their parts. A unit that
/// uses a part of a backend as a trait object is one, too. That of a large value is compiled once if the value is one of these.
///
/// `T::default()` must own nothing: it takes the place of the value, and is not dropped.
#[derive(Debug)]
pub struct Outlined<T: Default>(ManuallyDrop<T>);

impl<T: Default> Outlined<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T: Default> Deref for Outlined<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Default> DerefMut for Outlined<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Default> Drop for Outlined<T> {
    #[inline(never)]
    fn drop(&mut self) {
        drop(ManuallyDrop::into_inner(mem::take(&mut self.0)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn value_is_dropped_once() {
        let value = Arc::new(7);
        let mut outlined = Outlined::new(None);
        *outlined = Some(Arc::clone(&value));
        assert_eq!((outlined.as_deref(), Arc::strong_count(&value)), (Some(&7), 2));
        drop(outlined);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
