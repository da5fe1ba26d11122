//! Copies of borrowed arguments, for runs in the background: `own(..)`.

use std::borrow::Borrow;

/// The type of a borrowed argument of which a run in the background gets a copy.
pub trait OwnedCopy {
    /// The copy.
    type Owned;

    /// Returns a copy.
    fn owned_copy(&self) -> Self::Owned;

    /// Returns the argument for a run that has the copy.
    fn lend(owned: &Self::Owned) -> &Self;
}

impl<T: ToOwned + ?Sized> OwnedCopy for T {
    type Owned = T::Owned;

    #[inline]
    fn owned_copy(&self) -> T::Owned {
        self.to_owned()
    }

    #[inline]
    fn lend(owned: &T::Owned) -> &T {
        owned.borrow()
    }
}
