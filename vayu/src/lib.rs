//! Cache the results of function calls.
//!
//! Put one attribute on a function, and its results are cached for a while (memoization with a time to live):
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
//! Concurrent calls with the same arguments are coalesced (single flight): one runs the body, and the
//! others wait for its result.
//!
//! # Where results are stored
//!
//! By default in [`mem_cache()`], an in-memory cache of 10,000 entries that the whole process shares. With
//! `cache = ..` in the cache that the expression evaluates to: a static, a field, or the result of a
//! function.
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
//! With `max_entries = 500` the attribute creates such a memory cache for its function:
//!
//! ```
//! use vayu::cached;
//!
//! #[cached(ttl = "1h", max_entries = 500, handle = title_entry)]
//! fn title(url: &str) -> String {
//!     format!("Title of {url}")
//! }
//!
//! assert_eq!(title("/"), title("/"));
//! assert_eq!(title_entry("/").cache().stats().hits, 1);
//! ```
//!
//! | cache | stores | values need | feature |
//! |---|---|---|---|
//! | [`MemoryCache`] | values, by reference, in a bounded map | `Clone + Send + Sync + 'static` | `memory` (default) |
//! | `MokaCache` | the same on moka's map | the same | `moka` |
//! | `FileCache` | entries in a directory that outlive the process and that processes share | serde's `Serialize` and `DeserializeOwned` | `file` |
//! | `RedisCache` | entries on a Redis server that machines share | the same | `redis` |
//! | `ObjectCache` | large entries that machines share, in an object store such as S3 | the same | `object` |
//! | `TieredCache` | values in memory, in front of one of the three before | all of that | `tiered` |
//! | [`Cache<B, S>`](Cache) over a [`Backend`](backend::Backend) of your own | its choice | what its [`Serializer`](backend::Serializer) needs | |
//!
//! A hit in memory clones the value: wrap values that are expensive to clone in an [`Arc`](std::sync::Arc).
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
//! `vayu::open("memory+redis://cache.internal/0")` opens the cache that a URL describes, for example one from the configuration (feature
//! `tiered`), and `open_or_off` one that is off if it cannot be opened. The type of such a cache is `AnyCache`.
//!
//! Caches of bytes encode values with a serializer: `MessagePack` by default, or `Json`, `Postcard` or
//! `Bincode`, each with the feature of its name. [`with_serializer`](Cache::with_serializer) sets it for a
//! cache, the argument `serializer` for a function. A value that does not survive the round trip
//! (`Some(None)` in MessagePack and JSON, NaN in JSON, a type that reads back less than it wrote or in
//! another order) is returned and not stored, with a warning that names the function. A hit cannot
//! restore what a type's `Serialize` does not write: a field under `#[serde(skip)]` has its default value.
//! `Compressed::zstd(MessagePack)` and `Compressed::lz4(MessagePack)` compress the values of another serializer
//! (features `zstd` and `lz4`). `Sealed::new(keys, MessagePack)` encrypts and authenticates them (feature `seal`). The page
//! `values_at_rest` of the guide has both.
//!
//! # Which results are cached
//!
//! - Of a `Result` only `Ok` is cached. An `Err` is returned, and the next call tries again. If it is
//!   `Clone + Send + Sync + 'static`, callers that wait for the one that fails get clones of it; otherwise they
//!   run the function. With `err_ttl` it is also cached for a while. `Result` is
//!   recognized by its type, also behind an alias like `io::Result`. A function that returns a type
//!   parameter and is used with a `Result` in its place caches nothing, and a warning says so.
//! - A function without a return type has nothing to cache. `-> ()` says that it is to run once per ttl.
//! - The body runs inside of the cache, so `#[track_caller]` is refused: take the location as a skipped argument.
//! - `None` is cached like any other value. `cache_if = Option::is_some` excludes it.
//! - The ttl counts from the end of the computation. An entry is served while it is younger than
//!   the ttl it was stored with and than the ttl that the attribute has now.
//! - `expires_at` is evaluated at that time, too, and decides alone: no later call compares it. A value whose moment has
//!   passed is returned and not stored, which is not an error. `stale` begins at the moment, and `jitter` shortens the
//!   time that is left. By the system clock, an entry in files or on a server does not expire later than at the moment. In memory the time left is
//!   measured by a monotonic clock, which does not run while the machine is suspended.
//! - `expires_at`, and closures for `ttl` and `cache_if`, may name arguments. In an `async fn`, an owned argument that such an
//!   expression and the body both use is cloned in each call; if both use only fields of it, it is not cloned. In a sync
//!   function they borrow it, so the body must not move such an argument.
//!
//! # The cache key
//!
//! The key is the function and its arguments. A function is identified by crate, module, type, trait and
//! every generic parameter, so functions of equal names do not collide. Arguments are compared in their
//! [`serde::Serialize`](https://docs.rs/serde) form, byte by byte: `1_u8` is not `1_u64`, `0.0` is
//! not `-0.0`, `("ab", "c")` is not `("a", "bc")`, and maps are equal in any order. What `Serialize`
//! does not write is not compared, such as a field under `#[serde(skip)]` or a redacted secret:
//! `include(..)` adds it. A `HashSet` that is an argument itself is equal in any order; inside of
//! another value, see [`sorted_set`].
//!
//! **`self` is not part of the key.** Two values of one type share the entries of a method, as if
//! it were an associated function. Where the result depends on `self`, give each value its own cache
//! with `cache = self.cache`, or add what it depends on with `include(self.id)`:
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
//! `skip(self)`, since a hit changes nothing.
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
//! An argument leaves the key if all of its names are skipped. If only some are skipped, the others stay in the key. In a function
//! with a `handle`, and in a closure for `key`, a name of a pattern whose value is not `Copy` is a reference.
//!
//! # The arguments of the attribute
//!
//! | argument | meaning |
//! |---|---|
//! | `ttl` | Required, unless there is `expires_at`: the time to live of an entry. `"90s"` or `"1h 30m"`; `30` or `0.5` in seconds, without a suffix; an expression of type [`Duration`](std::time::Duration), `Duration::MAX` for no expiry; or a closure <code>\|value: &T\| -> Duration</code>, which returns zero for a value that is not cached. Units: `ms`, `s`, `m`, `h`, `d`, `w` and their words (`minutes`); months and years as words only (`5months`) |
//! | `expires_at` | in place of `ttl`: the moment at which a value expires, an expression of type [`SystemTime`](std::time::SystemTime), or a closure <code>\|value: &T\| -> SystemTime</code>. Evaluated once, when the value is stored, and not compared with a later evaluation |
//! | `stale` | the time past the ttl in which an entry may still be served while one caller recomputes it (stale-while-revalidate) and when the function fails (stale-if-error): a time as for `ttl`, not a closure |
//! | `idle` | the time after which an entry that no call uses expires, whatever its ttl (sliding expiry, time to idle): a time as for `ttl`, not a closure. For a [`MemoryCache`], or with `max_entries` or `max_weight`; a compile error for other caches. A stale value is also removed when no call uses it. The [recipes](guide::recipes) have the details |
//! | `err_ttl` | for a `Result` whose error is `Clone + Send + Sync + 'static`: the time for which an error is cached, in this process only (negative caching). A time as for `ttl`, or a closure <code>\|error: &E\| -> Duration</code>, which returns zero for an error that is not cached. A value, also a stale one, takes precedence |
//! | `spawn` | for a function that owns its arguments: `tokio::spawn` for an `async fn`, `std::thread::spawn` or `rayon::spawn` for a sync one, or a closure that takes the future or the closure to run. With `stale`: runs only the refresh of a value past its ttl in the background; a call that finds no value computes in its caller, and ends with it. Without `stale`, for an `async fn`: runs the computation as a task ([callers that give up](#callers-that-give-up)) |
//! | `own(a, self)` | with `spawn`: borrowed arguments of which a run in the background gets a copy (`Clone`, or `ToOwned`): the body is given a reference to that. The copy has no lifetimes: an `Arc<T>` in a field instead of a `&'a T`. A hit copies nothing, and with `stale` neither does a run in the caller, unless there is `patience` |
//! | `patience` | with `stale` and `spawn`: how long a call that finds a value past its ttl waits for the new one, before it returns the old one (a soft timeout): a time as for `stale`. The run goes on and stores its value |
//! | `revalidate` | with `stale`: a function of references to the old value and to the arguments, async for an `async fn`, that is called past the ttl. If it returns `true`, the entry gets new times, and the body does not run. Alone: the body asks for the old value with [`previous`] |
//! | `jitter` | `"10%"`: shortens each ttl by a random part of up to this much, so that entries that were written together do not expire together |
//! | `cache` | an expression for the cache; the default is [`mem_cache()`] |
//! | `max_entries` | an integer or a constant: a memory cache of this function's own, with this limit on entries, in place of `cache`. All instantiations of a generic function share it. [`Entry::cache`] returns it, and [`caches`] lists it by the path of the function |
//! | `max_weight`, `weigh` | the same with a limit on the sum of the weights of the values (of a `Result`, of those in `Ok`): <code>max_weight = 64 << 20, weigh = \|page: &Page\| page.bytes()</code>. `weigh` returns a `u32` and captures nothing. A value that is stored by hand, with a type that the function has not stored before, weighs `u32::MAX` |
//! | `key` | the key, in place of the arguments: a string literal, a closure that takes references to the arguments and returns a string, or an expression like `format!("{id}")`. Type parameters stay a part of it ([keys](guide::keys)) |
//! | `skip(a, b)` | arguments, or names in their patterns, that are left out of the key, and then need no `Serialize`; `skip(self)` says that all values share the entries of the method |
//! | `include(expr, ..)` | more parts of the key |
//! | `prefix` | a string in place of the function's path: functions with the same prefix share entries |
//! | `each`, `at_most` | the name of an argument whose elements have an entry each: the function runs once with those that are missing, or in runs of `at_most` elements, and returns a map from the element to its value or a `Vec` in their order ([guide](guide::batches)) |
//! | `cache_if` | a predicate on the value (of a `Result`, on the value in `Ok`): only values for which it is true are cached |
//! | `refresh_if` | a `bool` over the arguments: if it is true, the call runs the function and stores its value, whatever is stored ([conditions](#conditions-on-the-arguments)) |
//! | `bypass_if` | a `bool` over the arguments: if it is true, the call runs the function and neither reads nor stores |
//! | `serializer` | a serializer other than the cache's |
//! | `version` | an integer or a string: entries of another version are misses |
//! | `tags(..)` | strings, with arguments in braces (`"user:{id}"`), or expressions: [`Cache::invalidate_tag`] invalidates all entries that have one |
//! | `label` | a string with arguments in braces (`"{path}"`), or an expression: how `vayu-cache ls` shows the call, in place of its arguments. Evaluated at each call of a cache whose entries leave the process, and never in memory |
//! | `handle` | the name of a companion function that returns the [`Entry`] of a call; beside an associated function without `self`, `Self::name` |
//! | `log` | `false`: no `tracing` events and spans. Otherwise each call is an event at debug level, target `vayu`, and each run a span |
//! | `crate` | the path of this crate where it is renamed |
//!
//! # Conditions on the arguments
//!
//! `refresh_if` and `bypass_if` are expressions of the type `bool`, evaluated once in each call. They may name
//! arguments that are skipped, and a flag that asks for a refresh should be, or it is part of the key:
//!
//! ```
//! use vayu::cached;
//! # use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
//! # static RUNS: AtomicU64 = AtomicU64::new(0);
//!
//! #[cached(ttl = "1h", skip(is_forced, is_preview), refresh_if = is_forced, bypass_if = is_preview)]
//! fn article(id: u64, is_forced: bool, is_preview: bool) -> u64 {
//!     // A query ..
//! #   RUNS.fetch_add(1, SeqCst)
//! }
//!
//! let first = article(7, false, false);
//! assert_ne!(article(7, true, false), first); // a refresh: the new value is stored
//! assert_eq!(article(7, false, false), first + 1);
//! assert_eq!(article(7, false, true), first + 2); // neither read nor stored
//! assert_eq!(article(7, false, false), first + 1);
//! ```
//!
//! A refresh replaces a computation that began earlier, and refreshes of one key at the same time share one run. If
//! the function fails, the stored value stays, and the caller gets the failure, also with `stale`: [`Entry::refresh`] returns the
//! stored value then. A value that is not stored, as one that `cache_if` rejects or that is too long, removes the one before
//! it. A call that bypasses the cache waits for no other call and counts
//! as a miss. `bypass_if` has precedence. The methods of an [`Entry`] do not evaluate the conditions, except where they call the
//! function.
//!
//! Each call evaluates `bypass_if` and `refresh_if` first, then `cache`, `serializer`, `ttl`, the other times, `key`,
//! `include` and `prefix`. With `each`, `key` and `include` are evaluated for each element; in other functions, where an argument
//! is a pattern, `key` is the first of all. `tags` and `label` are evaluated where they are needed. A call that bypasses the cache evaluates `cache` too,
//! which counts the call: an `unwrap` in it panics whatever `bypass_if` is. A cache that is optional is one that is
//! [off](guide::recipes).
//!
//! # Past the ttl
//!
//! By default the first call past the ttl recomputes the value and the others wait for it. With `stale`
//! the others do not wait (stale-while-revalidate): the first call past the ttl recomputes, and the
//! others return the old value in the meantime.
//!
//! ```
//! use vayu::cached;
//!
//! #[cached(ttl = "1m", stale = "1h")]
//! fn rate(base: &str) -> Result<f64, String> {
//!     // While this fails, callers get the last rate, for up to an hour (stale-if-error).
//!     Ok(1.1)
//! }
//! # assert_eq!(rate("EUR"), Ok(1.1));
//! ```
//!
//! The call that recomputes waits for the new value. With `spawn = tokio::spawn`, or anything else that
//! runs a future, an `async fn` recomputes in a background task, and no call waits; a sync function does so in another
//! thread with `spawn = std::thread::spawn`, `rayon::spawn`, or anything else that runs a closure. A run in the background
//! outlives the call, so the function must own its arguments, or have them copied:
//!
//! ```
//! use vayu::cached;
//!
//! #[cached(ttl = "1m", stale = "1h", spawn = std::thread::spawn, own(base))]
//! fn rate(base: &str) -> Result<f64, String> {
//!     Ok(1.1) // a query
//! }
//! # assert_eq!(rate("EUR"), Ok(1.1));
//! ```
//!
//! Up to 256 refreshes of a cache run in the background at the same time
//! ([`Cache::set_max_background_refreshes`]). Past that, calls return the old value, and a later one refreshes it. A panic
//! of a run counts as a refresh that has failed.
//!
//! With `patience = "50ms"` in addition, a call that finds a value past its ttl waits up to 50 ms for the new one, and then
//! returns the old one, while the task goes on (a soft timeout). If the source is fast, callers get current values; if it is
//! slow or hangs, no caller waits longer:
//!
//! ```
//! use std::time::Duration;
//! use vayu::cached;
//! # use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
//! # static RUNS: AtomicU32 = AtomicU32::new(0);
//!
//! #[cached(ttl = "10ms", stale = "1h", spawn = tokio::spawn, patience = "20ms")]
//! async fn rate(base: String) -> Result<u32, String> {
//!     // A query ..
//! #   if RUNS.fetch_add(1, SeqCst) > 0 { std::future::pending::<()>().await }
//!     Ok(1)
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! rate("EUR".to_owned()).await?;
//! tokio::time::sleep(Duration::from_millis(30)).await;
//! assert_eq!(rate("EUR".to_owned()).await, Ok(1)); // the source hangs: the old value after 20 ms
//! # Ok::<_, String>(()) }).unwrap();
//! ```
//!
//! A sync function waits in the same way, and blocks its thread. In a thread that the computation of an async function needs, it
//! returns the old value at once.
//!
//! A run that takes longer than callers wait for others ([`Cache::with_max_wait`], by default 30 seconds) is replaced by a
//! new one at the next call, so a source that hangs costs one task in that time. A panic of the run is not that of a
//! caller, which returns the old value.
//!
//! A source may say that an old value is still current (`ETag` and 304). With `revalidate`, [`previous`] returns the value that
//! the running function replaces, and [`Previous::unchanged`] renews the times of its entry. In a directory only the header of
//! the file is written:
//!
//! ```
//! use vayu::cached;
//!
//! // Returns the ETag and the text of a page, or `None` if the server says that the ETag is still current (304).
//! fn get(url: &str, etag: Option<&str>) -> Option<(String, String)> {
//! # if etag.is_some() { return None; }
//! # let (tag, text) = ("v1".to_owned(), url.to_owned());
//!     // A request ..
//!     Some((tag, text))
//! }
//!
//! #[cached(ttl = "1m", stale = "1h", revalidate)]
//! fn page(url: &str) -> (String, String) {
//!     let old = vayu::previous::<(String, String)>();
//!     match (get(url, old.as_ref().map(|old| old.0.as_str())), old) {
//!         (None, Some(old)) => old.unchanged(), // 304
//!         (new, _) => new.expect("a page"),
//!     }
//! }
//! # assert_eq!(page("/").1, "/");
//! ```
//!
//! When the function returns an `Err`, the old value is served for as long as `stale` says; the failure
//! is counted in [`Stats::failed_refreshes`] and logged as a warning, and the function is not tried again
//! for five seconds. A function that does not return a `Result` cannot fail: there `stale` only avoids the
//! wait. A panic goes to the call that recomputes; the other calls continue as after a failure. The same
//! holds when the future of that call is dropped.
//!
//! # Callers that give up
//!
//! A dropped future ends its computation, for example by a timeout around the call. If callers give up earlier than the
//! source responds, nothing is ever cached. With `spawn` and without `stale`, the leader of a key runs its
//! computation as a task, which stores the value whatever becomes of the caller. Waiting callers and later ones get it:
//!
//! ```
//! use std::time::Duration;
//! use vayu::cached;
//!
//! #[cached(ttl = "5m", spawn = tokio::spawn)]
//! async fn report(id: u64) -> String {
//!     tokio::time::sleep(Duration::from_millis(40)).await; // a slow source
//!     format!("report {id}")
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let patience = Duration::from_millis(10);
//! assert!(tokio::time::timeout(patience, report(7)).await.is_err());
//! while tokio::time::timeout(patience, report(7)).await.is_err() {} // at last, a hit
//! # });
//! ```
//!
//! A panic of the function reaches its caller. If no task can be spawned, or it is dropped by its runtime, the caller
//! runs the rest of the computation itself; a panic of `spawn` is counted and logged. The call is boxed and has a
//! further allocation on a miss. A hit costs nothing more.
//!
//! # Inspect, set, refresh or invalidate one call
//!
//! `handle = name` adds a companion function, with the same arguments and visibility, that returns
//! the [`Entry`] of the call with these arguments:
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
//! profile_entry(7).refresh(); // runs the function and caches its result
//! profile_entry(7).set(Ok("user seven".to_owned()))?; // stores a value as if the function had returned it
//! println!("{}", profile_entry(7).explain()); // hit, expired, a tag was invalidated ..
//! # assert_eq!(profile(7).as_deref(), Ok("user seven"));
//! # assert!(profile_entry(7).explain().is_hit());
//! # assert_eq!(profile_entry(7).run().as_deref(), Ok("user 7"));
//! profile_entry(7).invalidate()?; // the next call runs the function
//! # assert_eq!(profile_entry(7).require().unwrap_err().kind(), vayu::ErrorKind::Miss);
//! # Ok(())
//! # }
//! ```
//!
//! [`Entry::run`] runs the function without the cache. A refresh that fails returns the cached value if the
//! function has `stale`, and [`Entry::refresh_strict`] returns the failure. Closures for `ttl` and `cache_if`
//! own clones of the arguments that they name in an entry.
//!
//! An `async fn` has the same: `profile_entry(7).refresh_async().await`.
//!
//! # Invalidate many calls at once
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
//! Each takes the same time for any number of entries, on every backend. A computation that is running
//! at that moment is returned to its callers and not served to later ones. Processes that share a
//! directory see the invalidation of a tag at once, and that of a function within 100 ms.
//!
//! # Invalidate after a write
//!
//! [`invalidates`] goes on the function that writes what entries were made of. It invalidates them when the function has
//! returned, but not when it has returned an `Err`:
//!
//! ```
//! use vayu::{cached, invalidates};
//! # use std::sync::Mutex;
//! # static NAME: Mutex<String> = Mutex::new(String::new());
//!
//! #[cached(ttl = "1h", tags("user:{id}"))]
//! fn name(id: u64) -> String {
//!     // A query ..
//! #   NAME.lock().unwrap().clone()
//! }
//!
//! #[invalidates(tags("user:{id}"))]
//! fn rename(id: u64, new: &str) -> Result<(), String> {
//!     // An update ..
//! #   *NAME.lock().unwrap() = new.to_owned();
//!     Ok(())
//! }
//!
//! # rename(7, "Ann").unwrap();
//! assert_eq!(name(7), "Ann");
//! rename(7, "Eve").unwrap();
//! assert_eq!(name(7), "Eve");
//! ```
//!
//! | argument | meaning |
//! |---|---|
//! | `cache` | the cache, as for [`cached`](macro@cached); without it, [`mem_cache`]. For several caches, repeat the attribute |
//! | `tags(..)` | tags, as for [`cached`](macro@cached): strings with arguments in braces, or expressions |
//! | `functions(..)` | functions without a `prefix`, by name: `functions(user, Shop::price, page::<u8>)` |
//! | `prefixes(..)` | prefixes of functions, strings or expressions |
//! | `all` | all entries of the cache |
//! | `before` | invalidates before the function runs, in place of afterwards |
//! | `before, after` | invalidates both before and after |
//! | `crate` | the path of this crate, if it is renamed |
//!
//! The arguments are evaluated before the function runs. A function that panics, and an `async fn` whose future is dropped
//! after its first poll, may have written: their entries are invalidated, too, without waiting for the backend. An error of
//! the backend does not fail the write: it is counted and logged, and the invalidation is tried again until it
//! has succeeded. In the meantime this process serves none of the entries. The
//! [guide](guide::invalidation) has the details.
//!
//! # When something fails
//!
//! The cache fails open: it does not turn a result into an error, a panic or a hang. When a backend fails
//! or panics, a value cannot be encoded or an entry cannot be decoded, the function runs, its
//! result is returned, and the error is counted in [`Stats::errors`] and logged at most once a
//! minute. When the function itself panics, its caller gets the panic and one of the waiting callers
//! takes over. The same holds when an async caller is dropped. A caller waits at most 30 seconds for the
//! computation of another caller, and a slow computation is hedged: after 3 seconds, or 8 times what the
//! last hedge of its function took, one waiting caller computes, too, and the first value is for all.
//! [`Cache::with_max_wait`] sets another limit, without hedges.
//!
//! Calls wait for the backend without a timeout; a backend that can hang must enforce its own.
//!
//! A function that is called again with the same arguments while it runs (by itself, or around a
//! circle of functions) runs again, as it would without the attribute. vayu detects that for calls that a
//! body makes on its own thread, or while its own future is polled. Where a body hands work to another
//! thread or task and waits for it, run that work in the scope of a [`FlightContext`]; a call in it
//! may otherwise wait for its own computation until that is hedged.
//!
//! A sync call does not block a thread that is polling an async computation. Elsewhere in a runtime a
//! sync call blocks its worker, like any other blocking call.
//!
//! # Share running calls and store nothing
//!
//! [`single_flight`] is for functions whose results must not be stored: a refresh of a token, a report that must
//! be current. Calls with the same arguments that come while one runs do not run the body. Each gets a clone of
//! its result, an error too, and the next call runs again:
//!
//! ```
//! use vayu::single_flight;
//!
//! #[single_flight(skip(client))]
//! async fn refresh_token(client: &Client, tenant: u64) -> Result<String, Error> {
//!     client.post(tenant).await
//! }
//! # struct Client;
//! # #[derive(Debug, Clone)] struct Error;
//! # impl Client { async fn post(&self, tenant: u64) -> Result<String, Error> { Ok(tenant.to_string()) } }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # assert_eq!(refresh_token(&Client, 7).await.unwrap(), "7");
//! # });
//! ```
//!
//! It takes `key`, `skip`, `include`, `prefix`, `log` and `crate` as [`cached`](macro@cached) does. The result must be
//! `Clone + Send + Sync + 'static`. Sync and async functions with the same `prefix` and the same type of result share
//! their runs. A caller waits for as long as the function runs, and the function is not hedged. If
//! the run panics or its future is dropped, one of the waiting callers runs the function. A call with the same
//! arguments within the run itself runs again; in another thread or task it needs a [`FlightContext`], or it
//! waits for its own run forever. [`pause_all`] suspends this as well.
//!
//! # Without the attribute
//!
//! [`Cache`] is a value with [`get`](Cache::get), [`set`](Cache::set), [`remove`](Cache::remove),
//! [`get_or_insert_with`](Cache::get_or_insert_with), [`update_with`](Cache::update_with), which is atomic, and
//! their `_async` twins, by [`Key`]:
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
//! # Statistics and metrics
//!
//! [`Cache::stats`] returns the counters of a cache. [`Cache::observe`] adds an
//! [`Observer`](telemetry::Observer), which receives an event for each call, insertion, end of an entry (evicted, expired,
//! replaced, invalidated) and error, without arguments or values: [`PerFunctionStats`](telemetry::PerFunctionStats) counts per function and adds up
//! the time saved; `telemetry::Metrics` (feature `metrics`) records to the
//! [`metrics`](https://docs.rs/metrics) facade, for Prometheus and others.
//!
//! ```
//! use vayu::telemetry::PerFunctionStats;
//! use vayu::{cached, mem_cache};
//!
//! #[cached(ttl = "1h", prefix = "square")]
//! fn square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! let stats = PerFunctionStats::new();
//! mem_cache().observe(stats.clone());
//! (square(12), square(12), square(13));
//! for function in stats.functions() {
//!     println!("{}: {} hits, saved {:?}", function.function, function.stats.hits, function.time_saved);
//! #   assert_eq!((function.function.as_str(), function.stats.hits, function.stats.misses), ("square", 1, 2));
//! }
//! ```
//!
//! [`watch`] returns what became of each cached call in a future, and [`watch_sync`] that in a closure: outcome, age, time
//! left of the ttl and time saved, for [response headers](guide::axum):
//!
//! ```
//! use vayu::telemetry::CallOutcome;
//! use vayu::{cached, watch_sync};
//!
//! #[cached(ttl = "1h")]
//! fn cube(n: u64) -> u64 {
//!     n * n * n
//! }
//!
//! let (sum, calls) = watch_sync(|| cube(2) + cube(2));
//! assert_eq!((sum, calls.len()), (16, 2));
//! assert_eq!(calls[1].outcome, CallOutcome::Hit);
//! ```
//!
//! [`caches`] lists the caches of the process with their names and statistics, for a health page:
//!
//! ```
//! # vayu::mem_cache();
//! for cache in vayu::caches() {
//!     println!("{}: {:?} entries, {} errors", cache.name, cache.stats.usage.entries, cache.stats.errors);
//! }
//! ```
//!
//! The name is the kind and the location of the backend, or that of [`Cache::with_name`].
//!
//! # In tests
//!
//! [`Cache::pause`] disables a cache until its guard is dropped: every call runs its function.
//! [`pause_all`] disables all caches of the process. With the feature `testing`, `vayu::testing` has a
//! manual clock and the conformance tests for backends.
//!
//! The [`guide`] has a page for each problem, for moving from other libraries, and short [recipes](guide::recipes) for the rest: no
//! expiry, hit or miss, keep warm, per tenant.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[doc(hidden)]
pub mod attribute;
pub mod backend;
// Part of the documentation only. The doctests need these features.
#[cfg(any(
    all(doc, not(doctest)),
    all(
        doctest,
        feature = "file",
        feature = "json",
        feature = "lz4",
        feature = "macros",
        feature = "memory",
        feature = "object",
        feature = "redis",
        feature = "seal",
        feature = "testing",
        feature = "tiered"
    )
))]
pub mod guide;
#[cfg(any(feature = "file", feature = "redis"))]
pub mod inspect;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "tiered")]
mod open;
pub mod telemetry;
pub mod time;

