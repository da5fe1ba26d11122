//! Opening a cache described by a URL, for a choice at run time.

#[cfg(all(
    any(feature = "file", feature = "object", feature = "redis"),
    any(feature = "lz4", feature = "seal", feature = "zstd")
))]
mod layered;
mod layers;
mod query;

use vayu_core::{AnyBackend, Cache, Error, ErrorKind, Result};
use vayu_memory::{MemoryBackend, MemoryOptions};
use vayu_tiered::{AnyCache, TieredOptions, TieredSerializer, TieredValue};

use self::layers::layers;
use self::query::Query;

/// Opens the cache described by a URL, for example one taken from a configuration file.
///
/// | URL | cache |
/// |---|---|
/// | `memory:` | in memory, of 10,000 entries; `memory:?max_entries=500` |
/// | `file:///var/cache/app` | in a directory (feature `file`); `file:name` is relative to the current directory |
/// | `redis://host/0` | on a Redis server (feature `redis`); every URL that `RedisOptions::connect` accepts |
/// | `s3://bucket/prefix`, `gs://..`, `az://..` | in an object store (features `object-aws`, `object-gcp`, `object-azure`); every URL that `ObjectOptions::connect` accepts |
/// | `object+file:///mnt/results` | in a directory as an object store (feature `object`) |
/// | `memory+file:..`, `memory+redis:..`, `memory+s3:..` | memory in front of the other (two tiers) |
/// | `off:` | off: every call runs its function, nothing is read or stored |
///
/// Options follow a question mark: `file:///var/cache/app?max_bytes=1GiB`, `redis://host?namespace=app`.
/// For directories these are `max_bytes`, `max_entries`, `max_entry_bytes` (`1000`, `64KiB`, `1GiB`),
/// `open_files`, `durability=synced`, `single_flight=everywhere`, `arguments=hidden` and `shared=allowed`; for memory in front
/// of another tier `memory_max_entries` and `near_ttl` (`500ms`, `10s`, `5m`). In a path `%20` stands for a space.
///
/// Values in directories and on servers are compressed with `compress=lz4` or `compress=zstd` (features `lz4` and
/// `zstd`), and encrypted and authenticated with `seal=env:NAME` (feature `seal`): `NAME` is an environment variable with the
/// keys, as `SealKeys::from_env` reads them. Caches with the same keys need different contexts
/// (`seal_context=tenant_a`), which are taken as they are written. See `Compressed` and `Sealed`. Values in memory stay as they are.
///
/// All of these have one type, so values need what any of them needs: `Clone + Send + Sync + 'static`
/// and serde's `Serialize` and `DeserializeOwned`.
///
/// # Errors
///
/// [`ErrorKind::Configuration`] for an invalid URL, and the errors of opening the cache.
///
/// # Examples
///
/// ```
/// use std::sync::LazyLock;
/// use vayu::{AnyCache, cached};
///
/// static CACHE: LazyLock<AnyCache> = LazyLock::new(|| {
///     let url = std::env::var("CACHE").unwrap_or_else(|_| "memory:".to_owned());
///     vayu::open_or_off(&url)
/// });
///
/// #[cached(cache = CACHE, ttl = "5m")]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
/// # assert_eq!((square(12), square(12)), (144, 144));
/// # assert_eq!(CACHE.stats().hits, 1);
/// ```
pub fn open(url: impl AsRef<str>) -> Result<AnyCache> {
    let url = url.as_ref();
    let (scheme, _) = url.split_once(':').ok_or_else(|| {
        wrong("expected a URL such as `memory:`, `file:///path` or `redis://host`")
    })?;
    let backend = match (scheme.split_once('+'), scheme) {
        (_, "off") if url == "off:" => return Ok(Cache::off_by_choice()),
        (_, "off") => return Err(wrong("`off:` takes no path and no options")),
        (_, "memory") => memory(url)?,
        (Some(("memory", _)), _) => bytes(&url["memory+".len()..], Position::Backing)?,
        _ => bytes(url, Position::Alone)?,
    };
    let cache: Cache<_, ()> = Cache::with_backend(backend);
    Ok(cache.with_serializer(TieredSerializer::default()))
}

/// Opens the cache that a URL describes as [`open`] does, or returns one that is off if that fails: every call runs
/// its function, `stats().off` says why, and so does one warning.
///
/// # Examples
///
/// ```
/// # fn configured() -> String { "memory:?max_entries=many".to_owned() }
/// let cache = vayu::open_or_off(configured());
/// let why = cache.stats().off.expect("the URL is wrong");
/// assert!(why.contains("max_entries"), "{why}");
/// ```
pub fn open_or_off(url: impl AsRef<str>) -> AnyCache {
    open(url).unwrap_or_else(AnyCache::off)
}

/// The position of a cache of bytes: alone, or with memory in front of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Alone,
    Backing,
}

fn memory(url: &str) -> Result<AnyBackend<TieredValue>> {
    let mut query = Query::parse(url);
    if query.path() != "memory:" {
        return Err(wrong("`memory:` takes no path, only options after `?`"));
    }
    let options = memory_options(&mut query, "max_entries")?;
    query.finish("memory", "`max_entries`")?;
    Ok(AnyBackend::new(MemoryBackend::<TieredValue>::with_options(options)))
}

fn memory_options(query: &mut Query<'_>, name: &str) -> Result<MemoryOptions> {
    let options = MemoryOptions::new();
    Ok(match query.number(name)? {
        Some(entries) => options.max_entries(entries),
        None => options,
    })
}

