//! Values held in memory as they are.

use std::any::{Any, type_name};
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::{Serializer, SerializerId};

/// The serializer of caches in memory: the value is held once, and a hit is a clone of it.
///
/// It asks nothing of a value but `Clone + Send + Sync + 'static`. Wrap what is dear to clone in
/// an [`Arc`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ByReference;

/// A value of any type, held by reference.
#[derive(Clone)]
pub struct Shared(Arc<dyn Any + Send + Sync>);

impl Shared {
    /// Holds a value.
    pub fn new<T: Send + Sync + 'static>(value: T) -> Self {
        Self(Arc::new(value))
    }

    /// The value, if it is of this type.
    #[inline]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl AsRef<Self> for Shared {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared(..)")
    }
}

impl<T: Clone + Send + Sync + 'static> Serializer<T> for ByReference {
    type Stored = Shared;

    #[inline]
    fn id(&self) -> SerializerId {
        SerializerId::BY_REFERENCE
    }

    /// Zero: the reference itself knows the type of the value.
    #[inline]
    fn schema(&self) -> u64 {
        0
    }

    fn serialize(&self, value: &T) -> Result<Shared> {
        Ok(Shared::new(value.clone()))
    }

    #[inline]
    fn deserialize(&self, stored: &Shared) -> Result<T> {
        match stored.downcast_ref::<T>() {
            Some(value) => Ok(value.clone()),
            None => Err(other_type::<T>()),
        }
    }
}

#[cold]
fn other_type<T>() -> Error {
    Error::new(ErrorKind::Decode, format!("the entry does not hold a `{}`", type_name::<T>()))
}
