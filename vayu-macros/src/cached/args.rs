//! The arguments of the attribute, parsed but not yet checked against the function: a table of them, and the fields that
//! they are parsed into.

pub(crate) mod format;
mod literal;
mod names;
mod parse;
mod time;
mod values;
mod written;

use syn::{Error, Expr, Ident, Path, Result};

pub(crate) use self::time::{ErrTtl, Time, Ttl};
use self::time::{parse_err_ttl, parse_expires_at, parse_time_of_all, parse_ttl};
pub(crate) use self::values::{Handle, KeySource, NameList};
use self::values::{
    parse_cache, parse_condition, parse_crate, parse_each, parse_handle, parse_jitter, parse_key,
    parse_label, parse_limit, parse_log, parse_own, parse_prefix, parse_skip, parse_tags,
    parse_version,
};
use self::written::Written;
use crate::cached::attribute::Attribute;

/// An argument that the attribute takes.
pub(crate) struct Keyword {
    pub(crate) name: &'static str,
    /// An example, as it is written.
    pub(crate) form: &'static str,
    /// The lines of its documentation in editors. None for `crate`, which cannot be the name of an item.
    pub(crate) documentation: &'static [&'static str],
    /// Parses what follows the name into a field.
    parse: fn(&mut Arguments, &Written<'_>) -> Result<()>,
}

impl Keyword {
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        KEYWORDS.iter().find(|keyword| keyword.name == name)
    }
}