#[cfg(feature = "bincode")]
pub use vayu_core::Bincode;
#[cfg(any(feature = "lz4", feature = "zstd"))]
pub use vayu_core::Compressed;
#[cfg(feature = "json")]
pub use vayu_core::Json;
#[cfg(feature = "message-pack")]
pub use vayu_core::MessagePack;
#[cfg(feature = "postcard")]
pub use vayu_core::Postcard;
pub use vayu_core::{
    Cache, CacheInfo, Entry, Error, ErrorKind, Explanation, FlightContext, Key, Previous, Result,
    SingleFlight, Stats, WatchedCall, caches, finish_background, finish_background_async,
    pause_all, previous, sorted_set, watch, watch_sync,
};
#[cfg(feature = "seal")]
pub use vayu_core::{SealKeys, Sealed};
#[cfg(feature = "file")]
pub use vayu_file::{AsyncIo, Durability, FileCache, FileOptions};
#[cfg(all(feature = "macros", feature = "memory"))]
pub use vayu_macros::mem_cached;
#[cfg(feature = "macros")]
pub use vayu_macros::{cached, invalidates, single_flight};
#[cfg(feature = "moka")]
pub use vayu_memory::MokaCache;
#[cfg(feature = "memory")]
pub use vayu_memory::{MemoryCache, MemoryOptions};
#[cfg(feature = "object")]
pub use vayu_object::{ObjectCache, ObjectOptions};
#[cfg(feature = "redis")]
pub use vayu_redis::{RedisCache, RedisOptions};
#[cfg(feature = "tiered")]
pub use vayu_tiered::{AnyCache, TieredCache, TieredOptions};

#[cfg(feature = "memory")]
pub use crate::memory::mem_cache;
#[cfg(feature = "tiered")]
pub use crate::open::{open, open_or_off};

#[cfg(feature = "testing")]
pub mod testing {
    //! A manual clock, a faulty backend and the conformance tests for backends.

    pub use vayu_core::backend_tests;
    pub use vayu_core::testing::*;
}
