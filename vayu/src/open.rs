//! The choice of a cache at run time.

mod parameters;

use std::sync::Arc;

use vayu_core::{Backend, Cache, Error, ErrorKind, Result};
use vayu_memory::{MemoryBackend, MemoryOptions};
use vayu_tiered::{AnyCache, TieredOptions, TieredSerializer, TieredValue};

use self::parameters::Parameters;

/// The cache that a text says, as it may stand in the configuration of a service.
///
/// | text | cache |
/// |---|---|
/// | `memory:` | in memory, of 10,000 entries; `memory:?max_entries=500` |
/// | `file:///var/cache/app` | in a directory (feature `file`); `file:name` below the current one |
/// | `redis://host/0` | on a Redis server (feature `redis`); all that `RedisOptions::connect` takes |
/// | `memory+file:..`, `memory+redis:..` | memory in front of the other |
/// | `off:` | off: every call runs its function, nothing is read or stored |
///
/// Options follow a question mark: `file:///var/cache/app?max_bytes=1GiB`, `redis://host?namespace=app`.
/// For directories these are `max_bytes`, `max_entries`, `max_entry_bytes` (`1000`, `64KiB`, `1GiB`),
/// `open_files`, `durability=synced`, `single_flight=everywhere` and `shared=allowed`; for memory in front
/// of another tier `memory_max_entries` and `near_ttl` (`500ms`, `10s`, `5m`). In a path `%20` stands for a space.
///
/// All of these are of one type, so values need what any of them needs: `Clone + Send + Sync + 'static`
/// and serde's `Serialize` and `DeserializeOwned`.
///
/// # Errors
///
/// [`ErrorKind::Configuration`] for what is wrong in the text, and the errors of opening the cache.
///
/// # Examples
///
/// ```
/// use std::sync::LazyLock;
/// use vayu::{AnyCache, cached};
///
/// static CACHE: LazyLock<AnyCache> = LazyLock::new(|| {
///     let text = std::env::var("CACHE").unwrap_or_else(|_| "memory:".to_owned());
///     vayu::open_or_off(&text)
/// });
///
/// #[cached(cache = CACHE, ttl = "5m")]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
/// # assert_eq!((square(12), square(12)), (144, 144));
/// # assert_eq!(CACHE.stats().hits, 1);
/// ```
pub fn open(text: impl AsRef<str>) -> Result<AnyCache> {
    let text = text.as_ref();
    let (scheme, _) = text.split_once(':').ok_or_else(|| {
        wrong("a cache is written as `memory:`, `file:///path` or `redis://host`")
    })?;
    let backend = match (scheme.split_once('+'), scheme) {
        (_, "off") if text == "off:" => return Ok(Cache::off_by_choice()),
        (_, "off") => return Err(wrong("nothing follows `off:`")),
        (_, "memory") => in_memory(text)?,
        (Some(("memory", _)), _) => below(&text["memory+".len()..], Tier::Below)?,
        _ => below(text, Tier::Alone)?,
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

type AnyBackend = Arc<dyn Backend<Stored = TieredValue>>;

/// Whether memory is in front.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    Alone,
    Below,
}

fn in_memory(text: &str) -> Result<AnyBackend> {
    let mut parameters = Parameters::of(text);
    if parameters.path() != "memory:" {
        return Err(wrong("nothing but options follows `memory:`"));
    }
    let options = memory(&mut parameters, "max_entries")?;
    parameters.finish("a cache in memory")?;
    Ok(Arc::new(MemoryBackend::<TieredValue>::with_options(options)))
}

fn memory(parameters: &mut Parameters<'_>, name: &str) -> Result<MemoryOptions> {
    let options = MemoryOptions::new();
    Ok(match parameters.number(name)? {
        Some(entries) => options.max_entries(entries),
        None => options,
    })
}

/// The options of memory in front of another tier.
fn in_front(parameters: &mut Parameters<'_>) -> Result<TieredOptions> {
    let options = TieredOptions::new().memory(memory(parameters, "memory_max_entries")?);
    Ok(match parameters.time("near_ttl")? {
        Some(time) => options.near_ttl(time),
        None => options,
    })
}

fn below(text: &str, tier: Tier) -> Result<AnyBackend> {
    let mut parameters = Parameters::of(text);
    #[cfg_attr(
        not(any(feature = "file", feature = "redis")),
        expect(unused_variables, reason = "there is nothing to put it in front of")
    )]
    let memory = match tier {
        Tier::Alone => None,
        Tier::Below => Some(in_front(&mut parameters)?),
    };
    let scheme = text.split(':').next().unwrap_or_default();
    match scheme.split('+').next().unwrap_or_default() {
        #[cfg(feature = "file")]
        "file" => Ok(tiers(file(parameters)?, memory)),
        #[cfg(not(feature = "file"))]
        "file" => Err(wrong("a cache in a directory needs the feature `file`")),
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "valkey" | "valkeys" | "unix" => {
            let url = parameters.without_taken();
            let cache = vayu_redis::RedisOptions::new().connect(url)?;
            Ok(tiers(cache.backend().clone(), memory))
        }
        #[cfg(not(feature = "redis"))]
        "redis" | "rediss" | "valkey" | "valkeys" | "unix" => {
            Err(wrong("a cache on a Redis server needs the feature `redis`"))
        }
        // The text may hold a password, so only what looks like a word is told.
        word if !word.is_empty() && word.chars().all(|letter| letter.is_ascii_alphabetic()) => {
            Err(wrong(format!("there is no cache of the kind `{word}`")))
        }
        _ => Err(wrong("a cache is written as `memory:`, `file:///path` or `redis://host`")),
    }
}

#[cfg(any(feature = "file", feature = "redis"))]
fn tiers<F>(backing: F, memory: Option<TieredOptions>) -> AnyBackend
where
    F: Backend<Stored = bytes::Bytes>,
{
    match memory {
        Some(memory) => Arc::new(memory.backend(backing)),
        None => Arc::new(vayu_tiered::Untiered::new(backing)),
    }
}

#[cfg(feature = "file")]
fn file(mut parameters: Parameters<'_>) -> Result<vayu_file::FileBackend> {
    use vayu_core::SingleFlight;
    use vayu_file::{Durability, FileOptions};

    let path = parameters.path().strip_prefix("file:").unwrap_or_default();
    let path = match path.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => {
            return Err(wrong("a directory has no host: write `file:///path`, or `file:path`"));
        }
        None => path,
    };
    if path.is_empty() {
        return Err(wrong("there is no path behind `file:`"));
    }
    let path = parameters::decode(path)?;
    let mut options = FileOptions::new();
    if let Some(bytes) = parameters.number("max_bytes")? {
        options = options.max_bytes(bytes);
    }
    if let Some(entries) = parameters.number("max_entries")? {
        options = options.max_entries(entries);
    }
    if let Some(bytes) = parameters.number("max_entry_bytes")? {
        options = options.max_entry_bytes(bytes);
    }
    if let Some(files) = parameters.number("open_files")? {
        options = options.open_files(usize::try_from(files).unwrap_or(usize::MAX));
    }
    if parameters.word("durability", &["relaxed", "synced"])? == Some("synced") {
        options = options.durability(Durability::Synced);
    }
    if parameters.word("single_flight", &["process", "everywhere"])? == Some("everywhere") {
        options = options.single_flight(SingleFlight::Everywhere);
    }
    if parameters.word("shared", &["allowed"])?.is_some() {
        options = options.allow_shared();
    }
    parameters.finish("a cache in a directory")?;
    Ok(options.open(path)?.backend().clone())
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}
