//! The forms a cached function may have.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;
use vayu::{MemoryCache, cached, mem_cached};

/// Runs a future to completion on a current-thread runtime.
fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// Returns the hits and misses of a cache while `code` runs.
fn hits_and_misses(cache: &MemoryCache, code: impl FnOnce()) -> (u64, u64) {
    let before = cache.stats();
    code();
    let after = cache.stats();
    (after.hits - before.hits, after.misses - before.misses)
}

#[derive(Clone, Copy, Serialize)]
struct Point {
    x: i32,
    y: i32,
}

struct Service {
    base: u64,
    cache: MemoryCache,
}

impl Service {
    fn new(base: u64) -> Self {
        Self { base, cache: MemoryCache::new() }
    }

    #[cached(cache = self.cache, ttl = 60)]
    fn by_reference(&self, n: u64) -> u64 {
        self.base + n
    }

    #[cached(cache = self.cache, ttl = 60)]
    async fn by_reference_async(&self, n: u64, text: &str) -> u64 {
        tokio::task::yield_now().await;
        self.base + n + text.len() as u64
    }

    #[cached(cache = self.cache, ttl = 60)]
    fn by_arc(self: Arc<Self>, n: u64) -> u64 {
        let this = self;
        this.base + n
    }

    #[cached(cache = self.cache, ttl = 60)]
    async fn by_arc_async(self: Arc<Self>, n: u64) -> u64 {
        let this = self;
        tokio::task::yield_now().await;
        this.base + n
    }

    #[cached(cache = self.cache, ttl = 60)]
    fn by_value(self, n: u64) -> u64 {
        let Self { base, .. } = self;
        base + n
    }

    #[cached(ttl = 60, key = "constant", cache = cache)]
    fn by_exclusive_reference(&mut self, cache: &MemoryCache) -> u64 {
        self.base += 1;
        self.base
    }

    #[cached(ttl = 60, cache = cache, skip(cache))]
    fn associated(cache: &MemoryCache, n: u64) -> u64 {
        n * 2
    }
}

#[test]
fn methods_of_every_receiver() {
    let mut service = Service::new(100);
    assert_eq!((service.by_reference(1), service.by_reference(1)), (101, 101));
    run(async {
        assert_eq!(service.by_reference_async(1, "ab").await, 103);
        assert_eq!(service.by_reference_async(1, "ab").await, 103);
    });
    let cache = service.cache.clone();
    assert_eq!(cache.stats().hits, 2);
    assert_eq!(service.by_exclusive_reference(&cache), 101);
    assert_eq!(service.by_exclusive_reference(&cache), 101);
    assert_eq!((Service::associated(&cache, 4), Service::associated(&cache, 4)), (8, 8));
    let shared = Arc::new(service);
    assert_eq!((Arc::clone(&shared).by_arc(1), Arc::clone(&shared).by_arc(1)), (102, 102));
    run(async {
        assert_eq!(Arc::clone(&shared).by_arc_async(1).await, 102);
        assert_eq!(Arc::clone(&shared).by_arc_async(1).await, 102);
    });
    assert_eq!(cache.stats().hits, 6);
    assert_eq!(cache.stats().misses, 6);
    let twin = || Service { base: 5, cache: cache.clone() };
    assert_eq!((twin().by_value(1), twin().by_value(1)), (6, 6));
    assert_eq!(cache.stats().hits, 7);
}

/// Methods without arguments. Each declares how `self` relates to the key.
#[derive(Clone)]
struct Place {
    name: &'static str,
    cache: MemoryCache,
}

trait Named: Sized {
    fn name(&self) -> &'static str;

    #[cached(ttl = 60, include(self.name()))]
    fn length(&self) -> usize {
        self.name().len()
    }

    #[cached(ttl = 60, skip(self))]
    fn shared(&self) -> &'static str {
        self.name()
    }
}

