//! Traps of keys, values and times.

#![allow(
    clippy::needless_pass_by_value,
    clippy::used_underscore_binding,
    reason = "cached functions own their arguments, and attributes use those that a body does not"
)]

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use hitbox::policy::PolicyConfig;
use hitbox_moka::MokaBackend;

use super::Program::{DoesNotCompile, None as Without, Run};
use super::{Outcome, Trap, expect};

const ASYNC_ONLY: &str = "for async functions only";
const KEYS_BY_HAND: &str = "the caller makes the keys";

pub(super) const TRAPS: &[Trap] = &[
    Trap {
        name: "alias",
        title: "the return type is an alias of `Result`: `Err` is not cached",
        programs: &[
            ("vayu", Run(|| alias(vayu_alias))),
            ("cached", Run(|| alias(cached_alias))),
            ("cached by_key", Run(|| alias(by_key_alias))),
            ("cachelito", Run(|| alias(cachelito_alias))),
            ("memoize", Run(|| alias(memoize_alias))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            (
                "moka",
                Run(|| {
                    alias(|n| {
                        MOKA.try_get_with(n, || fails_once(n)).map_err(|error| (*error).clone())
                    })
                }),
            ),
        ],
        documented: "[cached](https://docs.rs/cached): \"a type alias is cached as a plain value\"",
    },
    Trap {
        name: "name",
        title: "functions of one name in two modules, on one store where the crate has shared stores: own entries",
        programs: &[
            ("vayu", Run(|| expect("the second value", &(one::price(1), two::price(1)).1, &2))),
            (
                "cached",
                Run(|| {
                    expect("the second value", &(one::cached_price(1), two::cached_price(1)).1, &2)
                }),
            ),
            ("cached by_key", Without("as `cached`")),
            (
                "cachelito",
                Run(|| {
                    expect(
                        "the second value",
                        &(one::cachelito_price(1), two::cachelito_price(1)).1,
                        &2,
                    )
                }),
            ),
            (
                "memoize",
                Run(|| {
                    expect(
                        "the second value",
                        &(one::memoize_price(1), two::memoize_price(1)).1,
                        &2,
                    )
                }),
            ),
            ("hitbox", Run(hitbox_names)),
            ("hitbox concurrency", Without("as without it: the setting does not change keys")),
            ("moka", Without(KEYS_BY_HAND)),
        ],
        documented: "",
    },
    Trap {
        name: "generic",
        title: "a generic function is called at two types: own entries",
        programs: &[
            (
                "vayu",
                Run(|| {
                    expect("the second value", &(vayu_size::<u8>(1), vayu_size::<u64>(1)).1, &8)
                }),
            ),
            (
                "cached",
                Run(|| expect("the second value", &(cached_size(1_u8), cached_size(1_u64)).1, &8)),
            ),
            ("cached by_key", Without("as `cached`")),
            (
                "cachelito",
                Run(|| {
                    expect(
                        "the second value",
                        &(cachelito_size::<u8>(1), cachelito_size::<u64>(1)).1,
                        &8,
                    )
                }),
            ),
            ("memoize", DoesNotCompile("E0425: cannot find type `T` in this scope")),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Without(KEYS_BY_HAND)),
        ],
        documented: "[cached](https://docs.rs/cached): \"generic functions need `key` and `convert`\"",
    },
    Trap {
        name: "floats",
        title: "arguments 1e-9 and 2e-9: own entries",
        programs: &[
            (
                "vayu",
                Run(|| expect("the second value", &(vayu_float(1e-9), vayu_float(2e-9)).1, &2)),
            ),
            (
                "cached",
                Run(|| expect("the second value", &(cached_float(1e-9), cached_float(2e-9)).1, &2)),
            ),
            ("cached by_key", Without("as `cached`")),
            (
                "cachelito",
                Run(|| {
                    expect(
                        "the second value",
                        &(cachelito_float(1e-9), cachelito_float(2e-9)).1,
                        &2,
                    )
                }),
            ),
            (
                "memoize",
                DoesNotCompile(
                    "E0599: the method `get` exists for `HashMap<f64, u64>`, but its trait bounds were not satisfied",
                ),
            ),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Without(KEYS_BY_HAND)),
        ],
        documented: "[cached](https://docs.rs/cached): floats need `convert`, e.g. `format!(\"{x:.6}\")`, which this program uses",
    },
    Trap {
        name: "redacted",
        title: "two tokens whose `Debug` is redacted: own entries",
        programs: &[
            (
                "vayu",
                Run(|| {
                    expect(
                        "the second value",
                        &(vayu_token(token("a")), vayu_token(token("bc"))).1,
                        &2,
                    )
                }),
            ),
            (
                "cached",
                Run(|| {
                    expect(
                        "the second value",
                        &(cached_token(token("a")), cached_token(token("bc"))).1,
                        &2,
                    )
                }),
            ),
            ("cached by_key", Without("as `cached`")),
            (
                "cachelito",
                Run(|| {
                    expect(
                        "the second value",
                        &(cachelito_token(token("a")), cachelito_token(token("bc"))).1,
                        &2,
                    )
                }),
            ),
            (
                "memoize",
                Run(|| {
                    expect(
                        "the second value",
                        &(memoize_token(token("a")), memoize_token(token("bc"))).1,
                        &2,
                    )
                }),
            ),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Without(KEYS_BY_HAND)),
        ],
        documented: "[cachelito](https://docs.rs/cachelito): default keys are `Debug`",
    },
    Trap {
        name: "strings",
        title: "arguments (\"ab\", \"c\") and (\"a\", \"bc\"): own entries",
        programs: &[
            ("vayu", Run(|| strings(vayu_strings))),
            ("cached", Run(|| strings(cached_strings))),
            ("cached by_key", Without("as `cached`")),
            ("cachelito", Run(|| strings(cachelito_strings))),
            ("memoize", Run(|| strings(memoize_strings))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Without(KEYS_BY_HAND)),
        ],
        documented: "",
    },
    Trap {
        name: "forever",
        title: "the longest ttl that can be written: the second call is a hit",
        programs: &[
            ("vayu", Run(|| forever(vayu_forever))),
            ("cached", Run(|| forever(cached_forever))),
            ("cached by_key", Without("as `cached`")),
            ("cachelito", Run(|| forever(cachelito_forever))),
            ("memoize", Run(|| forever(memoize_forever))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            (
                "moka",
                Run(|| {
                    static FOREVER: LazyLock<moka::sync::Cache<u64, u64>> = LazyLock::new(|| {
                        moka::sync::Cache::builder().time_to_live(Duration::MAX).build()
                    });
                    forever(|n| FOREVER.get_with(n, || count(n)))
                }),
            ),
        ],
        documented: "[moka](https://docs.rs/moka): a ttl above 1,000 years panics",
    },
    Trap {
        name: "drop",
        title: "a value calls the function when it is evicted and dropped: all calls return",
        programs: &[
            ("vayu", Run(|| evictions(vayu_value))),
            ("cached", Run(|| evictions(cached_value))),
            ("cached by_key", Without("as `cached`")),
            ("cachelito", Run(|| evictions(cachelito_value))),
            ("memoize", Run(|| evictions(memoize_value))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Run(|| evictions(moka_value))),
        ],
        documented: "",
    },
    Trap {
        name: "another-thread",
        title: "with the defaults of the crate, a value that one thread has computed is a hit in another",
        programs: &[
            ("vayu", Run(|| another_thread(vayu_count))),
            ("cached", Run(|| another_thread(cached_count))),
            ("cached by_key", Without("as `cached`")),
            ("cachelito", Run(|| another_thread(cachelito_count))),
            ("memoize", Run(|| another_thread(memoize_count))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Run(|| another_thread(|n| NUMBERS.get_with(n, || count(n))))),
        ],
        documented: "[memoize](https://docs.rs/memoize): each thread has its own cache by default",
    },
];

