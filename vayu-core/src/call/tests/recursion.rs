//! Nested calls.

use super::*;
use crate::sync::block_on;

fn fib(n: u64) -> u64 {
    if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
}

#[test]
fn recursion_over_keys_returns_what_the_plain_function_does() {
    fn cached_fib(fixture: &Fixture, n: u64) -> u64 {
        let key = Key::new("fib", &(n,)).expect("a number");
        fixture.cache.get_or_insert_with(&key, MINUTE, || {
            fixture.run();
            if n < 2 { n } else { cached_fib(fixture, n - 1) + cached_fib(fixture, n - 2) }
        })
    }
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let (n, number) = if cfg!(miri) { (20, 6765) } else { (90, 2_880_067_194_370_816_120) };
        assert_eq!(cached_fib(&fixture, n), number);
        assert_eq!(fixture.runs() as u64, n + 1);
    });
}

#[test]
fn recursion_on_one_key_returns_what_the_plain_function_does() {
    fn cached_fib(fixture: &Fixture, n: u64) -> u64 {
        fixture.cache.get_or_insert_with(&key("always the same"), MINUTE, || {
            if n < 2 { n } else { cached_fib(fixture, n - 1) + cached_fib(fixture, n - 2) }
        })
    }
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let n = if cfg!(miri) { 6 } else { 16 };
        assert_eq!(cached_fib(&fixture, n), fib(n));
    });
}

#[test]
fn async_recursion_on_one_key_returns_what_the_plain_function_does() {
    fn cached_fib(fixture: &Fixture, n: u64) -> Pin<Box<dyn Future<Output = u64> + Send + '_>> {
        Box::pin(async move {
            let body = async move {
                Yield(1).await;
                if n < 2 {
                    n
                } else {
                    cached_fib(fixture, n - 1).await + cached_fib(fixture, n - 2).await
                }
            };
            fixture.cache.get_or_insert_with_async(&key("always the same"), MINUTE, body).await
        })
    }
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let n = if cfg!(miri) { 4 } else { 10 };
        assert_eq!(block_on(cached_fib(&fixture, n)), fib(n));
    });
}

#[test]
fn recursion_through_sync_and_async_is_detected() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let value = fixture.cache.get_or_insert_with(&key("k"), MINUTE, || {
            let inner = async { fixture.cache.get_or_insert_with(&key("k"), MINUTE, || 7) };
            block_on(fixture.cache.get_or_insert_with_async(&key("k"), MINUTE, inner))
        });
        assert_eq!(value, 7);
    });
}

/// Runs threads of which each leads its own key and then calls the key of the next.
fn cycle(threads: usize) {
    let fixture = Fixture::new();
    let leading = AtomicUsize::new(0);
    thread::scope(|scope| {
        for n in 0..threads {
            let (fixture, leading) = (&fixture, &leading);
            scope.spawn(move || {
                let key_of = |n: usize| key(&(n % threads).to_string());
                let value = fixture.cache.get_or_insert_with(&key_of(n), MINUTE, || {
                    leading.fetch_add(1, Ordering::SeqCst);
                    until(|| leading.load(Ordering::SeqCst) >= threads);
                    fixture.cache.get_or_insert_with(&key_of(n + 1), MINUTE, || {
                        fixture.run();
                        1
                    })
                });
                assert_eq!(value, 1);
            });
        }
    });
    assert!(fixture.runs() >= 1, "one caller has broken the cycle");
}

#[test]
fn cycles_over_several_keys_and_threads_are_broken() {
    watchdog(HANG, || {
        for threads in 2..=if cfg!(miri) { 3 } else { 5 } {
            for _ in 0..if cfg!(miri) { 2 } else { 200 } {
                cycle(threads);
            }
        }
    });
}

#[test]
fn cycle_of_tasks_on_one_thread_is_broken() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let fixture = &fixture;
        let call = |own: &'static str, other: &'static str| async move {
            let (own, other) = (key(own), key(other));
            let body = async {
                Yield(1).await;
                let inner = async { fixture.run() };
                fixture.cache.get_or_insert_with_async(&other, MINUTE, inner).await
            };
            fixture.cache.get_or_insert_with_async(&own, MINUTE, body).await
        };
        let (mut one, mut two) = (Task::new(call("a", "b")), Task::new(call("b", "a")));
        assert!(one.poll().is_pending() && two.poll().is_pending());
        assert!(one.poll().is_pending(), "waits for the other");
        assert_eq!(two.poll(), Poll::Ready(1), "which must not wait for it");
        assert_eq!(one.poll(), Poll::Ready(1));
    });
}

#[test]
fn two_branches_of_one_body_may_want_the_same_key() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let fixture = &fixture;
        let leaf = || async {
            let body = async {
                Yield(2).await;
                fixture.run()
            };
            fixture.cache.get_or_insert_with_async(&key("leaf"), MINUTE, body).await
        };
        let root = async {
            let body = async {
                let (mut one, mut two) = (Box::pin(leaf()), Box::pin(leaf()));
                let mut sum = 0;
                let mut open = 2;
                std::future::poll_fn(|context| {
                    for branch in [&mut one, &mut two] {
                        if let Poll::Ready(run) = branch.as_mut().poll(context) {
                            *branch = Box::pin(leaf());
                            sum += run;
                            open -= 1;
                        }
                    }
                    if open == 0 { Poll::Ready(sum) } else { Poll::Pending }
                })
                .await
            };
            fixture.cache.get_or_insert_with_async(&key("root"), MINUTE, body).await
        };
        assert_eq!(block_on(root), 2);
        assert_eq!(fixture.runs(), 1);
    });
}
