//! The outputs of the elements of a batch.

/// The outputs of elements, in their order. As long as all were found, they take half as much memory as outputs that may be absent, and
/// are the output of a function that returns a `Vec`.
#[derive(Debug)]
pub(crate) enum Found<V> {
    /// Those of all elements.
    All(Vec<V>),
    /// `None` for an element that has no output.
    Some(Vec<Option<V>>),
}

impl<V> Found<V> {
    /// Creates an empty list with space for the outputs of this many elements.
    pub(super) fn with_capacity(elements: usize) -> Self {
        Self::All(Vec::with_capacity(elements))
    }

    /// Returns the number of elements.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::All(outputs) => outputs.len(),
            Self::Some(outputs) => outputs.len(),
        }
    }

    /// Adds the output of the next element.
    #[inline]
    pub(super) fn push(&mut self, output: V) {
        match self {
            Self::All(outputs) => outputs.push(output),
            Self::Some(outputs) => outputs.push(Some(output)),
        }
    }

    /// Adds the next element, which has no output, and makes space for a number of elements in all.
    #[cold]
    pub(super) fn push_missing(&mut self, elements: usize) {
        match self {
            Self::All(all) => {
                let mut outputs = Vec::with_capacity(elements);
                outputs.extend(all.drain(..).map(Some));
                outputs.push(None);
                *self = Self::Some(outputs);
            }
            Self::Some(outputs) => outputs.push(None),
        }
    }

    /// Returns the output of the element at an index.
    pub(crate) fn get(&self, index: usize) -> Option<&V> {
        match self {
            Self::All(outputs) => Some(&outputs[index]),
            Self::Some(outputs) => outputs[index].as_ref(),
        }
    }

    /// Returns the output of each element.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = Option<V>> {
        let (all, some) = match self {
            Self::All(outputs) => (outputs, Vec::new()),
            Self::Some(outputs) => (Vec::new(), outputs),
        };
        all.into_iter().map(Some).chain(some)
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn outputs_stay_in_order_when_one_is_missing() {
        let mut all = Found::with_capacity(2);
        "ab".chars().for_each(|output| all.push(output));
        assert_eq!((all.len(), all.get(1)), (2, Some(&'b')));
        let mut some = Found::with_capacity(4);
        "ab".chars().for_each(|output| some.push(output));
        some.push_missing(4);
        some.push('d');
        assert_eq!((some.len(), some.get(1), some.get(2)), (4, Some(&'b'), None));
        let [all, some] = [all, some].map(|found| found.into_iter().collect::<Vec<_>>());
        assert_eq!(all, [Some('a'), Some('b')]);
        assert_eq!(some, [Some('a'), Some('b'), None, Some('d')]);
    }
}
