//! The items that the expansions of the attributes name. Not part of the public interface.

pub use vayu_core::attribute::{
    Always, AnyPart, Bound, BoundByReference, ExclusiveKind, KeyBuilder, OfCache, Own, Part,
    PlainShape, Policy, Probe, Query, async_function_prefix, begin_async, cache_if, cache_of, call,
    entry, finish_async, finish_async_spawning, fixed_ttl, function_prefix, spawn_refresh, tag,
    tags, task_of, ttl_fn,
};