macro_rules! keywords {
    ($(
        $(#[doc = $line:literal])*
        $name:literal: $form:literal => |$it:ident, $written:ident| $parse:expr,
    )*) => {
        /// The arguments, in the order of the documentation.
        pub(crate) const KEYWORDS: &[Keyword] = &[$(Keyword {
            name: $name,
            form: $form,
            documentation: &[$($line),*],
            parse: |$it, $written| {
                $parse;
                Ok(())
            },
        }),*];
    };
}

keywords! {
    /// Required, unless there is `expires_at`: the time to live of an entry.
    ///
    /// ```text
    /// ttl = "5m"                     // also "90s", "1h 30m", "5months"
    /// ttl = 30                       // seconds, also 0.5
    /// ttl = Duration::MAX            // no expiry; any expression of the type `Duration`
    /// ttl = |value: &Page| value.ttl // by value
    /// ```
    "ttl": "ttl = \"5m\"" => |it, written| it.set_ttl(written, parse_ttl)?,
    /// In place of `ttl`: the `SystemTime` at which a value expires, evaluated once, when the value is stored. A
    /// value whose moment has passed is not stored. It may name arguments: of an async function it gets clones of those
    /// that the body moves; the body of a sync function must not move them.
    ///
    /// ```text
    /// expires_at = |token: &Token| token.expires_at
    /// expires_at = next_midnight()
    /// ```
    "expires_at": "expires_at = |token| token.expires_at" => |it, written| it.set_ttl(written, parse_expires_at)?,
    /// The time past the ttl in which an entry may still be served, while one caller recomputes it
    /// (stale-while-revalidate) and when the function fails (stale-if-error).
    ///
    /// ```text
    /// stale = "1h"
    /// ```
    "stale": "stale = \"1h\"" => |it, written| it.options.stale = Some(parse_time_of_all(written, "30s")?),
    /// The time after which an entry that no call uses expires, whatever its ttl (sliding expiry, time to idle). For a
    /// `MemoryCache`, or with `max_entries`.
    ///
    /// ```text
    /// idle = "10m"
    /// ```
    "idle": "idle = \"10m\"" => |it, written| it.options.idle = Some(parse_time_of_all(written, "10m")?),
    /// For a function that returns a `Result` whose error is `Clone + Send + Sync + 'static`: the time for which an
    /// error is cached, in this process only (negative caching). A closure takes a reference to the error, and returns
    /// zero for one that is not cached. A value, also one that is stale, takes precedence.
    ///
    /// ```text
    /// err_ttl = "2s"
    /// err_ttl = |error: &Error| if error.is_not_found() { MINUTE } else { Duration::ZERO }
    /// ```
    "err_ttl": "err_ttl = \"2s\"" => |it, written| it.options.err_ttl = Some(parse_err_ttl(written)?),
    /// For a function that owns its arguments. With `stale`: runs the refresh of a value past its ttl in the
    /// background. Without `stale`, for an `async fn`: runs the computation as a task, which goes on if the caller is
    /// dropped.
    ///
    /// ```text
    /// spawn = tokio::spawn       // `async fn`
    /// spawn = std::thread::spawn // sync function; also `rayon::spawn`
    /// ```
    "spawn": "spawn = tokio::spawn" => |it, written| it.options.spawn = Some(written.not_literal()?),
    /// With `spawn`: borrowed arguments of which a run in the background gets a copy, by `ToOwned`. A hit copies nothing.
    ///
    /// ```text
    /// own(url, self)
    /// ```
    "own": "own(url, self)" => |it, written| it.own = Some(parse_own(written)?),
    /// With `stale` and `spawn`: how long a call that finds a value past its ttl waits for the new one, before it
    /// returns the old one. The run goes on.
    ///
    /// ```text
    /// patience = "50ms"
    /// ```
    "patience": "patience = \"50ms\"" => |it, written| it.options.patience = Some(written.named(parse_time_of_all(written, "50ms")?)),
    /// With `stale`: a function of the old value and the arguments, by reference, that is called past the ttl. If it
    /// returns `true`, the value is still current, and the body does not run. Alone: the body asks for the old value
    /// with `vayu::previous`.
    ///
    /// ```text
    /// revalidate = is_unchanged
    /// revalidate
    /// ```
    "revalidate": "revalidate = is_unchanged" => |it, written| it.options.revalidate = Some(written.named(written.optional_value()?)),
    /// Takes up to this share off each ttl at random.
    ///
    /// ```text
    /// jitter = "10%"
    /// ```
    "jitter": "jitter = \"10%\"" => |it, written| it.options.jitter = Some(parse_jitter(written)?),
    /// An expression for the cache. The default is `vayu::mem_cache()`.
    ///
    /// ```text
    /// cache = PAGES      // static PAGES: LazyLock<MemoryCache> = ..
    /// cache = self.cache
    /// ```
    "cache": "cache = PAGES" => |it, written| it.cache = Some(parse_cache(written)?),
    /// A memory cache of this function's own, with this limit on entries. All instantiations of a generic
    /// function share it; the entry of a `handle` returns it.
    ///
    /// ```text
    /// max_entries = 1_000
    /// ```
    "max_entries": "max_entries = 1_000" => |it, written| it.limits.max_entries = Some(written.named(parse_limit(written)?)),
    /// A memory cache of this function's own, with this limit on the sum of the weights of its values.
    ///
    /// ```text
    /// max_weight = 64 << 20, weigh = |page: &Page| page.bytes()
    /// ```
    "max_weight": "max_weight = 64 << 20" => |it, written| it.limits.max_weight = Some(written.named(parse_limit(written)?)),
    /// With `max_weight`: the weight of a value, a `u32`. The closure captures nothing. A value that is stored through
    /// `Entry::cache` is weighed by its type: one of a type that no call and no entry of the function has had weighs
    /// `u32::MAX`, and is not stored where the limit is lower.
    ///
    /// ```text
    /// weigh = |page: &Page| page.bytes()
    /// ```
    "weigh": "weigh = |value| .." => |it, written| it.limits.weigh = Some(written.named(written.not_literal()?)),
    /// A string in place of the function's path: functions with the same prefix share entries.
    ///
    /// ```text
    /// prefix = "users"
    /// ```
    "prefix": "prefix = \"users\"" => |it, written| it.options.prefix = Some(parse_prefix(written)?),
    /// The key, in place of the arguments.
    ///
    /// ```text
    /// key = format!("{id}")
    /// key = |id, _client| id.to_string()
    /// key = "all"
    /// ```
    "key": "key = format!(\"{id}\")" => |it, written| it.key = Some(parse_key(written)?),
    /// Arguments that are left out of the key, and then need no `Serialize`.
    ///
    /// ```text
    /// skip(client)
    /// skip(self)
    /// ```
    "skip": "skip(client)" => |it, written| it.skip = Some(parse_skip(written)?),
    /// More parts of the key.
    ///
    /// ```text
    /// include(self.id, path.0)
    /// ```
    "include": "include(self.id)" => |it, written| it.options.include = written.expressions()?,
    /// A serializer other than that of the cache.
    ///
    /// ```text
    /// serializer = Json
    /// ```
    "serializer": "serializer = Json" => |it, written| it.serializer = Some(written.not_literal()?),
    /// `false`: no `tracing` events.
    ///
    /// ```text
    /// log = false
    /// ```
    "log": "log = false" => |it, written| it.options.is_quiet = !parse_log(written)?,
    /// A predicate on the value, of a `Result` on the value in `Ok`: only values for which it is true are
    /// cached.
    ///
    /// ```text
    /// cache_if = |value| !value.is_empty()
    /// cache_if = Option::is_some
    /// ```
    "cache_if": "cache_if = |value| .." => |it, written| it.options.cache_if = Some(written.not_literal()?),
    /// A condition on the arguments: calls for which it is true run the function and store its value, whatever is
    /// stored. Such calls at the same time share one run.
    ///
    /// ```text
    /// refresh_if = is_forced, skip(is_forced)
    /// ```
    "refresh_if": "refresh_if = is_forced" => |it, written| it.options.refresh_if = Some(parse_condition(written)?),
    /// A condition on the arguments: calls for which it is true run the function without the cache.
    ///
    /// ```text
    /// bypass_if = user.is_editor
    /// ```
    "bypass_if": "bypass_if = is_preview" => |it, written| it.options.bypass_if = Some(parse_condition(written)?),
    /// An integer or a string: entries of another version are misses.
    ///
    /// ```text
    /// version = 2
    /// ```
    "version": "version = 2" => |it, written| it.options.version = Some(parse_version(written)?),
    /// Tags of the entry. `Cache::invalidate_tag` invalidates all entries that have one.
    ///
    /// ```text
    /// tags("user:{id}", &group)
    /// ```
    "tags": "tags(\"user:{id}\")" => |it, written| it.options.tags = parse_tags(written)?,
    /// The call in listings, in place of its arguments.
    ///
    /// ```text
    /// label = "{path}"
    /// ```
    "label": "label = \"{name}\"" => |it, written| it.options.label = Some(parse_label(written)?),
    /// The name of a companion function that returns the entry of a call. With `each`, it takes one element and returns the
    /// entry of that.
    ///
    /// ```text
    /// handle = user_entry
    /// handle = Self::user_entry // beside an associated function without `self`
    /// ```
    "handle": "handle = user_entry" => |it, written| it.handle = Some(parse_handle(written)?),
    /// The argument whose elements have an entry each. The function runs once with those that are missing, and
    /// returns a map from the element to its value, or a `Vec` in the order of the elements.
    ///
    /// ```text
    /// each = ids, prefix = "user" // shares the entries of a function of one `id` with this prefix
    /// ```
    "each": "each = ids" => |it, written| it.batch.each = Some(written.named(parse_each(written)?)),
    /// With `each`: the maximum number of elements of one run.
    ///
    /// ```text
    /// each = ids, at_most = 100
    /// ```
    "at_most": "at_most = 100" => |it, written| it.batch.at_most = Some(written.named(parse_limit(written)?)),
    "crate": "crate = renamed" => |it, written| it.root = Some(parse_crate(written)?),
}

/// All arguments.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) attribute: Attribute,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) cache: Option<Expr>,
    pub(crate) limits: Limits,
    pub(crate) key: Option<KeySource>,
    pub(crate) skip: Option<NameList>,
    pub(crate) own: Option<NameList>,
    pub(crate) serializer: Option<Expr>,
    pub(crate) handle: Option<Handle>,
    pub(crate) batch: BatchArguments,
    pub(crate) root: Option<Path>,
    pub(crate) options: Options,
    /// True if every argument was understood. If not, what seems to be missing is not reported.
    pub(crate) is_complete: bool,
    /// The arguments as they are written.
    pub(crate) text: String,
    /// Their names, including unknown ones.
    pub(crate) names: Vec<Ident>,
}

