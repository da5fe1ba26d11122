//! Items for the expansions of the attributes. Not part of the public interface.
//!
//! Messages of the compiler name the traits and their parameters, so those are here too.

#[cfg(feature = "macros")]
pub mod arguments {
    //! The arguments of the attribute, as items that an editor completes and shows the documentation of.
    //!
    //! An expansion in rust-analyzer refers to the items whose names it was given.

    vayu_macros::arguments!();
}

pub use vayu_core::attribute::{
    AnyOutput, AnyPart, AsCache, BatchOutput, Bound, BoundByReference, CachesErrors,
    CallKeyBuilder, CompleteOutput, Each, EachIn, ElementValue, Elements, EncodedStored,
    ErrorProbe, ExclusiveKind, ExclusivePart, FutureOutput, FutureShape, HasEnded, HiddenError,
    HoldsReferences, Invalidates, KeyBuilder, KeyPart, KeyString, KnownShape, LaterOutput,
    LiteralPrefix, Made, OutputOfEach, OutputProbe, OwnedCopy, Part, PlainShape, PlainStored,
    Policy, Predicate, Probe, Query, ResultShape, SetPart, ShareableBy, ShownError, SimplePart,
    StorableBy, StorableIn, StoredProbe, Tagged, TracksUses, Unchanging, ValuePart, Weights,
    batch_body, batch_body_async, begin_async, begin_async_call, cache_if, call, caller_body,
    check_run, engine, entry, err_ttl, err_ttl_of_batch, expires_at, finish_async,
    finish_async_spawning, finish_spawning, fixed_ttl, function_prefix, idle, invalidates, job,
    job_of, label, late_body, lend, moved, pass, patient, previous_of, revalidate, run_body,
    single_flights, spawn_refresh, spawnable, start, tag, tags, task_of, ttl_fn, unchanged,
    unreachable, weighed, whole,
};
