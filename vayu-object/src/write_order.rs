//! The order of writes and deletions of one entry.
//!
//! A write whose caller is cancelled runs to its end in the background. Without an order it could take effect after a later
//! write or deletion of the same entry has returned.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::path::Path;
use tokio::sync::watch;

/// The unfinished writes and deletions of a cache: the last one of each name.
#[derive(Debug, Default)]
pub(crate) struct WriteOrder(Mutex<HashMap<Path, watch::Receiver<()>>>);

/// The place of one write or deletion among those of its name. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    order: Arc<WriteOrder>,
    name: Path,
    previous: Option<watch::Receiver<()>>,
    /// Its receivers are notified when it is dropped.
    end: watch::Sender<()>,
}

impl WriteOrder {
    /// Returns the place after all writes and deletions of a name that have begun.
    pub(crate) fn enter(self: &Arc<Self>, name: &Path) -> Turn {
        let (end, is_ended) = watch::channel(());
        let previous = self.unfinished().insert(name.clone(), is_ended);
        Turn { order: Arc::clone(self), name: name.clone(), previous, end }
    }

    /// Waits until all writes and deletions that have begun have ended.
    pub(crate) async fn wait_for_all(&self) {
        let unfinished: Vec<_> = self.unfinished().values().cloned().collect();
        for is_ended in unfinished {
            wait_for_end(is_ended).await;
        }
    }

    fn unfinished(&self) -> MutexGuard<'_, HashMap<Path, watch::Receiver<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits until the previous write or deletion has ended.
    ///
    /// A turn that ends without its previous one, by its time limit, has begun later and has the same limit, so all
    /// before it have ended by then.
    pub(crate) async fn wait(&mut self) {
        if let Some(previous) = self.previous.take() {
            wait_for_end(previous).await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut unfinished = self.order.unfinished();
        let own = self.end.subscribe();
        if unfinished.get(&self.name).is_some_and(|last| last.same_channel(&own)) {
            unfinished.remove(&self.name);
        }
    }
}

async fn wait_for_end(mut is_ended: watch::Receiver<()>) {
    while is_ended.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn turns_of_a_name_follow_each_other_and_leave_nothing() {
        let order = Arc::new(WriteOrder::default());
        let (one, other) = (Path::from("one"), Path::from("other"));
        let (mut first, mut second) = (order.enter(&one), order.enter(&one));
        assert!(order.enter(&other).wait().now_or_never().is_some());
        assert!(first.wait().now_or_never().is_some());
        assert!(second.wait().now_or_never().is_none());
        assert!(order.wait_for_all().now_or_never().is_none());
        drop(second);
        drop(first);
        assert!(order.wait_for_all().now_or_never().is_some());
        assert!(order.unfinished().is_empty());
    }

    #[test]
    fn turn_waits_for_the_one_before_it() {
        let order = Arc::new(WriteOrder::default());
        let name = Path::from("one");
        let (first, mut second) = (order.enter(&name), order.enter(&name));
        let mut wait = Box::pin(second.wait());
        assert!(wait.as_mut().now_or_never().is_none());
        drop(first);
        assert!(wait.now_or_never().is_some());
    }
}
