//! A list that only grows.

use std::fmt;
use std::iter;
use std::sync::OnceLock;

/// A linked list that only grows, so that it is read without a lock.
pub(crate) struct AppendList<T>(OnceLock<Box<Node<T>>>);

struct Node<T> {
    item: T,
    next: AppendList<T>,
}

impl<T> AppendList<T> {
    /// Creates an empty list.
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Adds an item at the end.
    pub(crate) fn push(&self, item: T) {
        let mut node = Box::new(Node { item, next: Self::new() });
        let mut place = self;
        while let Err(back) = place.0.set(node) {
            node = back;
            place = &place.0.get().expect("the cell was set before").next;
        }
    }

    /// Returns the items, the first one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        iter::successors(self.0.get(), |node| node.next.0.get()).map(|node| &node.item)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }
}

impl<T> Default for AppendList<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for AppendList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendList").field("len", &self.iter().count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_several_threads_are_all_in_the_list() {
        let list = AppendList::new();
        assert!(list.is_empty());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let list = &list;
                scope.spawn(move || (0..100).for_each(|n| list.push((thread, n))));
            }
        });
        let items: Vec<(i32, i32)> = list.iter().copied().collect();
        for thread in 0..4 {
            let of_thread = items.iter().filter(|(of, _)| *of == thread).map(|(_, n)| *n);
            assert!(of_thread.eq(0..100), "in the order in which a thread has added them");
        }
        assert_eq!(items.len(), 400);
    }
}
