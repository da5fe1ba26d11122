//! The reads of the record of a call.

use crate::backend::Backend;
use crate::call::steps::{Step, Steps, part_of_flights};
use crate::call::typed::UntypedCall;
use crate::clock::Timestamp;
use crate::flight::{FlightId, StorePermission};
use crate::io::Io;
use crate::record::Record;

/// Reads the record of the key.
pub(super) async fn read<M: Io, B: Backend>(
    call: &UntypedCall<'_, B>,
) -> Option<Record<B::Stored>> {
    if !call.has_timed_out() {
        let record = call.ok_or_count(call.engine.read::<M>(call.key).await);
        if !call.has_timed_out() {
            return record.flatten();
        }
    }
    call.read_offline()
}

/// Returns whether a leader with this permission may store its value, or delete the one before it. The run has started at
/// `started`. A leader that was slow reads the record: it does not replace a newer one.
pub(super) async fn may_replace<M: Io, B: Backend>(
    call: &UntypedCall<'_, B>,
    permission: StorePermission,
    started: Timestamp,
    flight: Option<FlightId>,
    steps: &impl Steps<B>,
) -> bool {
    match permission {
        StorePermission::Granted => true,
        StorePermission::Refused => false,
        StorePermission::UnlessNewer => {
            match part_of_flights::<M, _>(flight, read::<M, B>(call)).await {
                Some(found) => !steps.is(call, flight, Step::IsNewer(found, started)).await,
                None => true,
            }
        }
    }
}
