//! The backend of the guide, in the conformance kit and under a cached function.

#[allow(unreachable_pub, reason = "the guide shows it as a part of a library")]
#[path = "../../vayu/guide/directory.rs"]
mod guide;

use vayu::time::SystemClock;
use vayu::{Cache, MessagePack, cached};

use self::guide::Directory;

vayu::testing::backend_tests! {
    conformance,
    vayu::MessagePack,
    |clock| {
        let place = tempfile::tempdir().expect("a directory");
        let directory = super::super::Directory::open(place.path(), clock).expect("it opens");
        (place, directory)
    },
    reopen = |place, clock| super::super::Directory::open(place.path(), clock).expect("it opens")
}

#[cached(cache = cache, ttl = "1h", skip(cache), tags("squares"))]
fn square(cache: &Cache<Directory, MessagePack>, n: u64) -> u64 {
    n * n
}

#[test]
fn cached_function_keeps_its_results_in_the_directory_of_the_guide() {
    let place = tempfile::tempdir().expect("a directory");
    let open =
        || Cache::with_backend(Directory::open(place.path(), SystemClock).expect("it opens"));
    let cache = open();
    assert_eq!((square(&cache, 12), square(&cache, 12)), (144, 144));
    let other = open();
    assert_eq!((square(&other, 12), other.stats().hits), (144, 1));
    cache.invalidate_tag("squares").expect("invalidated");
    assert_eq!((square(&open(), 12), cache.stats().misses), (144, 1));
    assert_eq!((square(&other, 12), other.stats().misses), (144, 0));
}
