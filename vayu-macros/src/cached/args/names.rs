//! Names that are not arguments: what to write for each.

use syn::Lit;

use crate::cached::args::{KEYWORDS, Keyword};
use crate::cached::attribute::Attribute;
use crate::duration;

/// The names that other libraries use, in lower case and separated by spaces, with what to write instead.
const FOREIGN: [(&str, &str); 35] = [
    (
        "size maxsize max_size maximum_size capacity max_capacity limit",
        "write `max_entries = 1_000` for a memory cache of this function's own with that limit; the \
         limits of another cache are set where it is built",
    ),
    (
        "max_memory memory_limit max_bytes maximum_weight weigher weight",
        "write `max_weight = 64 << 20, weigh = |value| ..` for a memory cache of this function's own \
         with that limit",
    ),
    (
        "expire_at valid_until expires_on deadline until not_after exat pxat",
        "write `expires_at = |token| token.expires_at` with the `SystemTime` at which a value expires",
    ),
    ("result", "of a `Result` only `Ok` is cached; remove it"),
    ("option", "write `cache_if = Option::is_some`"),
    (
        "convert key_fn key_by key_builder key_generator keygen make_cache_key cache_key",
        "write `key = format!(\"{id}\")`, or a closure of the arguments",
    ),
    (
        "sync_writes sync_writes_buckets sync sync_lock single_flight coalesce lock",
        "concurrent calls with the same arguments run the function once; remove it",
    ),
    (
        "name cache_name cache_names",
        "write `cache = PAGES` for a cache of its own, `prefix = \"users\"` for the name in the keys, or \
         `handle = user_entry` to access the entry of a call",
    ),
    (
        "unbound unbounded",
        "write `ttl = Duration::MAX` for entries that do not expire; the limits are those of \
         the cache",
    ),
    (
        "type ty create cache_type cache_create backend store storage",
        "write `cache = PAGES`, where `static PAGES: LazyLock<MemoryCache>` or another cache is \
         created",
    ),
    (
        "disk disk_dir redis connection_config dir directory path url memory",
        "write `cache = PAGES`, where `static PAGES` is a `FileCache`, a `RedisCache` or what \
         `vayu::open` returns",
    ),
    (
        "refresh time_refresh sliding tti time_to_idle expire_after_access",
        "write `idle = \"10m\"`, the time after which an entry that is not used expires, or `stale = \"1h\"` to \
         serve the old value during a refresh",
    ),
    (
        "force_refresh refresh_when invalidate_if invalidate_on",
        "write `refresh_if = is_forced` with a condition on the arguments, or `handle = user_entry` and \
         call `user_entry(..).refresh()` or `.invalidate()`",
    ),
    (
        "no_cache bypass skip_cache uncached disable_if enabled enable_if cache_bypass",
        "write `bypass_if = is_preview` with a condition on the arguments",
    ),
    (
        "with_cached_flag cached_flag was_cached peek",
        "write `handle = user_entry`; `user_entry(..).peek()` returns a cached value and runs \
         nothing",
    ),
    (
        "result_fallback fallback stale_while_revalidate stale_if_error swr grace grace_period stale_ttl \
         stale_for background_refresh refresh_after_write",
        "write `stale = \"1h\"`, the time past the ttl in which the old value may be served",
    ),
    ("tag group groups dependencies events", "write `tags(\"user:{id}\")`"),
    (
        "ignore exclude skip_args skip_all noself without",
        "write `skip(client)` to leave an argument out of the key",
    ),
    (
        "args params vary vary_by key_args with extra",
        "all arguments are in the key; write `include(self.id)` for more, or `skip(client)` for \
         less",
    ),
    (
        "if when condition unless only_if skip_if store_if cache_when predicate filter \
         cache_none",
        "write `cache_if = |value| ..` with a predicate on the value",
    ),
    (
        "cache_errors cache_err cache_error neg_ttl negative_ttl error_ttl ttl_error failure_ttl exception_ttl",
        "write `err_ttl = \"2s\"` to cache errors in this process for that time",
    ),
    (
        "namespace key_prefix cache_prefix cache_prefix_block group_name region",
        "write `prefix = \"users\"`",
    ),
    ("schema revision generation salt", "write `version = 2`"),
    (
        "codec format encoding encoder coder ser serialize serde",
        "write `serializer = Json` with the value of a serializer",
    ),
    ("quiet silent logging verbose trace tracing log_level", "write `log = false` for no events"),
    ("entry companion handler accessor", "write `handle = user_entry`"),
    (
        "batch batched bulk many multi multi_get get_many elements items for_each per",
        "write `each = ids` with the name of the argument whose elements have an entry each",
    ),
    (
        "batch_size chunk chunk_size chunks page_size max_batch max_batch_size",
        "write `each = ids, at_most = 100` for runs with at most 100 elements each",
    ),
    ("executor runtime spawner tokio task", "write `spawn = tokio::spawn`"),
    (
        "clone clone_args copy to_owned owned owns",
        "write `own(url, self)` for copies of borrowed arguments in a run in the background",
    ),
    (
        "soft_timeout factory_soft_timeout factory_timeout refresh_timeout stale_timeout wait max_wait",
        "write `stale = \"1h\", spawn = tokio::spawn, patience = \"50ms\"`: a call waits so long for the new \
         value and then returns the old one",
    ),
    (
        "conditional etag if_modified_since not_modified reload reloader",
        "write `revalidate = is_unchanged` with a function of the old value and the arguments, or `revalidate` and \
         call `vayu::previous` in the body",
    ),
    ("dogpile random spread ttl_jitter fuzz", "write `jitter = \"10%\"`"),
    (
        "map_error on_error ignore_errors",
        "a call does not return errors of the cache: they are logged and counted; remove it",
    ),
    (
        "sharedcache shared thread_local threads policy eviction lru customhasher hasherinit",
        "threads share one cache, which has its own eviction; choose one with `cache = PAGES`",
    ),
];

