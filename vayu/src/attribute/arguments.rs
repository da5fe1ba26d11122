//! The arguments of the attributes, as items that an editor completes and shows the documentation of.
//!
//! An expansion in rust-analyzer refers to the items whose names it was given.

macro_rules! arguments {
    ($($(#[$attribute:meta])* $name:ident)*) => {$(
        $(#[$attribute])*
        pub mod $name {}
    )*};
}

arguments! {
    /// Required, unless there is `expires_at`: the time to live of an entry.
    ///
    /// ```text
    /// ttl = "5m"                     // also "90s", "1h 30m", "5months"
    /// ttl = 30                       // seconds, also 0.5
    /// ttl = Duration::MAX            // no expiry; any expression of the type `Duration`
    /// ttl = |value: &Page| value.ttl // by value
    /// ```
    ttl
    /// In place of `ttl`: the `SystemTime` at which a value expires, evaluated once, when the value is stored. A
    /// value whose moment has passed is not stored. It may name arguments: of an async function it gets clones of those
    /// that the body moves; the body of a sync function must not move them.
    ///
    /// ```text
    /// expires_at = |token: &Token| token.expires_at
    /// expires_at = next_midnight()
    /// ```
    expires_at
    /// The time past the ttl in which an entry may still be served, while one caller recomputes it
    /// (stale-while-revalidate) and when the function fails (stale-if-error).
    ///
    /// ```text
    /// stale = "1h"
    /// ```
    stale
    /// The time after which an entry that no call uses expires, whatever its ttl (sliding expiry, time to idle). For a
    /// `MemoryCache`, or with `max_entries`.
    ///
    /// ```text
    /// idle = "10m"
    /// ```
    idle
    /// For a function that returns a `Result` whose error is `Clone + Send + Sync + 'static`: the time for which an
    /// error is cached, in this process only (negative caching). A closure takes a reference to the error, and returns
    /// zero for one that is not cached. A value, also one that is stale, takes precedence.
    ///
    /// ```text
    /// err_ttl = "2s"
    /// err_ttl = |error: &Error| if error.is_not_found() { MINUTE } else { Duration::ZERO }
    /// ```
    err_ttl
    /// For a function that owns its arguments. With `stale`: runs the refresh of a value past its ttl in the
    /// background. Without `stale`, for an `async fn`: runs the computation as a task, which goes on if the caller is
    /// dropped.
    ///
    /// ```text
    /// spawn = tokio::spawn       // `async fn`
    /// spawn = std::thread::spawn // sync function; also `rayon::spawn`
    /// ```
    spawn
    /// With `spawn`: borrowed arguments of which a run in the background gets a copy, by `ToOwned`. A hit copies nothing.
    ///
    /// ```text
    /// own(url, self)
    /// ```
    own
    /// With `stale` and `spawn`: how long a call that finds a value past its ttl waits for the new one, before it
    /// returns the old one. The run goes on.
    ///
    /// ```text
    /// patience = "50ms"
    /// ```
    patience
    /// With `stale`: a function of the old value and the arguments, by reference, that is called past the ttl. If it
    /// returns `true`, the value is still current, and the body does not run. Alone: the body asks for the old value
    /// with `vayu::previous`.
    ///
    /// ```text
    /// revalidate = is_unchanged
    /// revalidate
    /// ```
    revalidate
    /// Takes up to this share off each ttl at random.
    ///
    /// ```text
    /// jitter = "10%"
    /// ```
    jitter
    /// An expression for the cache. The default is `vayu::mem_cache()`.
    ///
    /// ```text
    /// cache = PAGES      // static PAGES: LazyLock<MemoryCache> = ..
    /// cache = self.cache
    /// ```
    cache
    /// A memory cache of this function's own, with this limit on entries. All instantiations of a generic
    /// function share it; the entry of a `handle` returns it.
    ///
    /// ```text
    /// max_entries = 1_000
    /// ```
    max_entries
    /// A memory cache of this function's own, with this limit on the sum of the weights of its values.
    ///
    /// ```text
    /// max_weight = 64 << 20, weigh = |page: &Page| page.bytes()
    /// ```
    max_weight
    /// With `max_weight`: the weight of a value, a `u32`. The closure captures nothing. A value that is stored through
    /// `Entry::cache` is weighed by its type: one of a type that no call and no entry of the function has had weighs
    /// `u32::MAX`, and is not stored where the limit is lower.
    ///
    /// ```text
    /// weigh = |page: &Page| page.bytes()
    /// ```
    weigh
    /// A string in place of the function's path: functions with the same prefix share entries.
    ///
    /// ```text
    /// prefix = "users"
    /// ```
    prefix
    /// The key, in place of the arguments.
    ///
    /// ```text
    /// key = format!("{id}")
    /// key = |id, _client| id.to_string()
    /// key = "all"
    /// ```
    key
    /// Arguments that are left out of the key, and then need no `Serialize`.
    ///
    /// ```text
    /// skip(client)
    /// skip(self)
    /// ```
    skip
    /// More parts of the key.
    ///
    /// ```text
    /// include(self.id, path.0)
    /// ```
    include
    /// A serializer other than that of the cache.
    ///
    /// ```text
    /// serializer = Json
    /// ```
    serializer
    /// `false`: no `tracing` events.
    ///
    /// ```text
    /// log = false
    /// ```
    log
    /// A predicate on the value, of a `Result` on the value in `Ok`: only values for which it is true are
    /// cached.
    ///
    /// ```text
    /// cache_if = |value| !value.is_empty()
    /// cache_if = Option::is_some
    /// ```
    cache_if
    /// A condition on the arguments: calls for which it is true run the function and store its value, whatever is
    /// stored. Such calls at the same time share one run.
    ///
    /// ```text
    /// refresh_if = is_forced, skip(is_forced)
    /// ```
    refresh_if
    /// A condition on the arguments: calls for which it is true run the function without the cache.
    ///
    /// ```text
    /// bypass_if = user.is_editor
    /// ```
    bypass_if
    /// An integer or a string: entries of another version are misses.
    ///
    /// ```text
    /// version = 2
    /// ```
    version
    /// Tags of the entry. `Cache::invalidate_tag` invalidates all entries that have one.
    ///
    /// ```text
    /// tags("user:{id}", &group)
    /// ```
    tags
    /// The call in listings, in place of its arguments.
    ///
    /// ```text
    /// label = "{path}"
    /// ```
    label
    /// The name of a companion function that returns the entry of a call. With `each`, it takes one element and returns the
    /// entry of that.
    ///
    /// ```text
    /// handle = user_entry
    /// handle = Self::user_entry // beside an associated function without `self`
    /// ```
    handle
    /// The argument whose elements have an entry each. The function runs once with those that are missing, and
    /// returns a map from the element to its value, or a `Vec` in the order of the elements.
    ///
    /// ```text
    /// each = ids, prefix = "user" // shares the entries of a function of one `id` with this prefix
    /// ```
    each
    /// With `each`: the maximum number of elements of one run.
    ///
    /// ```text
    /// each = ids, at_most = 100
    /// ```
    at_most
}
