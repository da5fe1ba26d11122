//! Remember the results of function calls.
//!
//! Put one attribute on a function and its result is remembered for a while:
//!
//! ```
//! use vayu::cached;
//!
//! #[cached(ttl = "5m")]
//! fn population(city: &str) -> Result<u64, String> {
//! #   RUNS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
//!     // A slow query ..
//!     Ok(1_900_000 + city.len() as u64)
//! }
//!
//! # static RUNS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
//! let first = population("Vienna");
//! let second = population("Vienna"); // does not run the body
//! assert_eq!(first, second);
//! # assert_eq!(RUNS.load(std::sync::atomic::Ordering::SeqCst), 1);
//! ```
//!
//! The function keeps its signature. It may be sync or async, free or a method, generic or not.
//! Callers that want the same result at the same time wait for one of them to compute it.
//!
//! # Where results are kept
//!
//! Without more, in [`mem_cache()`]: one cache in memory for the process, of 10,000 entries. With
//! `cache = ..` in any cache that an expression gives: a static, a field, what a function answers.
//!
//! ```
//! use std::sync::LazyLock;
//! use vayu::{MemoryCache, MemoryOptions, cached};
//!
//! static PAGES: LazyLock<MemoryCache> =
//!     LazyLock::new(|| MemoryOptions::new().max_entries(500).build());
//!
//! #[cached(cache = PAGES, ttl = "1h", skip(client))]
//! async fn page(client: &Client, url: &str) -> Result<String, Error> {
//!     client.get(url).await
//! }
//! # struct Client;
//! # #[derive(Debug)] struct Error;
//! # impl Client { async fn get(&self, url: &str) -> Result<String, Error> { Ok(url.to_owned()) } }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # assert_eq!(page(&Client, "/").await.unwrap(), "/");
//! # });
//! ```
//!
//! | cache | keeps | values need | feature |
//! |---|---|---|---|
//! | [`MemoryCache`] | values, by reference, in a bounded map | `Clone + Send + Sync + 'static` | `memory` (default) |
//! | `MokaCache` | the same on moka's map | the same | `moka` |
//! | `FileCache` | entries in a directory, which outlive the process and which processes share | serde's `Serialize` and `DeserializeOwned` | `file` |
//! | `RedisCache` | entries on a Redis server, which machines share | the same | `redis` |
//! | `TieredCache` | values in memory, and entries in one of the two before | all of that | `tiered` |
//! | [`Cache<B, S>`](Cache) over a [`Backend`] of yours | what you like | what its [`Serializer`] needs | |
//!
//! A hit in memory is a clone of the value: wrap what is dear to clone in an [`Arc`](std::sync::Arc).
//!
//! ```no_run
//! # #[cfg(feature = "file")] mod example {
//! use std::sync::LazyLock;
//! use vayu::{FileCache, cached};
//!
//! static REPORTS: LazyLock<FileCache> =
//!     LazyLock::new(|| FileCache::open_or_off("reports"));
//!
//! #[cached(cache = REPORTS, ttl = "1d")]
//! fn report(year: u32) -> String {
//!     format!("all of {year}")
//! }
//! # }
//! ```
//!
//! Caches of bytes write values with a serializer: `MessagePack` unless
//! [`with_serializer`](Cache::with_serializer) or the argument `serializer` says otherwise, `Json`,
//! `Postcard` or `Bincode`, each with the feature of its name. A value that the serializer cannot
//! give back as it is (`Some(None)` in MessagePack and JSON, NaN in JSON) is answered and not
//! stored, with a warning that names the function. The same holds for a type that reads back less
//! than it was, or in another order. What a type's `Serialize` does not write cannot come back: a
//! field under `#[serde(skip)]` is its default after a hit.
//!
//! # What is remembered
//!
//! - Of a `Result` only `Ok` is remembered. An `Err` goes to the caller, and the next call tries
//!   again. `Result` is recognised by its type, also behind an alias like `io::Result`. Where a
//!   function returns a type parameter and is used with a `Result` in its place, nothing is
//!   remembered, and a warning says so.
//! - `None` is a value like any other. `cache_if = Option::is_some` says otherwise.
//! - The ttl counts from the end of the computation. An entry is served while it is younger than
//!   the ttl it was stored with and than the one that is written there now.
//!
//! # What two calls must have in common
//!
//! The function and the arguments. The function is told apart by crate, module, type, trait and
//! every generic parameter, so equal names never meet. Arguments are compared in their
//! [`serde::Serialize`](https://docs.rs/serde) form, byte by byte: `1_u8` is not `1_u64`, `0.0` is
//! not `-0.0`, `("ab", "c")` is not `("a", "bc")`, and maps are equal in any order. What `Serialize`
//! does not write is not compared, such as a field under `#[serde(skip)]` or a redacted secret:
//! `include(..)` adds it. A `HashSet` is equal in any order where it is an argument
//! itself; inside of one, see [`sorted_set`].
//!
//! **`self` is not part of the key.** Two values of one type share the entries of a method, as if
//! it were an associated function. Where the result depends on `self`, give each value a cache of
//! its own with `cache = self.cache`, or name what it depends on with `include(self.id)`:
//!
//! ```
//! use vayu::{MemoryCache, cached};
//!
//! struct Shop { region: String, cache: MemoryCache }
//!
//! impl Shop {
//!     #[cached(cache = self.cache, ttl = 60)]
//!     fn stock(&self, sku: &str) -> usize { self.region.len() + sku.len() }
//!
//!     #[cached(ttl = 60, include(self.region))]
//!     fn price(&self, sku: &str) -> usize { self.region.len() * sku.len() }
//! }
//! # let shop = |region: &str| Shop { region: region.to_owned(), cache: MemoryCache::new() };
//! # assert_eq!((shop("eu").stock("a"), shop("asia").stock("a")), (3, 5));
//! # assert_eq!((shop("eu").price("a"), shop("asia").price("a")), (2, 4));
//! ```
//!
//! A method without other arguments must say what `self` means to its key: a `cache` or `prefix` that names `self`,
//! `include(..)`, `key = ..`, or `skip(self)` if all values share its entry. `&mut self` needs `key = ..` or
//! `skip(self)`, since a call that is served from the cache changes nothing.
//!
//! # Names in the attribute
//!
//! Every name of the signature is a name in the attribute, those of patterns too:
//!
//! ```
//! use std::sync::Arc;
//! use vayu::{MemoryCache, cached};
//!
//! # struct State<T>(T);
//! # struct Path<T>(T);
//! struct App { pages: MemoryCache }
//!
//! #[cached(cache = app.pages, ttl = "1m", key = id.to_string(), tags("user:{id}"))]
//! async fn user(State(app): State<Arc<App>>, Path(id): Path<u64>) -> String {
//!     format!("user {id}")
//! }
//! # let app = Arc::new(App { pages: MemoryCache::new() });
//! # for id in [1, 1, 2] {
//! #     let page = pollster(user(State(Arc::clone(&app)), Path(id)));
//! #     assert_eq!(page, format!("user {id}"));
//! # }
//! # assert_eq!(app.pages.stats().hits, 1);
//! # fn pollster<T>(future: impl Future<Output = T>) -> T {
//! #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
//! #     match std::pin::pin!(future).poll(&mut context) {
//! #         std::task::Poll::Ready(value) => value,
//! #         std::task::Poll::Pending => unreachable!(),
//! #     }
//! # }
//! ```
//!
//! An argument leaves the key if all of its names are skipped. Where some are, the others are part of it. In a function
//! with a `handle`, and in a closure for `key`, a name of a pattern whose value is not `Copy` is a reference.
//!
//! # The arguments of the attribute
//!
//! | argument | meaning |
//! |---|---|
//! | `ttl` | Required: how long a result is remembered. `"90s"` or `"1h 30m"`; `30` or `0.5` in seconds, without a suffix; an expression of type [`Duration`](std::time::Duration), `Duration::MAX` for ever; or a closure <code>\|value: &T\| -> Duration</code>. Units: `ms`, `s`, `m`, `h`, `d`, `w` and their words (`minutes`); months and years as words only (`5months`) |
//! | `stale` | how long past its ttl a result may still be served, while one caller computes it anew and when the function fails: a time as for `ttl`, not a closure |
//! | `spawn` | for an `async fn` with `stale`: what runs its refresh as a task, `tokio::spawn` or a closure that is called with the future |
//! | `jitter` | `"10%"`: up to so much of the ttl is taken off at random, so that entries that were written together do not expire together |
//! | `cache` | an expression that gives the cache; without it [`mem_cache()`] |
//! | `key` | what the key is made of instead of the arguments: a string literal, a closure that is called with references to the arguments and answers a text, or an expression like `format!("{id}")` |
//! | `skip(a, b)` | arguments, or names in their patterns, that are left out of the key, and then need no `Serialize`; `skip(self)` says that all values share the entries of the method |
//! | `include(expr, ..)` | more parts of the key |
//! | `prefix` | a text in the place of the function's name: functions with one prefix share entries |
//! | `cache_if` | a predicate: only values for which it holds are remembered |
//! | `serializer` | another serializer than the cache's |
//! | `version` | an integer or a string: entries of another version are misses |
//! | `tags(..)` | texts, with arguments in braces (`"user:{id}"`), or expressions: [`Cache::invalidate_tag`] forgets all entries with one |
//! | `handle` | a name for a companion function that answers the [`Entry`] of a call; beside an associated function without `self`, `Self::name` |
//! | `log` | `false`: no `tracing` events. Otherwise each call is an event at debug level, target `vayu` |
//! | `crate` | the path of this crate where it is renamed |
//!
//! # Past the ttl
//!
//! Without more, the first call past the ttl computes and the others wait for it. With `stale` nobody
//! waits for another one: the call that comes first past the ttl computes the value anew, and the
//! others are answered with the old one meanwhile.
//!
//! ```
//! use vayu::cached;
//!
//! #[cached(ttl = "1m", stale = "1h")]
//! fn rate(base: &str) -> Result<f64, String> {
//!     // While this fails, callers get the last rate, for up to an hour.
//!     Ok(1.1)
//! }
//! # assert_eq!(rate("EUR"), Ok(1.1));
//! ```
//!
//! Sync callers, and async ones without more, do that themselves: the one that finds the value past its
//! ttl waits for the new one. `spawn = tokio::spawn`, or whatever else runs a future, makes it a task of
//! an `async fn`, so that nobody waits. A task outlives the call, so the function must own its arguments.
//!
//! When the function fails with an `Err`, the old value is served as long as `stale` says; the failure
//! is counted in [`Stats::failed_refreshes`] and warned of, and for five seconds nobody asks again.
//! What is no `Result` cannot fail: there `stale` only spares the wait. A panic goes to the call
//! that computes; the others are answered as after a failure, and so they are when that call is dropped.
//!
//! # One call, forgotten or renewed
//!
//! `handle = name` adds a function beside yours, with the same arguments and visibility, that
//! answers the [`Entry`] of that very call:
//!
//! ```
//! use vayu::cached;
//!
//! #[cached(ttl = "1h", handle = profile_entry)]
//! fn profile(id: u64) -> Result<String, String> {
//!     Ok(format!("user {id}"))
//! }
//!
//! # fn main() -> vayu::Result<()> {
//! assert_eq!(profile_entry(7).peek()?, None); // runs nothing
//! profile(7);
//! assert!(profile_entry(7).age()?.is_some());
//! profile_entry(7).refresh(); // runs the function, and remembers what it answers
//! profile_entry(7).invalidate()?; // the next call runs the function
//! # assert_eq!(profile_entry(7).require().unwrap_err().kind(), vayu::ErrorKind::Miss);
//! # Ok(())
//! # }
//! ```
//!
//! An `async fn` has the same: `profile_entry(7).refresh_async().await`.
//!
//! # Many calls, forgotten at once
//!
//! ```
//! use vayu::{cached, mem_cache};
//!
//! #[cached(ttl = "1h", tags("user:{id}", "users"))]
//! fn orders(id: u64, page: u32) -> Vec<String> {
//!     vec![format!("order {page} of {id}")]
//! }
//!
//! # fn main() -> vayu::Result<()> {
//! orders(7, 1);
//! mem_cache().invalidate_tag("user:7")?; // all pages of one user
//! mem_cache().invalidate_function(&orders)?; // all calls of the function
//! mem_cache().invalidate_all()?; // everything
//! # Ok(())
//! # }
//! ```
//!
//! Each takes the same time for any number of entries, on every backend. What was being computed at
//! that moment goes to its callers and is not served to others. Processes that share a directory see
//! a tag invalidated at once, and a function within 100 ms.
//!
//! # When something fails
//!
//! The cache never turns a good answer into an error, a panic or a hang. A backend that fails or
//! panics, a value that cannot be encoded, an entry that cannot be decoded: the function runs, its
//! answer is returned, and the fault is counted in [`Stats::errors`] and logged once a minute at
//! most. When the function itself panics, its caller gets the panic and one of those who wait takes
//! over. When an async caller is dropped, the same. Nobody waits longer than 30 seconds
//! ([`Cache::with_max_wait`]) for somebody else's computation.
//!
//! What a backend is asked, the call waits for: a backend that may hang needs time limits of its own.
//!
//! A function that is called again with the same arguments while it runs (by itself, or around a
//! circle of functions) runs again, as it would without the attribute. That is known for calls that a
//! body makes on its own thread, or while its own future is polled. A call that it makes in another
//! thread or task and waits for cannot be told from any other caller: it waits for the first one, until
//! the limit of [`Cache::with_max_wait`].
//!
//! A sync call never puts a thread to sleep that polls an async computation at that moment. A
//! sync call that blocks elsewhere in a runtime blocks its worker, like any other blocking call.
//!
//! # Without the attribute
//!
//! [`Cache`] is a value with [`get`](Cache::get), [`set`](Cache::set), [`remove`](Cache::remove),
//! [`get_or_insert_with`](Cache::get_or_insert_with) and their `_async` twins, by [`Key`]:
//!
//! ```
//! use vayu::{Key, mem_cache, mem_cached};
//!
//! #[mem_cached(ttl = "5m", prefix = "rates")]
//! fn rate(base: &str, quote: &str) -> f64 { 1.1 }
//!
//! # fn main() -> vayu::Result<()> {
//! rate("EUR", "USD");
//! let key = Key::new("rates", &("EUR", "USD"))?;
//! assert_eq!(mem_cache().get::<f64>(&key)?, Some(1.1));
//! assert!(mem_cache().remove(&key)?);
//! # Ok(())
//! # }
//! ```
//!
//! # Seeing what it does
//!
//! [`Cache::stats`] has the counts of a cache. [`Cache::observe`] takes an [`Observer`], which is told of
//! each call, store and fault, never of arguments or values: [`PerFunctionStats`] counts for each function by
//! itself, and adds up the time that was saved; `Metrics` (feature `metrics`) hands everything to the
//! [`metrics`](https://docs.rs/metrics) facade, for Prometheus and others.
//!
//! ```
//! use vayu::{PerFunctionStats, cached, mem_cache};
//!
//! #[cached(ttl = "1h", prefix = "square")]
//! fn square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! let tally = PerFunctionStats::new();
//! mem_cache().observe(tally.clone());
//! (square(12), square(12), square(13));
//! for function in tally.functions() {
//!     println!("{}: {} hits, saved {:?}", function.function, function.stats.hits, function.time_saved);
//! #   assert_eq!((function.function.as_str(), function.stats.hits, function.stats.misses), ("square", 1, 2));
//! }
//! ```
//!
//! # In tests
//!
//! [`Cache::pause`] lets every call compute, and [`pause_all`] those of all caches. With the feature `testing`, `vayu::testing` has a
//! clock that is moved by hand and the conformance kit for backends.
//!
//! The repository has a page for each trouble in `docs/guide`: stampedes, stale data, failing
//! sources, broken caches, invalidation, more machines, keys, tests.

