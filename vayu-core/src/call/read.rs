//! The read of the record of a call.

use crate::backend::Backend;
use crate::call::typed::UntypedCall;
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
