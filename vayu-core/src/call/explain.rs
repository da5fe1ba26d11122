//! The reason for which a call would return a record, or not.

use crate::backend::Backend;
use crate::call::typed::{TypedCall, UntypedCall};
use crate::error::Error;
use crate::freshness::CLOCK_SKEW;
use crate::panic::{catch_panic, drop_quietly};
use crate::record::Record;
use crate::validity::Mismatch;

/// The state of a record for a call.
#[derive(Debug)]
pub(crate) enum RecordState {
    Fresh,
    Stale,
    Expired,
    FromTheFuture,
    /// It does not match the call.
    Mismatch(Mismatch),
    Corrupt(Error),
}

impl<B: Backend> UntypedCall<'_, B> {
    /// Returns the state of a record for this call. Nothing is counted.
    pub(crate) fn state_of(
        &self,
        record: Record<B::Stored>,
        typed: &mut dyn TypedCall<B>,
    ) -> RecordState {
        let now = self.engine.now();
        if !self.is_of_this_call(&record)
            && let Some(mismatch) = self.validator().mismatch(&record)
        {
            drop_quietly(record);
            return RecordState::Mismatch(mismatch);
        }
        let is_fresh = self.is_fresh(&record, now) && now < record.stale_until();
        if !is_fresh && self.stale_end(&record, now).is_none() {
            let is_from_the_future = record.created() > now.saturating_add(CLOCK_SKEW);
            drop_quietly(record);
            return if is_from_the_future {
                RecordState::FromTheFuture
            } else {
                RecordState::Expired
            };
        }
        let decoded = catch_panic("decode value", move || {
            typed.deserialize(record.value(), &self.context(&record))?;
            typed.discard();
            Ok(())
        });
        match decoded {
            Ok(()) if is_fresh => RecordState::Fresh,
            Ok(()) => RecordState::Stale,
            Err(error) => RecordState::Corrupt(error),
        }
    }
}