static RUNS: AtomicU64 = AtomicU64::new(0);
static MOKA: LazyLock<moka::sync::Cache<u64, u64>> = LazyLock::new(|| moka::sync::Cache::new(100));
static NUMBERS: LazyLock<moka::sync::Cache<u64, u64>> =
    LazyLock::new(|| moka::sync::Cache::new(100));
static HITBOX: LazyLock<hitbox_fn::Cache<MokaBackend>> = LazyLock::new(|| {
    hitbox_fn::Cache::builder()
        .backend(MokaBackend::builder().max_entries(100).build())
        .policy(PolicyConfig::builder().ttl(Duration::from_hours(1)).build())
        .build()
});

fn count(n: u64) -> u64 {
    RUNS.fetch_add(1, Ordering::SeqCst);
    n
}

type Answer = Result<u64, String>;

fn fails_once(n: u64) -> Answer {
    if RUNS.fetch_add(1, Ordering::SeqCst) == 0 { Err("unavailable".to_owned()) } else { Ok(n) }
}

#[vayu::cached(ttl = "1h")]
fn vayu_alias(n: u64) -> Answer {
    fails_once(n)
}

#[cached::macros::cached]
fn cached_alias(n: u64) -> Answer {
    fails_once(n)
}

#[cached::macros::cached(sync_writes = "by_key")]
fn by_key_alias(n: u64) -> Answer {
    fails_once(n)
}

