//! The record that a run replaces, of a function with `revalidate`.

use std::any::Any;
use std::sync::Arc;

use crate::backend::Backend;
use crate::call::previous::PreviousSlot;
use crate::call::typed::{TypedCall, UntypedCall};
use crate::call::{Call, FnProperties};
use crate::clock::Timestamp;
use crate::panic::{QuietDrop, catch_panic};
use crate::record::Record;

/// The record of a value past its ttl, of a function with `revalidate`: a `QuietDrop<Record<_>>`.
#[derive(Debug)]
pub(crate) struct Kept(Arc<dyn Any + Send + Sync>);

impl Kept {
    /// Returns the record, for a run that replaces it.
    #[cold]
    pub(super) fn into_previous<V: Send + Sync + 'static>(self) -> Option<Box<PreviousRecord<V>>> {
        let record = self.0.downcast().ok()?;
        Some(Box::new(PreviousRecord { record, slot: None }))
    }
}

/// The record that a run replaces, and its value.
#[derive(Debug)]
pub(crate) struct PreviousRecord<V> {
    record: Arc<QuietDrop<Record<V>>>,
    /// Its value, once it is decoded for the run.
    slot: Option<PreviousSlot>,
}

impl<V> PreviousRecord<V> {
    pub(super) fn slot(&self) -> Option<&PreviousSlot> {
        self.slot.as_ref()
    }

    /// Returns the times of the record.
    pub(super) fn times(&self) -> Option<Record<()>> {
        self.record.get().map(|record| record.as_ref().map(|_| ()))
    }
}

impl<B: Backend, F: FnProperties> Call<'_, B, F> {
    /// Keeps a record that a run may replace, if the function asks for it.
    pub(super) fn keep(&self, record: &Record<B::Stored>) -> Option<Kept> {
        let keep = || Kept(Arc::new(QuietDrop::from(record.clone())));
        self.function.keeps_previous().then(keep)
    }

    /// Keeps a record that was read again, unless the entry has another value than that of the record which was kept before.
    #[cold]
    pub(super) fn keep_same(
        &self,
        before: &PreviousRecord<B::Stored>,
        record: Option<&Record<B::Stored>>,
    ) -> Option<Box<PreviousRecord<B::Stored>>> {
        let (before, record) = (before.record.get()?, record?);
        let is_same = before.created() == record.created()
            && before.expires() == record.expires()
            && before.schema() == record.schema()
            && before.serializer() == record.serializer();
        // Its end may have moved.
        if is_same { self.keep(record)?.into_previous() } else { None }
    }

    /// Decodes the value of the record that a run replaces.
    #[cold]
    pub(super) fn decode_previous(
        &self,
        mut previous: Box<PreviousRecord<B::Stored>>,
        typed: &dyn TypedCall<B>,
    ) -> Option<Box<PreviousRecord<B::Stored>>> {
        let record = previous.record.get()?;
        let slot = catch_panic("decode value", || {
            typed.previous_slot(record.value(), &self.context(record))
        });
        previous.slot = Some(self.ok_or_count(slot).flatten()?);
        Some(previous)
    }
}

impl<B: Backend> UntypedCall<'_, B> {
    /// Returns the previous record with new times, if the function has returned its value unchanged at `created`. `None` also
    /// where the value must be encoded again: see [`is_renewable`](crate::Serializer::is_renewable).
    #[cold]
    pub(super) fn renewed_record(
        &self,
        previous: &PreviousRecord<B::Stored>,
        created: Timestamp,
        typed: &dyn TypedCall<B>,
    ) -> Option<Record<B::Stored>> {
        let record = previous.record.get()?;
        if !previous.slot.as_ref()?.is_unchanged() {
            return None;
        }
        let is_renewable = catch_panic("store value", || Ok(typed.is_renewable()));
        if !self.ok_or_count(is_renewable)? {
            return None;
        }
        let times = self.encode_times(typed, record.compact_compute_time(), created)?;
        let weight = record.weight();
        let value = catch_panic("clone value", || Ok(record.value().clone()));
        let value = self.ok_or_count(value)?;
        Some(times.map(|()| value).with_weight(weight))
    }
}
