//! The traits and the engine of [vayu](https://docs.rs/vayu-cache), for authors of backends and
//! serializers.
//!
//! To cache function calls, depend on `vayu-cache`; it re-exports this crate and adds the attribute.
//!
//! | to | see |
//! |---|---|
//! | store values in a backend of your own | [`Backend`] and the conformance kit [`backend_tests!`] |
//! | encode values in a format of your own | [`Serializer`] |
//! | use a cache without the attribute | [`Cache`] and [`Key`] |
//! | use a clock of your own | [`Clock`] |

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(target_family = "wasm", feature = "os"))]
compile_error!(
    "the features `file`, `object` and `redis` of vayu need files and sockets, which WebAssembly does not have: enable them under \
     `[target.'cfg(not(target_family = \"wasm\"))'.dependencies]` only, and cache in memory or in a backend of your own here"
);
#[cfg(all(
    target_family = "wasm",
    target_os = "unknown",
    not(any(feature = "js", feature = "host-clock"))
))]
compile_error!(
    "wasm32-unknown-unknown has no clock: enable the feature `js` of vayu-cache for browsers and Node.js, or the feature \
     `host-clock` and call `vayu::time::set_host_clock`, or build for wasm32-wasip1"
);

#[doc(hidden)]
pub mod __internal;
mod append_list;
#[doc(hidden)]
pub mod attribute;
mod backend;
mod background;
mod bounded_map;
#[doc(hidden)]
pub mod byte_size;
mod cache;
mod call;
mod clock;
mod compact_duration;
#[doc(hidden)]
pub mod duration;
mod entry;
mod error;
mod flight;
mod freshness;
mod generation;
mod invalidation;
mod io;
mod key;
mod log;
mod observer;
mod outage;
mod outcome;
mod outlined;
mod panic;
mod pause_all;
mod per_process;
mod platform;
mod record;
mod registry;
#[cfg(all(feature = "remote", not(target_family = "wasm")))]
#[doc(hidden)]
pub mod remote;
mod serializer;
mod shared_error;
mod stats;
mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod validity;
mod watch;
#[cfg(feature = "wire")]
pub mod wire;

pub use crate::attribute::AsCache;
pub use crate::backend::{
    AnyBackend, Backend, BackendExt, Batches, Capabilities, Clear, EntryTimes, Lease, LeaseGuard,
    LeaseWatch, Leases, Offline, OpenBackend, ReleaseLease, ReportEnds, ReportUsage, SingleFlight,
    Usage,
};
pub use crate::background::{finish_background, finish_background_async};
pub use crate::cache::{Cache, OffBackend, PauseGuard};
pub use crate::call::previous::{Previous, previous};
#[cfg(feature = "host-clock")]
pub use crate::clock::set_host_clock;
pub use crate::clock::{Clock, MonotonicClock, Sleep, SystemClock, Timestamp};
pub use crate::entry::{Entry, Explanation};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::flight::FlightContext;
pub use crate::generation::{ChangeCount, Generations, Group};
pub use crate::invalidation::{Invalidation, InvalidationFeed, InvalidationListener};
pub use crate::key::{BuildKeyHasher, Key, KeyVersion, Prefix, sorted_set};
pub use crate::observer::{
    CallEvent, EndCause, EndCounts, EndListener, EndListeners, FunctionStats, Observer,
    PerFunctionStats,
};
pub use crate::outcome::CallOutcome;
pub use crate::pause_all::{PauseAllGuard, pause_all};
pub use crate::record::Record;
pub use crate::registry::{CacheInfo, caches};
#[cfg(feature = "bincode")]
pub use crate::serializer::Bincode;
#[cfg(any(feature = "lz4", feature = "zstd"))]
pub use crate::serializer::Compressed;
#[cfg(feature = "json")]
pub use crate::serializer::Json;
#[cfg(feature = "message-pack")]
pub use crate::serializer::MessagePack;
#[cfg(feature = "postcard")]
pub use crate::serializer::Postcard;
pub use crate::serializer::{
    AnyValue, ByReference, EntryContext, InlineValue, Serializer, SerializerId, ValueClass,
    encode_checked,
};
#[cfg(feature = "seal")]
pub use crate::serializer::{SealKeys, Sealed};
pub use crate::stats::Stats;
pub use crate::watch::{WatchedCall, watch, watch_sync};
