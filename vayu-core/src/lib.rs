//! The traits and the engine of [vayu](https://docs.rs/vayu): what authors of backends and
//! serializers need.
//!
//! Who wants to cache function calls uses the crate `vayu`, which re-exports what is here and adds
//! the attribute.
//!
//! | to | see |
//! |---|---|
//! | keep values in a place of your own | [`Backend`] and the conformance kit [`backend_tests!`] |
//! | write values in a format of your own | [`Serializer`] |
//! | use a cache without the attribute | [`Cache`] and [`Key`] |
//! | decide what time it is | [`Clock`] |

#[doc(hidden)]
pub mod attribute;
mod backend;
mod cache;
mod call;
mod clock;
#[doc(hidden)]
pub mod duration;
mod entry;
mod error;
mod flight;
mod freshness;
mod group;
mod guard;
mod key;
mod mark;
mod news;
mod observer;
mod per_process;
mod record;
mod report;
mod serializer;
mod stats;
mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod took;
#[cfg(feature = "wire")]
pub mod wire;

pub use crate::attribute::AsCache;
pub use crate::backend::{
    Backend, Claim, Claimed, Connect, Offline, Open, ReleaseLease, SingleFlight, Usage,
};
pub use crate::cache::{Cache, OffBackend, Pause, PauseAll, pause_all};
pub use crate::clock::{Clock, MonotonicClock, Sleep, SystemClock, Timestamp};
pub use crate::entry::Entry;
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::group::{ChangeCount, Generations, Group};
pub use crate::key::{CompactKey, Key, KeyHasher, KeyVersion, Prefix, sorted_set};
pub use crate::news::{Change, News, Watcher};
pub use crate::observer::{CallOutcome, CallReport, FunctionStats, Observer, Tally};
#[doc(hidden)]
pub use crate::per_process::PerProcess;
pub use crate::record::Record;
#[cfg(feature = "bincode")]
pub use crate::serializer::Bincode;
#[cfg(feature = "json")]
pub use crate::serializer::Json;
#[cfg(feature = "message-pack")]
pub use crate::serializer::MessagePack;
#[cfg(feature = "postcard")]
pub use crate::serializer::Postcard;
pub use crate::serializer::{ByReference, Serializer, SerializerId, Shared, encode_exactly};
pub use crate::stats::Stats;
