//! Batches: keys that are done one after the other, and results that are collected from parts.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// The results of a batch whose keys are done one after the other, up to the first timeout.
pub(super) struct Sequence {
    operation: &'static str,
    has_timed_out: bool,
}

impl Sequence {
    pub(super) fn new(operation: &'static str) -> Self {
        Self { operation, has_timed_out: false }
    }

    /// Returns an error if a key has timed out, so that no further one is tried.
    pub(super) fn check(&self) -> Result<()> {
        if !self.has_timed_out {
            return Ok(());
        }
        let skipped = "skipped after a timeout in the same batch";
        // The error of the key that has timed out is logged.
        Err(Error::new(ErrorKind::Timeout, self.operation).with_source(skipped).logged_by_backend())
    }

    /// Records the result of a key, and returns it.
    pub(super) fn record<T>(&mut self, result: Result<T>) -> Result<T> {
        self.has_timed_out |=
            result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Timeout);
        result
    }
}

/// The results of a batch that is done in parts.
#[derive(Debug)]
pub struct BatchResults<T>(Vec<Option<Result<T>>>);

impl<T> BatchResults<T> {
    /// Creates the results of a batch of this number of keys, none of which is done.
    pub fn new(keys: usize) -> Self {
        Self((0..keys).map(|_| None).collect())
    }

    /// Sets the result of the key at an index.
    pub fn set(&mut self, index: usize, result: Result<T>) {
        if let Some(place) = self.0.get_mut(index) {
            *place = Some(result);
        }
    }

    /// Returns the results in the order of the keys. A key without a result has an error.
    pub fn into_results(self) -> Vec<Result<T>> {
        let missing = || Err(Error::new(ErrorKind::Backend, "no result for a key of a batch"));
        self.0.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
    }
}

/// Returns the results of a batch that has failed as a whole: the error, once for each key.
pub fn fail_batch<T>(error: Error, keys: usize) -> Vec<Result<T>> {
    if keys == 1 {
        return vec![Err(error)];
    }
    let error = Arc::new(error);
    (0..keys).map(|_| Err(Error::shared(&error))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::backend::{Backend, BackendExt};
    use crate::clock::Timestamp;
    use crate::key::Key;
    use crate::record::Record;
    use crate::sync::block_on;

    /// A backend with an error of its own for some keys. It counts calls.
    #[derive(Default)]
    struct Partial(AtomicUsize);

    fn error(key: &Key) -> Option<ErrorKind> {
        match key.to_string().as_str() {
            "batch:broken" => Some(ErrorKind::Backend),
            "batch:slow" => Some(ErrorKind::Timeout),
            _ => None,
        }
    }

    #[async_trait]
    impl Backend for Partial {
        type Stored = u64;

        fn read(&self, key: &Key) -> Result<Option<Record<u64>>> {
            let n = self.0.fetch_add(1, Ordering::Relaxed) as u64;
            match error(key) {
                Some(kind) => Err(Error::new(kind, "read")),
                None => Ok(Some(Record::new(n, Timestamp::from_micros(0), Timestamp::NEVER))),
            }
        }

        fn write(&self, key: &Key, _: Record<u64>) -> Result<()> {
            self.read(key).map(drop)
        }

        fn delete(&self, _: &Key) -> Result<bool> {
            Ok(false)
        }

        async fn read_async(&self, key: &Key) -> Result<Option<Record<u64>>> {
            self.read(key)
        }

        async fn write_async(&self, key: &Key, record: Record<u64>) -> Result<()> {
            self.write(key, record)
        }

        async fn delete_async(&self, key: &Key) -> Result<bool> {
            self.delete(key)
        }
    }

    /// Returns the kinds of the errors of the batches of a backend with these keys: of its reads and its writes, sync and
    /// async. Checks the number of calls for each.
    fn errors(texts: &[&str], calls: usize) -> [Vec<Option<ErrorKind>>; 4] {
        fn kinds<T>(results: &[Result<T>]) -> Vec<Option<ErrorKind>> {
            results.iter().map(|result| result.as_ref().err().map(Error::kind)).collect()
        }
        let keys: Vec<Key> = texts.iter().map(|text| Key::from_text("batch", *text)).collect();
        let keys: Vec<&Key> = keys.iter().collect();
        let entries = || {
            let record = Record::new(1, Timestamp::from_micros(0), Timestamp::NEVER);
            keys.iter().map(|key| (*key, record.clone())).collect()
        };
        let backend = Partial::default();
        let all = [
            kinds(&backend.read_many(&keys)),
            kinds(&block_on(backend.read_many_async(&keys))),
            kinds(&backend.write_many(entries())),
            kinds(&block_on(backend.write_many_async(entries()))),
        ];
        assert_eq!(backend.0.into_inner(), 4 * calls);
        all
    }

    #[test]
    fn error_of_one_key_is_that_of_no_other() {
        let expected = [None, Some(ErrorKind::Backend), None, Some(ErrorKind::Backend), None];
        for kinds in errors(&["a", "broken", "b", "broken", "a"], 5) {
            assert_eq!(kinds, expected);
        }
    }

    #[test]
    fn key_without_a_result_has_an_error() {
        let mut results = BatchResults::new(3);
        results.set(2, Ok(2));
        results.set(0, Ok(0));
        results.set(3, Ok(3));
        let kinds = results.into_results().into_iter().map(|result| result.map_err(|it| it.kind()));
        assert_eq!(kinds.collect::<Vec<_>>(), [Ok(0), Err(ErrorKind::Backend), Ok(2)]);
    }

    #[test]
    fn error_of_a_whole_batch_is_that_of_each_key() {
        let error = || {
            let cause = Error::new(ErrorKind::Timeout, "connect");
            Error::new(ErrorKind::Timeout, "read entry").with_source(cause).logged_by_backend()
        };
        assert!(fail_batch::<()>(error(), 0).is_empty());
        for keys in 1..=2 {
            let errors = fail_batch::<()>(error(), keys);
            assert_eq!(errors.len(), keys);
            for error in errors.into_iter().map(Result::unwrap_err) {
                assert_eq!(error.kind(), ErrorKind::Timeout);
                assert!(error.is_logged_by_backend());
                assert_eq!(format!("{error:?}"), "read entry: connect");
            }
        }
    }

    #[test]
    fn no_key_is_tried_after_a_timeout() {
        let late = Some(ErrorKind::Timeout);
        for kinds in errors(&["a", "slow", "b", "broken"], 2) {
            assert_eq!(kinds, [None, late, late, late]);
        }
    }
}
