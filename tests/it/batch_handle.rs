//! Entries of the elements of batches: `each` with `handle`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::Poll;
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::testing::ManualClock;
use vayu::{Cache, ErrorKind, Explanation, MemoryCache, MemoryOptions, cached};

use crate::{Runs, poll, with_every_backend};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn entry_of_an_element_is_read_set_and_removed_on_every_backend() {
    with_every_backend!(run);

    fn run<B: Backend, S>(make: impl Fn(ManualClock) -> Cache<B, S>)
    where
        S: Serializer<String, Stored = B::Stored> + Clone,
    {
        #[cached(cache = cache, ttl = 60, each = ids, skip(cache, log), prefix = "element entry",
            tags("user:{ids}"), version = 2, handle = users_entry)]
        fn users<B: Backend, S>(
            cache: &Cache<B, S>,
            ids: &[u64],
            tenant: u32,
            log: &Mutex<Vec<u64>>,
        ) -> Result<HashMap<u64, String>, String>
        where
            S: Serializer<String, Stored = B::Stored> + Clone,
        {
            log.lock().expect("no panic").extend(ids);
            Ok(ids.iter().map(|id| (*id, format!("{id} of {tenant}"))).collect())
        }
        #[cached(cache = cache, ttl = 60, skip(cache), prefix = "element entry", tags("user:{id}"), version = 2)]
        fn user<B: Backend, S>(cache: &Cache<B, S>, id: u64, tenant: u32) -> Result<String, String>
        where
            S: Serializer<String, Stored = B::Stored> + Clone,
        {
            Err(format!("not called for {id} of {tenant}"))
        }
        let (clock, log) = (ManualClock::new(), Mutex::default());
        let cache = make(clock.clone());
        users(&cache, &[1, 2], 7, &log).expect("no error");
        clock.advance(10 * SECOND);
        let entry = |id, tenant| users_entry(&cache, id, tenant, &log);
        assert_eq!(entry(1, 7).peek().expect("read").as_deref(), Some("1 of 7"));
        assert_eq!(entry(1, 7).require().expect("there"), "1 of 7");
        assert_eq!(entry(3, 7).require().expect_err("absent").kind(), ErrorKind::Miss);
        assert_eq!(entry(1, 8).peek().expect("read"), None, "another tenant");
        assert_eq!(entry(1, 7).age().expect("read"), Some(10 * SECOND));
        assert_eq!(entry(1, 7).ttl_left().expect("read"), Some(50 * SECOND));
        assert!(matches!(entry(1, 7).explain(), Explanation::Hit));
        assert!(matches!(entry(3, 7).explain(), Explanation::Absent));

        assert!(entry(3, 7).set("set".to_owned()).expect("stored"));
        assert_eq!(user(&cache, 3, 7).as_deref(), Ok("set"), "the same entry");
        assert!(entry(1, 7).invalidate().expect("removed"));
        assert!(!entry(1, 7).invalidate().expect("nothing is there"));
        let found = users(&cache, &[1, 2, 3], 7, &log).expect("no error");
        assert_eq!((found[&3].as_str(), found[&2].as_str()), ("set", "2 of 7"));
        assert_eq!(*log.lock().expect("no panic"), [1, 2, 1]);
        cache.invalidate_tag("user:3").expect("invalidated");
        assert!(matches!(entry(3, 7).explain(), Explanation::TagInvalidated));
        assert_eq!(cache.stats().errors, 0);
    }
}

#[test]
fn entry_without_a_prefix_is_that_of_the_function() {
    #[cached(ttl = 60, each = names, handle = lengths_entry)]
    fn lengths(names: &[&str]) -> Vec<usize> {
        names.iter().map(|name| name.len()).collect()
    }
    #[cached(ttl = 60, each = ids, max_entries = 10, handle = squares_entry)]
    fn squares(ids: HashSet<u64>) -> BTreeMap<u64, u64> {
        ids.into_iter().map(|id| (id, id * id)).collect()
    }
    lengths(&["a", "abc"]);
    assert_eq!(lengths_entry("abc").peek().expect("read"), Some(3));
    assert_eq!(lengths_entry("ab").peek().expect("read"), None);
    squares(HashSet::from([3]));
    assert_eq!(squares_entry(3).peek().expect("read"), Some(9));
    assert_eq!(squares_entry(3).cache().stats().inserts, 1);
    assert!(squares_entry(4).set(17).expect("stored"));
    assert_eq!(squares(HashSet::from([3, 4])), BTreeMap::from([(3, 9), (4, 17)]));
}