impl Named for Place {
    fn name(&self) -> &'static str {
        self.name
    }
}

impl Place {
    #[cached(ttl = 60, skip(self))]
    fn by_reference(&self) -> &'static str {
        self.name
    }

    #[cached(ttl = 60, skip(self))]
    async fn by_arc(self: Arc<Self>) -> &'static str {
        self.name
    }

    #[cached(ttl = 60, skip(self))]
    #[expect(clippy::needless_arbitrary_self_type, reason = "one form of a receiver")]
    fn by_typed_reference(self: &Self) -> &'static str {
        self.name
    }

    #[cached(ttl = 60, skip(self))]
    fn by_value(mut self) -> &'static str {
        self.name = self.name.trim();
        self.name
    }

    #[cached(ttl = 60, skip(self))]
    fn exclusive(&mut self) -> &'static str {
        self.name
    }

    #[cached(ttl = 60, skip(self), handle = beside_another_entry)]
    fn beside_another(&self, n: u8) -> (&'static str, u8) {
        (self.name, n)
    }

    #[cached(ttl = 60, include(self.name))]
    async fn included(&self) -> &'static str {
        self.name
    }

    #[cached(ttl = 60, cache = self.cache)]
    fn in_its_own_cache(self: Arc<Self>) -> &'static str {
        self.name
    }

    #[cached(ttl = 60, prefix = format!("name of {}", self.name))]
    fn under_its_own_prefix(&self) -> &'static str {
        self.name
    }

    #[cached(ttl = 60, key = format!("name of {}", self.name))]
    async fn with_its_own_key(self) -> &'static str {
        self.name
    }
}

#[test]
fn methods_say_what_self_means() {
    let place = |name| Place { name, cache: MemoryCache::new() };
    let (one, mut two) = (place("north"), place("south pole"));
    let arc = |place: &Place| Arc::new(place.clone());
    assert_eq!((one.by_reference(), two.by_reference()), ("north", "north"));
    assert_eq!((run(arc(&one).by_arc()), run(arc(&two).by_arc())), ("north", "north"));
    assert_eq!((one.by_typed_reference(), two.by_typed_reference()), ("north", "north"));
    assert_eq!((one.clone().by_value(), two.clone().by_value()), ("north", "north"));
    assert_eq!((one.clone().exclusive(), two.exclusive()), ("north", "north"));
    assert_eq!((one.beside_another(1), two.beside_another(1)), (("north", 1), ("north", 1)));
    assert_eq!(two.beside_another(2), ("south pole", 2));
    assert_eq!(two.beside_another_entry(1).peek().expect("read"), Some(("north", 1)));
    assert_eq!((one.shared(), two.shared()), ("north", "north"));
    assert_eq!((run(one.included()), run(two.included())), ("north", "south pole"));
    assert_eq!(
        (arc(&one).in_its_own_cache(), arc(&two).in_its_own_cache()),
        ("north", "south pole")
    );
    assert_eq!((one.under_its_own_prefix(), two.under_its_own_prefix()), ("north", "south pole"));
    assert_eq!((one.length(), two.length()), (5, 10));
    assert_eq!((run(one.with_its_own_key()), run(two.with_its_own_key())), ("north", "south pole"));
}

#[test]
fn units_are_the_same_in_urls() {
    // One is a copy of the other, since a proc-macro crate cannot export functions.
    assert_eq!(
        include_str!("../../vayu-macros/src/duration.rs"),
        include_str!("../../vayu-core/src/duration.rs")
    );
    let cache = MemoryCache::new();
    macro_rules! ttl_left {
        ($($ttl:literal),*) => {
            [$({
                #[cached(cache = cache, ttl = $ttl, key = $ttl, handle = call_entry)]
                fn call(cache: &MemoryCache) -> u8 {
                    1
                }
                call(&cache);
                call_entry(&cache).ttl_left().expect("read").expect("an entry").as_secs_f64()
            }),*]
        };
    }
    let found = ttl_left!("5m", "5 minutes", "1.5h", "2d", "1w", "5months", "1h 30m", "1year");
    let minutes = [5., 5., 90., 2880., 10080., 219_168., 90., 525_960.];
    for (found, minutes) in found.into_iter().zip(minutes) {
        let expected: f64 = minutes * 60.0;
        assert!(found <= expected && found > expected - 30.0, "{found} of {expected}");
    }
}

