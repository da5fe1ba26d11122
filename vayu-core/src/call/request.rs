//! Requests of entries: for a forced refresh, or for a run without the cache.
//!
//! An [`Entry`](crate::Entry) makes these by a call of its function, whose arguments cannot carry the
//! request. It is stored in a thread-local, from which the first call of the key takes it.

use std::cell::RefCell;
use std::mem;

use crate::key::Key;
use crate::sync::thread_local;

/// The request of an entry to a call of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Run the function even if its value is cached, and store the new one.
    Refresh,
    /// Run the function without the cache.
    Bypass,
}

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "the macro of loom takes no block")]
    static REQUEST: RefCell<Option<(Key, Request)>> = RefCell::new(None);
}

/// Runs `code`, in which the first call of the key takes the request. `request` is empty afterwards if
/// there was such a call.
pub(crate) fn with<T>(request: &mut Option<(Key, Request)>, code: impl FnOnce() -> T) -> T {
    struct Exchange<'a>(&'a mut Option<(Key, Request)>);
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

/// Returns whether there is a request of this thread.
#[inline(never)]
pub(super) fn exists() -> bool {
    REQUEST.try_with(|request| request.borrow().is_some()).unwrap_or_default()
}

/// Takes the request for this key, if there is one.
pub(super) fn take(key: &Key) -> Option<Request> {
    let take = |request: &RefCell<Option<(Key, Request)>>| {
        request.borrow_mut().take_if(|(wanted, _)| wanted == key)
    };
    REQUEST.try_with(take).ok().flatten().map(|(_, request)| request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_for_one_call_of_its_key() {
        let (key, other) = (Key::from_text("p", "k"), Key::from_text("p", "other"));
        let mut request = Some((key.clone(), Request::Refresh));
        with(&mut request, || {
            assert_eq!(take(&other), None);
            with(&mut Some((other.clone(), Request::Bypass)), || {
                assert_eq!(take(&key), None, "that of another key");
            });
            assert_eq!(take(&key), Some(Request::Refresh));
            assert_eq!(take(&key), None);
        });
        assert!(request.is_none() && take(&key).is_none());
    }

    #[test]
    fn request_that_no_call_took_is_returned() {
        let key = Key::from_text("p", "k");
        let mut request = Some((key.clone(), Request::Bypass));
        with(&mut request, || ());
        assert!(request.is_some() && take(&key).is_none());
    }
}