#[test]
fn element_with_references_is_an_argument_beside_other_references() {
    #[cached(ttl = 60, each = names, handle = plain_entry)]
    fn plain(names: &[&str], unit: &str) -> HashMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), format!("{name}{unit}"))).collect()
    }
    #[cached(ttl = 60, each = pairs, handle = paired_entry)]
    fn paired(unit: &str, pairs: &[(&str, u32)]) -> Vec<String> {
        pairs.iter().map(|(name, number)| format!("{name}{number}{unit}")).collect()
    }
    #[cached(ttl = 60, each = names, handle = optional_entry)]
    async fn optional(names: &[Option<&str>], unit: &str) -> Result<Vec<String>, String> {
        Ok(names.iter().map(|name| format!("{name:?}{unit}")).collect())
    }
    #[cached(ttl = 60, each = lists, handle = nested_entry)]
    fn nested(lists: &[&[&str]], unit: &str) -> Vec<String> {
        lists.iter().map(|names| names.join(unit)).collect()
    }
    #[cached(ttl = 60, each = names, handle = anonymous_entry)]
    fn anonymous(names: &[Cow<'_, str>], unit: &str) -> Vec<String> {
        names.iter().map(|name| format!("{name}{unit}")).collect()
    }
    #[cached(ttl = 60, each = names, handle = owned_entry)]
    fn owned(names: BTreeSet<&str>, unit: &str) -> BTreeMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), format!("{name}{unit}"))).collect()
    }
    #[cached(ttl = 60, each = names, handle = named_entry)]
    fn named<'a>(names: &HashSet<&'a str>, unit: &'a str) -> HashMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), format!("{name}{unit}"))).collect()
    }
    #[cached(ttl = 60, each = items, handle = generic_entry)]
    fn generic<T: serde::Serialize + std::fmt::Display>(items: &[&T], unit: &str) -> Vec<String> {
        items.iter().map(|item| format!("{item}{unit}")).collect()
    }

    // The elements and the other arguments may live for different times.
    let unit = "m".to_owned();
    plain(&["a"], &unit);
    let entry = {
        let name = "a".to_owned();
        plain_entry(&name, &unit).peek().expect("read")
    };
    assert_eq!(entry.as_deref(), Some("am"));
    assert_eq!(plain_entry("a", "s").peek().expect("read"), None);
    paired(&unit, &[("a", 1)]);
    assert_eq!(paired_entry(&unit, ("a", 1)).peek().expect("read").as_deref(), Some("a1m"));
    assert!(matches!(poll(pin!(optional(&[None], &unit))), Poll::Ready(Ok(_))));
    assert_eq!(optional_entry(None, &unit).peek().expect("read").as_deref(), Some("Nonem"));
    nested(&[&["a", "b"]], &unit);
    assert_eq!(nested_entry(&["a", "b"], &unit).peek().expect("read").as_deref(), Some("amb"));
    anonymous(&["a".into()], &unit);
    assert_eq!(anonymous_entry("a".into(), &unit).peek().expect("read").as_deref(), Some("am"));
    owned(BTreeSet::from(["a"]), &unit);
    assert_eq!(owned_entry("a", &unit).peek().expect("read").as_deref(), Some("am"));
    named(&HashSet::from(["a"]), &unit);
    assert_eq!(named_entry("a", &unit).peek().expect("read").as_deref(), Some("am"));
    generic(&[&1], &unit);
    assert_eq!(generic_entry(&1, &unit).peek().expect("read").as_deref(), Some("1m"));

    let units = Units { unit };
    units.of_names(&["a"]);
    assert_eq!(units.of_names_entry("a").peek().expect("read").as_deref(), Some("am"));
    poll(pin!(units.of_pairs(&[("a", 1)], "s"))).is_ready();
    assert_eq!(units.of_pairs_entry(("a", 1), "s").peek().expect("read").as_deref(), Some("a1ms"));
}

struct Units {
    unit: String,
}

impl Units {
    #[cached(ttl = 60, each = names, include(self.unit), handle = of_names_entry)]
    fn of_names(&self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("{name}{}", self.unit)).collect()
    }

    #[cached(ttl = 60, each = pairs, include(self.unit), handle = of_pairs_entry)]
    async fn of_pairs(&self, pairs: &[(&str, u8)], end: &str) -> Vec<String> {
        pairs.iter().map(|(name, number)| format!("{name}{number}{}{end}", self.unit)).collect()
    }
}

#[test]
fn prefix_of_an_entry_is_that_of_the_element() {
    #[cached(ttl = 60, each = ids, prefix = format!("element {ids}"), key = ids.to_string(), handle = prefixed_entry)]
    fn prefixed(ids: &[u8]) -> Vec<u8> {
        ids.to_vec()
    }
    prefixed(&[1, 2]);
    assert_eq!(prefixed_entry(2).peek().expect("read"), Some(2));
    vayu::mem_cache().invalidate_prefix("element 2").expect("invalidated");
    assert_eq!(prefixed_entry(1).peek().expect("read"), Some(1));
    assert!(matches!(prefixed_entry(2).explain(), Explanation::FunctionInvalidated));
}

#[derive(Clone)]
struct Store {
    cache: MemoryCache,
    runs: Arc<Mutex<Vec<u64>>>,
}