/// Extractors as in a web framework: neither `Clone` nor `Serialize`.
struct Path<T>(T);
struct State<T>(T);

struct App {
    pages: MemoryCache,
    runs: crate::Runs,
}

#[test]
fn handler_of_a_web_framework_is_cached_by_the_names_of_its_patterns() {
    #[cached(cache = app.pages, ttl = "1m", key = id.to_string(), tags("user:{id}"), handle = user_entry)]
    async fn user(State(app): State<Arc<App>>, Path(id): Path<u64>) -> String {
        tokio::task::yield_now().await;
        format!("user {id}, {}", app.runs.count())
    }
    let app = Arc::new(App { pages: MemoryCache::new(), runs: crate::Runs::new() });
    let user = |id| run(user(State(Arc::clone(&app)), Path(id)));
    assert_eq!((user(7), user(8)), ("user 7, 1".into(), "user 8, 2".into()));
    assert_eq!((user(7), user(8)), ("user 7, 1".into(), "user 8, 2".into()));
    let entry = || user_entry(State(Arc::clone(&app)), Path(7));
    assert_eq!(entry().peek().expect("read").as_deref(), Some("user 7, 1"));
    app.pages.invalidate_tag("user:7").expect("invalidate");
    assert_eq!((user(7), user(8)), ("user 7, 3".into(), "user 8, 2".into()));
    assert_eq!(run(entry().refresh_async()), "user 7, 4");
    assert_eq!(user(7), "user 7, 4");
}

#[test]
fn whole_argument_is_in_the_key_if_no_name_is_skipped() {
    let cache = MemoryCache::new();
    #[cached(cache = cache, ttl = 60, prefix = "whole", skip(cache))]
    fn whole(cache: &MemoryCache, Point { x, .. }: Point, [a, _]: [u8; 2], (b,): (u8,)) -> i32 {
        x + i32::from(a + b)
    }
    whole(&cache, Point { x: 1, y: 2 }, [3, 4], (5,));
    let key = vayu::Key::new("whole", &(Point { x: 1, y: 2 }, [3_u8, 4], (5_u8,))).expect("a key");
    assert_eq!(cache.get::<i32>(&key).expect("read"), Some(9));
}

#[test]
fn body_may_move_what_the_attribute_uses() {
    let cache = MemoryCache::new();
    #[cached(cache = cache, ttl = 60, key = name, prefix = format!("of {name}"), serializer = serializers.0)]
    async fn call(
        cache: MemoryCache,
        name: String,
        serializers: (vayu::backend::ByReference, String),
    ) -> (String, u64, String) {
        tokio::task::yield_now().await;
        let stats = cache.stats();
        drop(cache);
        (name, stats.misses, serializers.1)
    }
    for _ in 0..2 {
        let serializers = (vayu::backend::ByReference, "s".to_owned());
        let output = run(call(cache.clone(), "n".to_owned(), serializers));
        assert_eq!(output, ("n".to_owned(), 1, "s".to_owned()));
    }
}

