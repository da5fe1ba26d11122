//! What the expansions of the attributes name. Not part of the public interface.

pub use vayu_core::attribute::{
    Always, AnyPart, KeyBuilder, Part, PlainShape, Policy, Probe, async_function_prefix, cache_of,
    call, call_async, function_prefix, keep_if, ttl_by, version_stamp,
};