/// Reads the options of memory in front of another tier.
fn tiered_options(query: &mut Query<'_>) -> Result<TieredOptions> {
    let options = TieredOptions::new().memory(memory_options(query, "memory_max_entries")?);
    Ok(match query.time("near_ttl")? {
        Some(time) => options.near_ttl(time),
        None => options,
    })
}

fn bytes(url: &str, position: Position) -> Result<AnyBackend<TieredValue>> {
    let mut query = Query::parse(url);
    #[cfg_attr(
        not(any(feature = "file", feature = "object", feature = "redis")),
        expect(unused_variables, reason = "there is nothing to put it in front of")
    )]
    let memory = match position {
        Position::Alone => None,
        Position::Backing => Some(tiered_options(&mut query)?),
    };
    #[cfg_attr(
        not(any(feature = "file", feature = "object", feature = "redis")),
        expect(unused_variables, reason = "there is nothing to wrap")
    )]
    let layers = layers(&mut query)?;
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme.split('+').next().unwrap_or_default() {
        #[cfg(feature = "file")]
        "file" => Ok(wrapped(file(query)?, layers, memory)),
        #[cfg(not(feature = "file"))]
        "file" => Err(wrong("a cache in a directory needs the feature `file`")),
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "valkey" | "valkeys" | "unix" => {
            let url = query.remaining_url();
            let cache = vayu_redis::RedisOptions::new().connect(url)?;
            Ok(wrapped(cache.backend().clone(), layers, memory))
        }
        #[cfg(not(feature = "redis"))]
        "redis" | "rediss" | "valkey" | "valkeys" | "unix" => {
            Err(wrong("a cache on a Redis server needs the feature `redis`"))
        }
        #[cfg(feature = "object")]
        "object" | "s3" | "gs" | "az" => {
            let cache = vayu_object::ObjectOptions::new().connect(query.remaining_url())?;
            Ok(wrapped(cache.backend().clone(), layers, memory))
        }
        #[cfg(not(feature = "object"))]
        "object" | "s3" | "gs" | "az" => {
            Err(wrong("a cache in an object store needs the feature `object`"))
        }
        // The URL may hold a password, so the message repeats the scheme only if it is a plain word.
        word if !word.is_empty() && word.chars().all(|letter| letter.is_ascii_alphabetic()) => {
            Err(wrong(format!("unknown scheme `{word}:`")))
        }
        _ => Err(wrong("expected a URL such as `memory:`, `file:///path` or `redis://host`")),
    }
}

/// Creates the backend whose values have these wrappers where they leave the process.
#[cfg(any(feature = "file", feature = "object", feature = "redis"))]
fn wrapped<F>(
    backing: F,
    layers: Option<layers::Layers>,
    memory: Option<TieredOptions>,
) -> AnyBackend<TieredValue>
where
    F: vayu_core::Backend<Stored = bytes::Bytes>,
{
    match layers {
        None => tiers(backing, memory),
        #[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
        Some(layers) => tiers(layered::LayeredBackend::new(backing, layers), memory),
        #[cfg(not(any(feature = "lz4", feature = "seal", feature = "zstd")))]
        Some(layers) => match layers {},
    }
}

#[cfg(any(feature = "file", feature = "object", feature = "redis"))]
fn tiers<F>(backing: F, memory: Option<TieredOptions>) -> AnyBackend<TieredValue>
where
    F: vayu_core::Backend<Stored = bytes::Bytes>,
{
    match memory {
        Some(memory) => AnyBackend::new(memory.backend(backing)),
        None => AnyBackend::new(vayu_tiered::Untiered::new(backing)),
    }
}

#[cfg(feature = "file")]
fn file(mut query: Query<'_>) -> Result<vayu_file::FileBackend> {
    use vayu_core::SingleFlight;
    use vayu_file::{Durability, FileOptions};

    let path = vayu_file::__internal::path_of_url(query.path())?;
    if path.is_empty() {
        return Err(wrong("missing path after `file:`"));
    }
    let mut options = FileOptions::new();
    if let Some(bytes) = query.number("max_bytes")? {
        options = options.max_bytes(bytes);
    }
    if let Some(entries) = query.number("max_entries")? {
        options = options.max_entries(entries);
    }
    if let Some(bytes) = query.number("max_entry_bytes")? {
        options = options.max_entry_bytes(bytes);
    }
    if let Some(files) = query.number("open_files")? {
        options = options.open_files(usize::try_from(files).unwrap_or(usize::MAX));
    }
    if query.word("durability", &["relaxed", "synced"])? == Some("synced") {
        options = options.durability(Durability::Synced);
    }
    if query.word("single_flight", &["process", "everywhere"])? == Some("everywhere") {
        options = options.single_flight(SingleFlight::Everywhere);
    }
    if query.word("arguments", &["stored", "hidden"])? == Some("hidden") {
        options = options.hide_arguments();
    }
    if query.word("shared", &["allowed"])?.is_some() {
        options = options.allow_shared();
    }
    query.finish(
        "file",
        "`max_bytes`, `max_entries`, `max_entry_bytes`, `open_files`, `durability`, `single_flight`, `arguments`, \
         `shared`, `compress`, `seal` and `seal_context`; in front of it, `memory_max_entries` and `near_ttl`",
    )?;
    Ok(options.open(path)?.backend().clone())
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}