#[test]
fn arguments_of_many_types() {
    #[mem_cached(ttl = 60)]
    fn many(
        text: &str,
        bytes: &[u8],
        numbers: &[f64],
        pair: (u8, &str),
        float: f64,
        nested: Option<Option<u8>>,
        map: &BTreeMap<String, u8>,
        point: Point,
        boxed: Box<[u16]>,
        owned: String,
    ) -> String {
        format!(
            "{text} {bytes:?} {numbers:?} {pair:?} {float} {nested:?} {map:?} {} {boxed:?} {owned}",
            point.x + point.y
        )
    }
    let call = |nested, x| {
        many(
            "t",
            &[1, 2],
            &[0.5],
            (1, "p"),
            2.5,
            nested,
            &BTreeMap::from([("k".to_owned(), 1)]),
            Point { x, y: 1 },
            Box::new([7]),
            "o".to_owned(),
        )
    };
    let expected = |nested: &str, sum| {
        format!("t [1, 2] [0.5] (1, \"p\") 2.5 {nested} {{\"k\": 1}} {sum} [7] o")
    };
    for _ in 0..2 {
        assert_eq!(call(None, 1), expected("None", 2));
        assert_eq!(call(Some(None), 1), expected("Some(None)", 2));
        assert_eq!(call(Some(Some(1)), 2), expected("Some(Some(1))", 3));
    }
}

#[test]
fn patterns_and_mut_arguments() {
    #[cached(ttl = 60, prefix = "patterns")]
    fn patterns(
        (one, _): (u32, u32),
        Point { x, .. }: Point,
        [first, .., last]: [u8; 3],
        mut sum: u32,
        _: &str,
        whole @ (_, _): (u8, u8),
        &reference: &u32,
    ) -> u32 {
        sum += one + x as u32 + u32::from(first + last + whole.0) + reference;
        sum
    }
    let call = |hidden| patterns((1, hidden), Point { x: 2, y: 0 }, [3, 0, 4], 5, "t", (6, 0), &7);
    assert_eq!((call(0), call(0), call(1)), (28, 28, 28));
    #[cached(ttl = 60)]
    async fn patterns_async((one, two): (u32, u32), mut sum: Vec<u32>) -> Vec<u32> {
        sum.extend([one, two]);
        tokio::task::yield_now().await;
        sum
    }
    for _ in 0..2 {
        assert_eq!(run(patterns_async((1, 2), vec![0])), [0, 1, 2]);
    }
}