#[cachelito::cache]
fn cachelito_alias(n: u64) -> Answer {
    fails_once(n)
}

#[memoize::memoize(SharedCache)]
fn memoize_alias(n: u64) -> Answer {
    fails_once(n)
}

fn alias(call: fn(u64) -> Answer) -> Outcome {
    let _ = call(1);
    expect("the second result", &call(1), &Ok(1))
}

/// Two modules with functions of the same names.
macro_rules! module {
    ($name:ident, $value:literal) => {
        #[expect(dead_code, reason = "memoize defines functions that no program uses")]
        mod $name {
            use std::convert::Infallible;

            use super::Number;

            #[vayu::cached(ttl = "1h")]
            pub(super) fn price(_id: u64) -> u64 {
                $value
            }

            #[cached::macros::cached]
            pub(super) fn cached_price(_id: u64) -> u64 {
                $value
            }

            #[cachelito::cache]
            pub(super) fn cachelito_price(_id: u64) -> u64 {
                $value
            }

            #[memoize::memoize(SharedCache)]
            pub(super) fn memoize_price(_id: u64) -> u64 {
                $value
            }

            #[hitbox_fn::prelude::cached]
            pub(super) async fn hitbox_price(_id: Number) -> Result<u64, Infallible> {
                Ok($value)
            }
        }
    };
}

module!(one, 1);
module!(two, 2);

#[derive(hitbox_fn::KeyExtract)]
pub(crate) struct Number(u64);

fn hitbox_names() -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let value: Result<u64, Infallible> = runtime.block_on(async {
        one::hitbox_price(Number(1)).cache(&*HITBOX).await?;
        two::hitbox_price(Number(1)).cache(&*HITBOX).await
    });
    expect("the second value", &value, &Ok(2))
}

#[vayu::cached(ttl = "1h")]
fn vayu_size<T: 'static>(n: u64) -> u64 {
    n * size_of::<T>() as u64
}

#[cached::macros::cached(key = "String", convert = { n.to_string() })]
fn cached_size<T: fmt::Display>(n: T) -> u64 {
    size_of_val(&n) as u64
}

#[cachelito::cache]
fn cachelito_size<T: 'static>(n: u64) -> u64 {
    n * size_of::<T>() as u64
}

fn nano(x: f64) -> u64 {
    (x * 1e9).round() as u64
}

#[vayu::cached(ttl = "1h")]
fn vayu_float(x: f64) -> u64 {
    nano(x)
}

#[cached::macros::cached(key = "String", convert = { format!("{x:.6}") })]
fn cached_float(x: f64) -> u64 {
    nano(x)
}

#[cachelito::cache]
fn cachelito_float(x: f64) -> u64 {
    nano(x)
}

#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize)]
struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl cachelito::DefaultCacheableKey for Token {}

fn token(text: &str) -> Token {
    Token(text.to_owned())
}

#[vayu::cached(ttl = "1h")]
fn vayu_token(token: Token) -> usize {
    token.0.len()
}

#[cached::macros::cached]
fn cached_token(token: Token) -> usize {
    token.0.len()
}

#[cachelito::cache]
fn cachelito_token(token: Token) -> usize {
    token.0.len()
}

#[memoize::memoize(SharedCache)]
fn memoize_token(token: Token) -> usize {
    token.0.len()
}