impl Store {
    #[cached(cache = self.cache, ttl = 60, each = ids, handle = names_entry)]
    async fn names<T>(
        &self,
        ids: &[T],
        mut suffix: String,
    ) -> Result<HashMap<T, Option<String>>, String>
    where
        T: serde::Serialize + Clone + Eq + std::hash::Hash + Sync + Send + std::fmt::Display,
    {
        suffix.push('!');
        self.runs.lock().expect("no panic").push(ids.len() as u64);
        Ok(ids.iter().map(|id| (id.clone(), Some(format!("{id}{suffix}")))).collect())
    }

    #[cached(ttl = 60, each = ids, handle = Self::doubled_entry)]
    fn doubled(ids: Vec<u64>) -> Vec<u64> {
        ids.into_iter().map(|id| id * 2).collect()
    }
}

#[test]
fn methods_generic_and_async_functions_have_entries_of_elements() {
    let store = Store { cache: MemoryCache::new(), runs: Arc::default() };
    let names = poll(pin!(store.names(&["a", "b"], "?".to_owned())));
    assert!(matches!(names, Poll::Ready(Ok(found)) if found.len() == 2));
    let entry = store.names_entry("a", "?".to_owned());
    assert_eq!(entry.peek().expect("read"), Some(Some("a?!".to_owned())));
    assert_eq!(
        poll(pin!(entry.peek_async())).map(Result::ok),
        Poll::Ready(Some(Some(Some("a?!".to_owned()))))
    );
    assert_eq!(store.names_entry("a", String::new()).peek().expect("read"), None);
    let entry = store.names_entry("c", "?".to_owned());
    assert!(matches!(poll(pin!(entry.set_async(None))), Poll::Ready(Ok(true))));
    let names = poll(pin!(store.names(&["a", "c"], "?".to_owned())));
    assert!(matches!(names, Poll::Ready(Ok(found)) if found["c"].is_none()));
    assert_eq!(*store.runs.lock().expect("no panic"), [2]);
    assert!(matches!(poll(pin!(entry.invalidate_async())), Poll::Ready(Ok(true))));

    Store::doubled(vec![4]);
    assert_eq!(Store::doubled_entry(4).peek().expect("read"), Some(8));
}

#[test]
fn entry_stores_under_the_policy_of_an_element() {
    static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::new);
    static TIMED: LazyLock<MemoryCache> =
        LazyLock::new(|| MemoryOptions::new().clock(CLOCK.clone()).build());
    #[cached(cache = TIMED, each = ids, ttl = |value: &u64| Duration::from_secs(*value * scale),
        cache_if = |value| *value != 3, key = format!("{ids}"), refresh_if = ids.len() > 5, handle = values_entry)]
    fn values(ids: &[u64], scale: u64) -> BTreeMap<u64, u64> {
        ids.iter().map(|id| (*id, *id)).collect()
    }
    assert!(values_entry(1, 10).set(2).expect("stored"));
    assert_eq!(values_entry(1, 10).ttl_left().expect("read"), Some(20 * SECOND));
    assert!(!values_entry(1, 10).set(3).expect("rejected"));
    assert_eq!(values(&[1], 10), BTreeMap::from([(1, 2)]));
    CLOCK.advance(20 * SECOND);
    assert_eq!(values(&[1], 10), BTreeMap::from([(1, 1)]));
}

#[test]
fn entry_explains_a_cached_error_of_a_batch() {
    static RUNS: Runs = Runs::new();
    static STORE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = STORE, ttl = 60, err_ttl = 30, each = ids, handle = failing_entry)]
    fn failing(ids: &[u8]) -> Result<Vec<u8>, String> {
        RUNS.count();
        if ids == [9] { Ok(vec![9]) } else { Err("down".to_owned()) }
    }
    assert!(matches!(failing_entry(1).explain(), Explanation::Absent));
    assert!(failing(&[1, 2]).is_err());
    assert!(matches!(failing_entry(1).explain(), Explanation::ErrorHit));
    assert!(matches!(failing_entry(3).explain(), Explanation::Absent));
    assert!(failing_entry(2).set(5).expect("stored"));
    assert_eq!((failing(&[2]), RUNS.get()), (Ok(vec![5]), 1));
}

#[test]
fn each_element_with_a_result_of_its_own_has_an_entry() {
    #[cached(ttl = 60, each = ids, handle = checked_entry)]
    fn checked(ids: &[u8]) -> HashMap<u8, Result<u8, String>> {
        ids.iter()
            .map(|&id| (id, if id < 9 { Ok(id) } else { Err("too large".to_owned()) }))
            .collect()
    }
    checked(&[1, 9]);
    assert_eq!(checked_entry(1).peek().expect("read"), Some(Ok(1)));
    assert_eq!(checked_entry(9).peek().expect("read"), None);
    assert!(!checked_entry(9).set(Err("no".to_owned())).expect("an error is not cached"));
}