#[test]
fn generics_lifetimes_and_where_clauses() {
    #[cached(ttl = 60)]
    fn longest<'a, 'b: 'a, const N: usize, T>(texts: &'a [&'b str], by: T) -> String
    where
        T: Into<u64> + Serialize + Copy,
        'b: 'a,
    {
        let longest = texts.iter().max_by_key(|text| text.len()).copied().unwrap_or_default();
        format!("{longest}{}{N}", by.into())
    }
    for _ in 0..2 {
        assert_eq!(longest::<2, _>(&["a", "bc"], 1_u8), "bc12");
        assert_eq!(longest::<3, _>(&["a", "bc"], 1_u32), "bc13");
    }
    #[cached(ttl = 60)]
    fn shown(
        value: impl Display + Serialize,
        again: &(impl Display + Serialize + ?Sized),
    ) -> String {
        format!("{value}{again}")
    }
    assert_eq!(
        (shown(1, "a"), shown("1", "a"), shown(1, "a")),
        ("1a".to_owned(), "1a".to_owned(), "1a".to_owned())
    );
}

#[test]
fn question_mark_and_return_in_the_body() {
    #[cached(ttl = 60)]
    fn parse(text: &str) -> Result<i32, Box<dyn std::error::Error + Send + Sync>> {
        if text == "zero" {
            return Ok(0);
        }
        let parsed: i32 = text.parse()?;
        Ok(parsed)
    }
    #[cached(ttl = 60)]
    async fn parse_async(text: &str) -> Result<i32, std::num::ParseIntError> {
        if text == "zero" {
            return Ok(0);
        }
        tokio::task::yield_now().await;
        Ok(text.parse::<i32>()?)
    }
    for _ in 0..2 {
        assert_eq!(parse("7").expect("a number"), 7);
        assert_eq!(parse("zero").expect("a number"), 0);
        assert!(parse("seven").is_err());
        assert_eq!(run(parse_async("7")), Ok(7));
        assert_eq!(run(parse_async("zero")), Ok(0));
        assert!(run(parse_async("seven")).is_err());
    }
}

#[test]
fn arguments_may_be_moved_by_the_body() {
    #[cached(ttl = 60)]
    fn consume(text: String, numbers: Vec<u8>) -> (String, Vec<u8>) {
        (text, numbers)
    }
    #[cached(ttl = 60)]
    async fn consume_async(text: String, numbers: Vec<u8>) -> (String, Vec<u8>) {
        tokio::task::yield_now().await;
        (text, numbers)
    }
    for _ in 0..2 {
        assert_eq!(consume("t".to_owned(), vec![1]), ("t".to_owned(), vec![1]));
        assert_eq!(run(consume_async("t".to_owned(), vec![1])), ("t".to_owned(), vec![1]));
    }
}

#[async_trait::async_trait]
trait Store: Sync {
    async fn load(&self, id: u64, suffix: &str) -> Result<String, String>;

    #[cached(ttl = 60, include(self.name()))]
    async fn load_default(&self, id: u64) -> String {
        tokio::task::yield_now().await;
        format!("{}-{id}", self.name())
    }

    fn name(&self) -> String;
}

struct Disk(MemoryCache);

#[async_trait::async_trait]
impl Store for Disk {
    #[cached(cache = self.0, ttl = 60, skip(suffix))]
    async fn load(&self, id: u64, suffix: &str) -> Result<String, String> {
        tokio::task::yield_now().await;
        if id == 0 {
            return Err("no such thing".to_owned());
        }
        let found: u64 = id.to_string().parse().map_err(|_| "not a number".to_owned())?;
        Ok(format!("{found}{suffix}"))
    }

    fn name(&self) -> String {
        "disk".to_owned()
    }
}

#[test]
fn methods_under_async_trait() {
    let disk = Disk(MemoryCache::new());
    let store: &dyn Store = &disk;
    run(async {
        assert_eq!(store.load(1, "a").await.as_deref(), Ok("1a"));
        assert_eq!(store.load(1, "skipped").await.as_deref(), Ok("1a"));
        assert!(store.load(0, "a").await.is_err());
        assert!(store.load(0, "a").await.is_err());
        assert_eq!(store.load_default(1).await, "disk-1");
        assert_eq!(store.load_default(1).await, "disk-1");
    });
    let stats = disk.0.stats();
    assert_eq!((stats.hits, stats.misses, stats.inserts), (1, 3, 1));
}

trait Shape {
    const SIDES: u32;

    #[cached(ttl = 60)]
    fn angles(&self, factor: u32) -> u32 {
        Self::SIDES * factor
    }

    #[cached(ttl = 60)]
    async fn angles_async(&self, factor: u32) -> u32
    where
        Self: Sync,
    {
        tokio::task::yield_now().await;
        Self::SIDES * factor
    }
}

struct Triangle;
struct Square;

impl Shape for Triangle {
    const SIDES: u32 = 3;
}

impl Shape for Square {
    const SIDES: u32 = 4;
}

#[test]
fn default_methods_of_traits() {
    for _ in 0..2 {
        assert_eq!((Triangle.angles(2), Square.angles(2)), (6, 8));
        let both = async { (Triangle.angles_async(2).await, Square.angles_async(2).await) };
        assert_eq!(run(both), (6, 8));
    }
}

#[test]
fn user_names_do_not_collide_with_generated_names() {
    #[mem_cached(ttl = 60)]
    fn names(
        key: u8,
        cache: u8,
        result: u8,
        body: u8,
        policy: u8,
        shape: u8,
        ttl: u8,
        probe: u8,
        self_: u8,
        part: u8,
        value: u8,
        serializer: u8,
        keep: u8,
        r#type: u8,
    ) -> Vec<u8> {
        vec![
            key, cache, result, body, policy, shape, ttl, probe, self_, part, value, serializer,
            keep, r#type,
        ]
    }
    #[mem_cached(ttl = 60)]
    async fn names_async(key: u8, never: u8, value: u8, body: u8, future: u8) -> [u8; 5] {
        [key, never, value, body, future]
    }
    for _ in 0..2 {
        let expected: Vec<u8> = (1..=14).collect();
        assert_eq!(names(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14), expected);
        assert_eq!(run(names_async(1, 2, 3, 4, 5)), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn all_forms_of_a_key() {
    let cache = MemoryCache::new();
    #[cached(cache = cache, ttl = 60, key = "literal")]
    fn literal(cache: &MemoryCache, n: u8) -> u8 {
        n
    }
    #[cached(cache = cache, ttl = 60, key = |_, name, n| format!("{name}/{}", n % 10))]
    fn closure(cache: &MemoryCache, name: &str, n: u8) -> u8 {
        n
    }
    #[cached(cache = cache, ttl = 60, key = format!("{}", n % 10))]
    fn expression(cache: &MemoryCache, n: u8) -> u8 {
        n
    }
    #[cached(cache = cache, ttl = 60, key = name, include(n % 10))]
    fn included(cache: &MemoryCache, name: &str, n: u8) -> u8 {
        n
    }
    #[cached(cache = cache, ttl = 60, skip(cache, n))]
    fn skipped(cache: &MemoryCache, name: &str, n: u8) -> u8 {
        n
    }
    assert_eq!((literal(&cache, 1), literal(&cache, 2)), (1, 1));
    assert_eq!(
        (closure(&cache, "a", 1), closure(&cache, "a", 11), closure(&cache, "b", 21)),
        (1, 1, 21)
    );
    assert_eq!((expression(&cache, 1), expression(&cache, 11), expression(&cache, 2)), (1, 1, 2));
    assert_eq!((included(&cache, "a", 1), included(&cache, "a", 11)), (1, 1));
    assert_eq!((included(&cache, "a", 2), included(&cache, "b", 1)), (2, 1));
    assert_eq!(
        (skipped(&cache, "a", 1), skipped(&cache, "a", 2), skipped(&cache, "b", 3)),
        (1, 1, 3)
    );
}

#[test]
fn key_api_reads_the_entry_of_a_prefix() {
    let cache = MemoryCache::new();
    #[cached(cache = cache, ttl = 60, prefix = "sum", skip(cache))]
    fn sum(cache: &MemoryCache, one: u8, two: u8) -> u8 {
        one + two
    }
    #[cached(cache = cache, ttl = 60, prefix = format!("sum of {}", 2), key = "k")]
    fn owned_prefix(cache: &MemoryCache) -> u8 {
        7
    }
    sum(&cache, 1, 2);
    owned_prefix(&cache);
    let key = vayu::Key::new("sum", &(1_u8, 2_u8)).expect("numbers");
    assert_eq!(cache.get::<u8>(&key).expect("read"), Some(3));
    let key = vayu::Key::from_text("sum of 2".to_owned(), "k");
    assert_eq!(cache.get::<u8>(&key).expect("read"), Some(7));
}

/// Functions generated by a macro from fragments.
macro_rules! make {
    ($name:ident, $ttl:expr, $type:ty, $output:expr) => {
        #[cached(ttl = $ttl)]
        fn $name(n: $type) -> $type {
            n + $output
        }
    };
}

make!(made_of_literal, 60, u8, 1);
make!(made_of_text, "1m", u16, 2);

#[test]
fn functions_generated_by_macros() {
    assert_eq!((made_of_literal(1), made_of_literal(1)), (2, 2));
    assert_eq!((made_of_text(1), made_of_text(1)), (3, 3));
}

/// Returns its argument.
#[cached(ttl = 60)]
#[must_use]
#[inline]
pub(crate) fn attributes_stay(one: u8) -> u8 {
    one
}

#[test]
fn attributes_and_hits_of_a_plain_function() {
    let seen = hits_and_misses(vayu::mem_cache(), || {
        assert_eq!((attributes_stay(3), attributes_stay(3)), (3, 3));
    });
    // Other tests use the same cache at the same time.
    assert!(seen.0 >= 1 && seen.1 >= 1);
}

#[test]
fn unit_unsized_and_large_outputs() {
    static RUNS: crate::Runs = crate::Runs::new();
    #[cached(ttl = 60)]
    fn unit() -> () {
        RUNS.count();
    }
    #[cached(ttl = 60)]
    async fn unit_async() -> () {
        RUNS.count();
    }
    #[cached(ttl = 60)]
    fn text() -> Arc<str> {
        RUNS.count();
        "text".into()
    }
    #[cached(ttl = 60)]
    fn function() -> fn(&str) -> &str {
        RUNS.count();
        str::trim
    }
    for _ in 0..2 {
        unit();
        run(unit_async());
        assert_eq!(&*text(), "text");
        assert_eq!(function()(" a "), "a");
    }
    assert_eq!(RUNS.get(), 4);
}

/// A module with names that could collide with generated ones.
mod in_scope {
    use vayu::cached;

    use super::run;

    #[allow(non_upper_case_globals, reason = "a name that could meet one of the expansion")]
    static cache: u8 = 1;
    #[allow(non_upper_case_globals, reason = "a name that could meet one of the expansion")]
    static body: u8 = 2;

    fn key_text(n: u64) -> u64 {
        n * 2
    }

    trait Everything {
        fn kind(&self) -> u8 {
            0
        }
        fn shape(&self) -> u8 {
            0
        }
    }

    impl<T> Everything for T {}

    #[test]
    fn items_and_traits_in_scope_do_not_collide_with_generated_names() {
        #[cached(ttl = 60, key = |n| format!("{n}"))]
        fn call(n: u64) -> u64 {
            key_text(n) + u64::from(cache + body) + u64::from(n.kind() + n.shape())
        }
        #[cached(ttl = 60)]
        async fn call_async(n: u64) -> u64 {
            key_text(n) + u64::from(cache + body) + u64::from(n.kind() + n.shape())
        }
        assert_eq!((call(2), call(2)), (7, 7));
        assert_eq!((run(call_async(2)), run(call_async(2))), (7, 7));
    }
}

#[test]
fn exclusive_receivers_with_a_cache_of_their_own() {
    struct Counter {
        count: u64,
        cache: MemoryCache,
    }
    impl Counter {
        fn bump(&mut self) -> u64 {
            self.count += 1;
            self.count
        }

        #[cached(cache = self.cache, ttl = 60, key = "next")]
        fn next(&mut self) -> u64 {
            self.bump()
        }

        #[cached(cache = self.cache, ttl = 60, skip(self))]
        async fn next_async(&mut self) -> u64 {
            tokio::task::yield_now().await;
            self.bump()
        }
    }
    let mut counter = Counter { count: 0, cache: MemoryCache::new() };
    assert_eq!((counter.next(), counter.next()), (1, 1));
    assert_eq!((run(counter.next_async()), run(counter.next_async())), (2, 2));
}

#[test]
fn arguments_with_cfg() {
    #[cached(ttl = 60)]
    fn call(n: u8, #[cfg(any())] missing: u8, #[cfg(not(any()))] (one, _): (u8, u8)) -> u8 {
        n + one
    }
    assert_eq!((call(1, (2, 0)), call(1, (2, 0))), (3, 3));
}

#[test]
fn errors_may_borrow() {
    #[cached(ttl = 60)]
    fn parse(text: &str) -> Result<u8, &str> {
        text.parse().map_err(|_| text)
    }
    assert_eq!((parse("7"), parse("7"), parse("x")), (Ok(7), Ok(7), Err("x")));
}