#[doc(hidden)]
pub mod __private;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tiered")]
mod open;

#[cfg(feature = "bincode")]
pub use vayu_core::Bincode;
#[cfg(feature = "json")]
pub use vayu_core::Json;
#[cfg(feature = "message-pack")]
pub use vayu_core::MessagePack;
#[cfg(feature = "postcard")]
pub use vayu_core::Postcard;
pub use vayu_core::{
    AnyValue, AsCache, Backend, BuildKeyHasher, ByReference, Cache, CallEvent, CallOutcome,
    ChangeCount, Clock, Entry, Error, ErrorKind, FunctionStats, Generations, Group, Invalidation,
    InvalidationFeed, InvalidationListener, Key, KeyVersion, Lease, LeaseGuard, MonotonicClock,
    Observer, OffBackend, Offline, OpenBackend, PauseAllGuard, PauseGuard, PerFunctionStats,
    Prefix, Record, ReleaseLease, Result, Serializer, SerializerId, SingleFlight, Sleep, Stats,
    SystemClock, Timestamp, Usage, encode_checked, pause_all, sorted_set,
};
#[cfg(feature = "testing")]
pub use vayu_core::{backend_tests, testing};
#[cfg(feature = "file")]
pub use vayu_file::{
    AsyncIo, CacheDirectory, Durability, EntryError, EntryInfo, FileBackend, FileCache,
    FileOptions, Verify,
};
#[cfg(feature = "macros")]
pub use vayu_macros::cached;
#[cfg(all(feature = "macros", feature = "memory"))]
pub use vayu_macros::mem_cached;
#[cfg(feature = "memory")]
pub use vayu_memory::{MemoryBackend, MemoryCache, MemoryOptions};
#[cfg(feature = "moka")]
pub use vayu_memory::{MokaBackend, MokaCache};

#[cfg(feature = "redis")]
pub use vayu_redis::{RedisBackend, RedisCache, RedisOptions};
#[cfg(feature = "tiered")]
pub use vayu_tiered::{
    AnyCache, TierStats, TieredBackend, TieredCache, TieredOptions, TieredSerializer, TieredValue,
    Untiered,
};

#[cfg(feature = "memory")]
pub use crate::memory::mem_cache;
#[cfg(feature = "metrics")]
pub use crate::metrics::Metrics;
#[cfg(feature = "tiered")]
pub use crate::open::{open, open_or_off};
