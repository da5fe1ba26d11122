//! Traits whose failure is reported once.
//!
//! The compiler takes the only implementation of a trait as the one that is meant, and its bounds as further
//! requirements. If one does not hold, each use of the implementation is an error of its own. Between two
//! implementations it has to choose: if the bounds of neither hold, the trait is not implemented, its associated
//! types are errors that were reported already, and what depends on them is not checked.

/// The implementation with the bounds that are meant.
#[derive(Debug)]
pub struct Chosen;

/// The implementation that is there to be chosen from.
#[derive(Debug)]
pub struct Other;

/// A trait that is never implemented.
pub trait Candidate<T: ?Sized> {}
