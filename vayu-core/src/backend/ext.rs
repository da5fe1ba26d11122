//! The operations of a backend for its callers, whatever parts it has.

use crate::backend::batch::Sequence;
use crate::backend::{Backend, ReportUsage, Usage};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::observer::EndListener;
use crate::panic::{BatchFuture, BoxFuture};
use crate::record::Record;

/// The operations of the optional parts of a backend, for its callers: each uses the part
/// ([`Backend::capabilities`]), or what replaces it where the backend does not have it.
///
/// Every backend has them. The engine and wrappers of backends call them. With this trait and that of a part in scope, the
/// methods of a backend that implements both need the name of the trait: `BackendExt::usage(&backend)`.
pub trait BackendExt: Backend {
    /// Returns the records of several keys: see [`Batches::read_many`](crate::Batches::read_many).
    ///
    /// Without that part, reads one key after the other, and after an error of the kind [`ErrorKind::Timeout`] no further
    /// one, so that a batch does not wait once for each key; the keys that are left out have an error of the same kind.
    fn read_many(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Self::Stored>>>> {
        if let Some(batches) = self.capabilities().batches {
            return batches.read_many(keys);
        }
        let mut sequence = Sequence::new("read entry");
        keys.iter()
            .map(|key| {
                let result = sequence.check().and_then(|()| self.read(key));
                sequence.record(result)
            })
            .collect()
    }

    /// Stores several records: see [`Batches::write_many`](crate::Batches::write_many).
    ///
    /// Without that part, writes one after the other, as [`read_many`](Self::read_many) reads.
    fn write_many(&self, entries: Vec<(&Key, Record<Self::Stored>)>) -> Vec<Result<()>> {
        if let Some(batches) = self.capabilities().batches {
            return batches.write_many(entries);
        }
        let mut sequence = Sequence::new("write entry");
        entries
            .into_iter()
            .map(|(key, record)| {
                let result = sequence.check().and_then(|()| self.write(key, record));
                sequence.record(result)
            })
            .collect()
    }

    /// Returns the records of several keys, for async callers: see [`read_many`](Self::read_many).
    fn read_many_async<'a>(
        &'a self,
        keys: &'a [&'a Key],
    ) -> BatchFuture<'a, Option<Record<Self::Stored>>> {
        if let Some(batches) = self.capabilities().batches {
            return batches.read_many_async(keys);
        }
        Box::pin(async move {
            let mut sequence = Sequence::new("read entry");
            let mut results = Vec::with_capacity(keys.len());
            for key in keys {
                let result = match sequence.check() {
                    Ok(()) => self.read_async(key).await,
                    Err(error) => Err(error),
                };
                results.push(sequence.record(result));
            }
            results
        })
    }

    /// Stores several records, for async callers: see [`write_many`](Self::write_many).
    fn write_many_async<'a>(
        &'a self,
        entries: Vec<(&'a Key, Record<Self::Stored>)>,
    ) -> BatchFuture<'a, ()> {
        if let Some(batches) = self.capabilities().batches {
            return batches.write_many_async(entries);
        }
        Box::pin(async move {
            let mut sequence = Sequence::new("write entry");
            let mut results = Vec::with_capacity(entries.len());
            for (key, record) in entries {
                let result = match sequence.check() {
                    Ok(()) => self.write_async(key, record).await,
                    Err(error) => Err(error),
                };
                results.push(sequence.record(result));
            }
            results
        })
    }

    /// Stores a record of which only the times are new: see [`EntryTimes::write_times`](crate::EntryTimes::write_times).
    ///
    /// Without that part, writes the record.
    ///
    /// # Errors
    ///
    /// As for [`write`](Backend::write).
    fn write_times(&self, key: &Key, old: &Record<()>, record: Record<Self::Stored>) -> Result<()> {
        match self.capabilities().times {
            Some(times) => times.write_times(key, old, record),
            None => self.write(key, record),
        }
    }

    /// Stores the times of a record, for async callers: see [`write_times`](Self::write_times).
    fn write_times_async<'a>(
        &'a self,
        key: &'a Key,
        old: &'a Record<()>,
        record: Record<Self::Stored>,
    ) -> BoxFuture<'a, ()> {
        match self.capabilities().times {
            Some(times) => times.write_times_async(key, old, record),
            None => self.write_async(key, record),
        }
    }

    /// Sets the end of the record of a key: see [`EntryTimes::renew`](crate::EntryTimes::renew).
    ///
    /// Without that part, does nothing.
    fn renew(&self, key: &Key, record: &Record<()>, end: Timestamp) {
        if let Some(times) = self.capabilities().times {
            times.renew(key, record, end);
        }
    }

    /// Removes every record: see [`Clear::clear`](crate::Clear::clear).
    ///
    /// # Errors
    ///
    /// When some records may still be there; [`ErrorKind::Unsupported`] without that part.
    fn clear(&self) -> Result<()> {
        self.capabilities().clear.ok_or_else(cannot_clear)?.clear()
    }

    /// Removes every record, for async callers: see [`clear`](Self::clear).
    fn clear_async(&self) -> BoxFuture<'_, ()> {
        match self.capabilities().clear {
            Some(clear) => clear.clear_async(),
            None => Box::pin(async { Err(cannot_clear()) }),
        }
    }

    /// Returns how much is stored at present: see [`ReportUsage::usage`](crate::ReportUsage::usage).
    ///
    /// Without that part, nothing is known.
    fn usage(&self) -> Usage {
        self.capabilities().usage.map(ReportUsage::usage).unwrap_or_default()
    }

    /// Reports the entries that leave the backend: see [`ReportEnds::report_ends`](crate::ReportEnds::report_ends).
    ///
    /// Without that part, reports nothing.
    fn report_ends(&self, listener: EndListener) {
        if let Some(ends) = self.capabilities().ends {
            ends.report_ends(listener);
        }
    }
}

impl<B: Backend + ?Sized> BackendExt for B {}

#[cold]
fn cannot_clear() -> Error {
    Error::new(ErrorKind::Unsupported, "this backend cannot be cleared")
}