/// The arguments that code is generated from as they are. The others are first combined with the function.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) stale: Option<Time>,
    pub(crate) idle: Option<Time>,
    pub(crate) err_ttl: Option<ErrTtl>,
    pub(crate) spawn: Option<Expr>,
    /// With its name in the attribute.
    pub(crate) patience: Option<(Ident, Time)>,
    /// With its name in the attribute; without a value, the body asks for the old value itself.
    pub(crate) revalidate: Option<(Ident, Option<Expr>)>,
    pub(crate) refresh_if: Option<Expr>,
    pub(crate) bypass_if: Option<Expr>,
    /// In thousandths.
    pub(crate) jitter: Option<u16>,
    pub(crate) prefix: Option<Expr>,
    pub(crate) include: Vec<Expr>,
    pub(crate) is_quiet: bool,
    pub(crate) cache_if: Option<Expr>,
    pub(crate) version: Option<String>,
    pub(crate) tags: Vec<Expr>,
    pub(crate) label: Option<Expr>,
}

/// `each = name, at_most = 100`.
#[derive(Default)]
pub(crate) struct BatchArguments {
    /// The keyword, and the name.
    pub(crate) each: Option<(Ident, Ident)>,
    pub(crate) at_most: Option<(Ident, Expr)>,
}

/// The limits of a memory cache of the function's own, each with its name in the attribute.
#[derive(Default)]
pub(crate) struct Limits {
    pub(crate) max_entries: Option<(Ident, Expr)>,
    pub(crate) max_weight: Option<(Ident, Expr)>,
    pub(crate) weigh: Option<(Ident, Expr)>,
}

impl Arguments {
    fn set_ttl(
        &mut self,
        written: &Written<'_>,
        parse: impl FnOnce(&Written<'_>) -> Result<Ttl>,
    ) -> Result<()> {
        if self.ttl.is_some() {
            let message =
                "`ttl` and `expires_at` both say when a value expires; remove one of the two";
            return Err(Error::new(written.name.span(), message));
        }
        self.ttl = Some(parse(written)?);
        Ok(())
    }
}
