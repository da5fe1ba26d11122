//! How an [`Entry`](crate::Entry) asks a call for a new value: the arguments of the function say
//! nothing about that, so the wish is left on the thread, and the call with its key finds it there.

use std::cell::RefCell;
use std::mem;

use crate::key::Key;
use crate::sync::thread_local;

thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "the macro of loom takes no block")]
    static WISH: RefCell<Option<Key>> = RefCell::new(None);
}

/// Runs `code`, in which the first call of the key runs its function. `wish` is empty afterwards if
/// there was such a call.
pub(crate) fn with<T>(wish: &mut Option<Key>, code: impl FnOnce() -> T) -> T {
    struct Exchange<'a>(&'a mut Option<Key>);
    impl Exchange<'_> {
        fn swap(&mut self) {
            let _ = WISH.try_with(|place| mem::swap(&mut *place.borrow_mut(), self.0));
        }
    }
    impl Drop for Exchange<'_> {
        fn drop(&mut self) {
            self.swap();
        }
    }
    let mut exchange = Exchange(wish);
    exchange.swap();
    code()
}

/// Whether the running call is asked for a new value. The wish is gone with it.
pub(super) fn is_granted(key: &Key) -> bool {
    let taken = WISH.try_with(|wish| wish.borrow_mut().take_if(|wanted| wanted == key));
    taken.is_ok_and(|taken| taken.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wish_is_for_one_call_of_its_key() {
        let (key, other) = (Key::from_text("p", "k"), Key::from_text("p", "other"));
        let mut wish = Some(key.clone());
        with(&mut wish, || {
            assert!(!is_granted(&other));
            with(&mut Some(other.clone()), || assert!(!is_granted(&key), "another one's inside"));
            assert!(is_granted(&key));
            assert!(!is_granted(&key));
        });
        assert!(wish.is_none() && !is_granted(&key));
    }

    #[test]
    fn wish_that_no_call_took_comes_back() {
        let key = Key::from_text("p", "k");
        let mut wish = Some(key.clone());
        with(&mut wish, || ());
        assert!(wish.is_some() && !is_granted(&key));
    }
}