/// The names that others give to the ttl, with the unit of a bare number.
const TIMES: [(&str, &str); 5] = [
    (
        "time ttl_secs ttl_sec ttl_seconds ttl_s secs seconds timeout expire expires expiry \
         expires_in expire_in expiration expire_after expire_after_write time_to_live \
         timetolive lifetime lifespan max_age maxage duration ex exp age life valid_for period",
        "s",
    ),
    ("time_millis ttl_millis ttl_ms millis milliseconds ms px time_ms", "ms"),
    ("ttl_mins ttl_minutes ttl_min minutes mins", "m"),
    ("ttl_hours hours", "h"),
    ("ttl_days days", "d"),
];

/// Returns the message about an argument that is known, but not one of this attribute.
pub(crate) fn refused(attribute: Attribute, keyword: &Keyword) -> Option<String> {
    const OF_SINGLE_FLIGHT: [&str; 6] = ["prefix", "key", "skip", "include", "log", "crate"];
    match (attribute, keyword.name) {
        (Attribute::SingleFlight, name) if !OF_SINGLE_FLIGHT.contains(&name) => Some(format!(
            "`single_flight` stores nothing, so it does not take `{name}`; remove it, or write \
             `#[cached(..)]` for results that are stored"
        )),
        (Attribute::MemCached, "cache") => Some(
            "`mem_cached` always uses `vayu::mem_cache()`; write `#[cached(cache = ..)]`".to_owned(),
        ),
        (Attribute::MemCached, "max_entries" | "max_weight" | "weigh") => Some(format!(
            "`mem_cached` always uses `vayu::mem_cache()`; write `#[cached({})]`",
            keyword.form
        )),
        (Attribute::MemCached, "label") => Some(
            "a label is stored in files and on servers only; `mem_cached` keeps its entries in memory"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Returns the message about an unknown argument with this value, if it has a literal one.
pub(crate) fn unknown(name: &str, value: Option<&Lit>) -> String {
    let plain = name.trim_start_matches("r#").to_lowercase();
    let hint = instead_of_time(&plain, value)
        .or_else(|| foreign(&plain).map(ToOwned::to_owned))
        .or_else(|| similar(&plain).map(|known| format!("write `{}`", known.form)))
        .unwrap_or_else(all);
    format!("there is no argument `{name}`; {hint}")
}

fn foreign(name: &str) -> Option<&'static str> {
    FOREIGN
        .iter()
        .find(|(names, _)| names.split(' ').any(|other| other == name))
        .map(|(_, hint)| *hint)
}

fn instead_of_time(name: &str, value: Option<&Lit>) -> Option<String> {
    let (_, unit) = TIMES.iter().find(|(names, _)| names.split(' ').any(|other| other == name))?;
    let time = match value {
        Some(Lit::Int(number)) if *unit == "s" && number.suffix().is_empty() => number.to_string(),
        Some(Lit::Int(number)) if number.suffix().is_empty() => {
            format!("\"{}{unit}\"", number.base10_digits())
        }
        Some(Lit::Str(text)) if duration::parse(&text.value()).is_ok() => {
            format!("\"{}\"", text.value())
        }
        _ if *unit == "ms" => "\"500ms\"".to_owned(),
        _ => "\"5m\"".to_owned(),
    };
    Some(format!("write `ttl = {time}`"))
}

fn all() -> String {
    let names: Vec<String> = KEYWORDS.iter().map(|known| format!("`{}`", known.name)).collect();
    format!("the arguments are {}", names.join(", "))
}

/// Returns the argument that is nearest by spelling: up to one edit for each three letters.
fn similar(name: &str) -> Option<&'static Keyword> {
    let limit = |known: &str| ((known.len().max(name.len()) + 1) / 3).max(1);
    KEYWORDS
        .iter()
        .map(|known| (distance(name, known.name), known))
        .filter(|(distance, known)| *distance <= limit(known.name))
        .min_by_key(|(distance, known)| (*distance, known.name))
        .map(|(_, known)| known)
}

/// Returns the number of letters to insert, delete, replace or swap with the next (the restricted
/// Damerau-Levenshtein distance).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let last = &rows[i - 1];
            let replaced = last[j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut fewest = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                fewest = fewest.min(rows[i - 2][j - 2] + 1);
            }
            row.push(fewest);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_name_is_corrected() {
        for (name, known) in [
            ("tll", "ttl"),
            ("tl", "ttl"),
            ("ttls", "ttl"),
            ("tag_s", "tags"),
            ("stales", "stale"),
            ("cach", "cache"),
            ("chace", "cache"),
            ("cacheif", "cache_if"),
            ("cache_iff", "cache_if"),
            ("serialiser", "serializer"),
            ("serializers", "serializer"),
            ("verison", "version"),
            ("handel", "handle"),
            ("spwan", "spawn"),
            ("prefx", "prefix"),
            ("includes", "include"),
            ("skips", "skip"),
            ("keys", "key"),
            ("jiter", "jitter"),
            ("logs", "log"),
        ] {
            assert_eq!(similar(name).map(|known| known.name), Some(known), "{name}");
        }
        for name in ["colour", "x", "database", "everything"] {
            assert!(similar(name).is_none(), "{name}");
        }
    }

    #[test]
    fn names_of_other_libraries_are_lower_case_and_listed_once() {
        let foreign = FOREIGN.iter().chain(&TIMES).flat_map(|(names, _)| names.split(' '));
        let mut seen: Vec<&str> = Vec::new();
        for name in foreign {
            assert!(Keyword::find(name).is_none() && !seen.contains(&name), "{name}");
            assert_eq!(name, name.to_lowercase());
            seen.push(name);
        }
    }

    #[test]
    fn every_proposed_argument_exists() {
        for (_, hint) in FOREIGN {
            let assigned = hint.split('`').skip(1).step_by(2).filter(|code| code.contains(" = "));
            for code in assigned {
                let name = code.split(" = ").next().unwrap_or_default();
                assert!(Keyword::find(name).is_some(), "{code}");
            }
        }
    }
}
