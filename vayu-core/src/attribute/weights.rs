//! The weights of the values of one function: `weigh = ..`.

use std::any::TypeId;
use std::fmt;
use std::sync::OnceLock;

use crate::call::ttl::forward_retention;
use crate::call::{OutputShape, Retention};
use crate::serializer::AnyValue;

/// The functions that weigh the values of one cached function, one for each type of value: a generic function
/// has several, and shares one cache.
///
/// A linked list that only grows, so that it is read without a lock.
#[derive(Default)]
pub struct Weights(OnceLock<Box<Node>>);

struct Node {
    ty: TypeId,
    weigh: Box<Weigh>,
    next: Weights,
}

/// A function that returns the weight of a value, if that is of its type.
type Weigh = dyn Fn(&AnyValue) -> Option<u32> + Send + Sync;

impl Weights {
    /// Creates an empty list.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Returns the weight of a value, the maximum if no function for its type was added: a value of unknown weight
    /// must not exceed the limit.
    pub fn weigh(&self, value: &AnyValue) -> u32 {
        let mut place = self;
        while let Some(node) = place.0.get() {
            if let Some(weight) = (node.weigh)(value) {
                return weight;
            }
            place = &node.next;
        }
        u32::MAX
    }

    /// Adds the function for values of type `T`, unless there is one.
    fn add<T: 'static>(&self, weigh: fn(&T) -> u32) {
        let ty = TypeId::of::<T>();
        let mut place = self;
        loop {
            let node = place.0.get_or_init(|| {
                let weigh = move |value: &AnyValue| value.downcast_ref().map(weigh);
                Box::new(Node { ty, weigh: Box::new(weigh), next: Self::new() })
            });
            if node.ty == ty {
                return;
            }
            place = &node.next;
        }
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights").finish_non_exhaustive()
    }
}

/// A ttl with the weights of the values, which are added before the first value is stored.
#[derive(Debug, Clone, Copy)]
pub struct Weighed<L, T> {
    ttl: L,
    weights: &'static Weights,
    weigh: fn(&T) -> u32,
}

/// Adds the weights of the values to a ttl.
#[inline]
pub fn weighed<H: OutputShape<Value: 'static>, L>(
    _shape: H,
    ttl: L,
    weights: &'static Weights,
    weigh: fn(&H::Value) -> u32,
) -> Weighed<L, H::Value> {
    Weighed { ttl, weights, weigh }
}

impl<L, T: 'static> Weighed<L, T> {
    /// Adds the weights now: the cache of an entry stores values without a call.
    #[must_use]
    pub fn added(self) -> Self {
        self.weights.add(self.weigh);
        self
    }
}

impl<T: 'static, L: Retention<T>> Retention<T> for Weighed<L, T> {
    type Idle = L::Idle;

    forward_retention!(self => self.ttl; fixed_ttl ttl idle);

    fn should_cache(&self, value: &T) -> bool {
        self.weights.add(self.weigh);
        self.ttl.should_cache(value)
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_a_weight_of_its_own() {
        let weights = Weights::new();
        assert_eq!(weights.weigh(&AnyValue::new("long string".to_owned())), u32::MAX);
        weights.add(|number: &u64| u32::try_from(*number).unwrap_or(u32::MAX));
        weights.add(|string: &String| u32::try_from(string.len()).unwrap_or(u32::MAX));
        weights.add(|_: &String| 99);
        assert_eq!(weights.weigh(&AnyValue::new("long string".to_owned())), 11);
        assert_eq!(weights.weigh(&AnyValue::new(7_u64)), 7);
        assert_eq!(weights.weigh(&AnyValue::new(7_u8)), u32::MAX);
    }
}
