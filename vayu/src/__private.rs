//! What the expansions of the attributes name. Not part of the public interface.

pub use vayu_core::attribute::{
    AnyPart, Bound, BoundByReference, ExclusiveKind, KeyBuilder, Part, PlainShape, Policy, Probe,
    Query, Tagged, async_function_prefix, begin_async, cache_if, cache_of, call, entry,
    finish_async, finish_async_spawning, fixed_ttl, function_prefix, label, owned_serializer,
    serializer, spawn_refresh, tag, tags, task_of, ttl_fn,
};
