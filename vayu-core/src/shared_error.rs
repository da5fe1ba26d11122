//! Errors of functions that several callers get.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::panic::QuietDrop;

/// An error of a function, of any type, of which each caller gets a clone.
#[derive(Clone)]
pub struct SharedError(QuietDrop<Arc<dyn Any + Send + Sync>>);

impl SharedError {
    /// Creates it from a clone of an error.
    pub(crate) fn new<E: Clone + Send + Sync + 'static>(error: &E) -> Self {
        let error: Arc<dyn Any + Send + Sync> = Arc::new(error.clone());
        Self(error.into())
    }

    /// Returns a clone of the error, if it is of this type.
    pub(crate) fn to_error<E: Clone + 'static>(&self) -> Option<E> {
        self.get().cloned()
    }

    /// Returns the error, if it is of this type.
    pub(crate) fn get<E: 'static>(&self) -> Option<&E> {
        self.0.get()?.downcast_ref()
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedError").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_returned_in_its_own_type_only() {
        let error = SharedError::new(&"failed".to_owned());
        assert_eq!(error.to_error::<String>().as_deref(), Some("failed"));
        assert_eq!(error.clone().to_error::<u8>(), None);
    }

    #[test]
    fn destructor_that_panics_does_not_reach_the_last_caller() {
        #[derive(Clone)]
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("planned panic of a destructor");
            }
        }
        let bomb = std::mem::ManuallyDrop::new(Bomb);
        drop(SharedError::new(&*bomb));
    }
}
