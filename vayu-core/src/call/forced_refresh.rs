//! Requests for a forced refresh.
//!
//! An [`Entry`](crate::Entry) refreshes its value by a call of its function, whose arguments cannot carry
//! a request to do so. It is stored in a thread-local, from which the first call of the key takes it.

use std::cell::RefCell;
use std::mem;

use crate::key::Key;
use crate::sync::thread_local;

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "the macro of loom takes no block")]
    static REQUEST: RefCell<Option<Key>> = RefCell::new(None);
}

/// Runs `code`, in which the first call of the key runs its function. `request` is empty afterwards
/// if there was such a call.
pub(crate) fn with<T>(request: &mut Option<Key>, code: impl FnOnce() -> T) -> T {
    struct Exchange<'a>(&'a mut Option<Key>);
    impl Exchange<'_> {
        fn swap(&mut self) {
            let _ = REQUEST.try_with(|request| mem::swap(&mut *request.borrow_mut(), self.0));
        }
    }
    impl Drop for Exchange<'_> {
        fn drop(&mut self) {
            self.swap();
        }
    }
    let mut exchange = Exchange(request);
    exchange.swap();
    code()
}

/// Takes the request for this key, and returns whether there was one.
pub(super) fn take(key: &Key) -> bool {
    let taken = REQUEST.try_with(|request| request.borrow_mut().take_if(|wanted| wanted == key));
    taken.is_ok_and(|taken| taken.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_for_one_call_of_its_key() {
        let (key, other) = (Key::from_text("p", "k"), Key::from_text("p", "other"));
        let mut request = Some(key.clone());
        with(&mut request, || {
            assert!(!take(&other));
            with(&mut Some(other.clone()), || assert!(!take(&key), "that of another key"));
            assert!(take(&key));
            assert!(!take(&key));
        });
        assert!(request.is_none() && !take(&key));
    }

    #[test]
    fn request_that_no_call_took_is_returned() {
        let key = Key::from_text("p", "k");
        let mut request = Some(key.clone());
        with(&mut request, || ());
        assert!(request.is_some() && !take(&key));
    }
}
