//! What the expansions of the attributes name. Not part of the public interface.

pub use vayu_core::attribute::{
    Always, AnyPart, Bound, BoundByReference, ExclusiveKind, KeyBuilder, OfCache, Own, Part,
    PlainShape, Policy, Probe, Query, async_function_prefix, begin_async, cache_of, call, entry,
    finish_async, finish_async_leaving, function_prefix, hand_over, keep_if, tag, tags, task_of,
    ttl_by, ttl_of_all,
};
