//! The traits and types for writing a backend, a serializer or a wrapper of one.
//!
//! [`Backend`] is the trait to implement; [`Cache::with_backend`](crate::Cache::with_backend) makes a cache
//! of it. The module also names the backends of this crate, so that wrappers can hold them.

pub use async_trait::async_trait;
#[cfg(any(
    feature = "bincode",
    feature = "json",
    feature = "lz4",
    feature = "message-pack",
    feature = "postcard",
    feature = "seal",
    feature = "wire",
    feature = "zstd"
))]
pub use bytes::Bytes;
#[cfg(feature = "wire")]
pub use vayu_core::wire;
pub use vayu_core::{
    AnyBackend, AnyValue, AsCache, Backend, BackendExt, Batches, BuildKeyHasher, ByReference,
    Capabilities, ChangeCount, Clear, EndCause, EndListener, EndListeners, EntryContext,
    EntryTimes, Generations, Group, InlineValue, Invalidation, InvalidationFeed,
    InvalidationListener, KeyVersion, Lease, LeaseGuard, LeaseWatch, Leases, OffBackend, Offline,
    OpenBackend, PauseAllGuard, PauseGuard, Prefix, Record, ReleaseLease, ReportEnds, ReportUsage,
    Serializer, SerializerId, Usage, ValueClass, encode_checked, forward_backend,
};
#[cfg(feature = "file")]
pub use vayu_file::FileBackend;
#[cfg(feature = "memory")]
pub use vayu_memory::MemoryBackend;
#[cfg(feature = "moka")]
pub use vayu_memory::MokaBackend;
#[cfg(feature = "object")]
pub use vayu_object::{ObjectBackend, object_store};
#[cfg(feature = "redis")]
pub use vayu_redis::RedisBackend;
#[cfg(feature = "tiered")]
pub use vayu_tiered::{TieredBackend, TieredSerializer};
#[cfg(feature = "tiered")]
#[doc(hidden)]
pub use vayu_tiered::{TieredValue, Untiered};