#[vayu::cached(ttl = "1h")]
fn vayu_strings(a: String, b: String) -> String {
    format!("{a}/{b}")
}

#[cached::macros::cached]
fn cached_strings(a: String, b: String) -> String {
    format!("{a}/{b}")
}

#[cachelito::cache]
fn cachelito_strings(a: String, b: String) -> String {
    format!("{a}/{b}")
}

#[memoize::memoize(SharedCache)]
fn memoize_strings(a: String, b: String) -> String {
    format!("{a}/{b}")
}

fn strings(call: fn(String, String) -> String) -> Outcome {
    for (a, b) in
        [("ab", "c"), ("a", "bc"), ("a|b", "c"), ("a", "b|c"), ("a\"|\"b", "c"), ("a", "b\"|\"c")]
    {
        expect("the value", &call(a.to_owned(), b.to_owned()), &format!("{a}/{b}"))?;
    }
    Ok(())
}

#[vayu::cached(ttl = Duration::MAX)]
fn vayu_forever(n: u64) -> u64 {
    count(n)
}

#[cached::macros::cached(ttl_secs = 18446744073709551615)]
fn cached_forever(n: u64) -> u64 {
    count(n)
}

#[cachelito::cache(ttl = 18446744073709551615)]
fn cachelito_forever(n: u64) -> u64 {
    count(n)
}

#[memoize::memoize(SharedCache, TimeToLive: Duration::MAX)]
fn memoize_forever(n: u64) -> u64 {
    count(n)
}

fn forever(call: fn(u64) -> u64) -> Outcome {
    expect("the value", &(call(1), call(1)).1, &1)?;
    expect("the number of runs", &RUNS.load(Ordering::SeqCst), &1)
}

/// A value that uses the cache when it is dropped, once.
#[derive(Clone)]
struct Value(#[expect(dead_code, reason = "its drop is what counts")] Arc<Inner>);

struct Inner(fn(u64) -> Value);

static HAS_CALLED: AtomicBool = AtomicBool::new(false);

impl Drop for Inner {
    fn drop(&mut self) {
        if !HAS_CALLED.swap(true, Ordering::SeqCst) {
            drop((self.0)(1));
        }
    }
}

static VAYU: LazyLock<vayu::MemoryCache> =
    LazyLock::new(|| vayu::MemoryOptions::new().max_entries(1).build());

#[vayu::cached(cache = VAYU, ttl = "1h")]
fn vayu_value(_n: u64) -> Value {
    Value(Arc::new(Inner(vayu_value)))
}

#[cached::macros::cached(max_size = 1)]
fn cached_value(_n: u64) -> Value {
    Value(Arc::new(Inner(cached_value)))
}

#[cachelito::cache(limit = 1)]
fn cachelito_value(_n: u64) -> Value {
    Value(Arc::new(Inner(cachelito_value)))
}

#[memoize::memoize(SharedCache, Capacity: 1)]
fn memoize_value(_n: u64) -> Value {
    Value(Arc::new(Inner(memoize_value)))
}

fn moka_value(n: u64) -> Value {
    static CACHE: LazyLock<moka::sync::Cache<u64, Value>> =
        LazyLock::new(|| moka::sync::Cache::new(1));
    CACHE.get_with(n, || Value(Arc::new(Inner(moka_value))))
}

fn evictions(call: fn(u64) -> Value) -> Outcome {
    for n in 0..2000 {
        drop(call(n));
    }
    if HAS_CALLED.load(Ordering::SeqCst) { Ok(()) } else { Err("no value was dropped".to_owned()) }
}

#[vayu::cached(ttl = "1h")]
fn vayu_count(n: u64) -> u64 {
    count(n)
}

#[cached::macros::cached]
fn cached_count(n: u64) -> u64 {
    count(n)
}

#[cachelito::cache]
fn cachelito_count(n: u64) -> u64 {
    count(n)
}

#[memoize::memoize]
fn memoize_count(n: u64) -> u64 {
    count(n)
}

fn another_thread(call: fn(u64) -> u64) -> Outcome {
    for _ in 0..2 {
        thread::spawn(move || call(1)).join().map_err(|_| "a call panics")?;
    }
    expect("the number of runs", &RUNS.load(Ordering::SeqCst), &1)
}
