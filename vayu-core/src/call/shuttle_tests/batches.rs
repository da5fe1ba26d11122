//! Batches that overlap with one another and with calls of single elements.

use std::collections::BTreeMap;

use super::*;
use crate::attribute::{BatchCall, batch_call};
use crate::call::SharedResultOutput;

pub(super) const ELEMENTS: usize = 5;

/// The cache, and the number of runs for each element.
pub(super) struct Shared {
    pub(super) fixture: Arc<Fixture>,
    runs: [AtomicUsize; ELEMENTS],
}

pub(super) type Values = BTreeMap<usize, usize>;

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { fixture: Fixture::new(), runs: Default::default() })
    }

    /// Counts a run of each element, in the middle of which other threads may run.
    pub(super) fn run(&self, elements: &[usize]) -> Values {
        let values = elements.iter().map(|&element| {
            self.runs[element].fetch_add(1, Ordering::SeqCst);
            (element, element * 10)
        });
        let values = values.collect();
        thread::yield_now();
        values
    }

    pub(super) fn runs(&self, element: usize) -> usize {
        self.runs[element].load(Ordering::SeqCst)
    }

    pub(super) fn single(&self, is_async: bool, element: usize) {
        let body = || self.run(&[element])[&element];
        assert_eq!(self.fixture.call(is_async, &of(element), body), element * 10);
    }

    /// Calls a batch function that returns all values, or those that `body` returns.
    pub(super) fn batch(
        &self,
        is_async: bool,
        elements: &[usize],
        body: impl Fn(&[usize]) -> Result<Values, ()>,
    ) -> Result<Values, ()> {
        let cache = &self.fixture.cache;
        let batch: BatchCall<'_, _, SharedResultOutput<_, _>> =
            BatchCall::new(elements, usize::MAX);
        let describe = |&element: &usize| {
            let (shape, ttl) = (PlainOutput::new(), FixedTtl::new(MINUTE));
            Policy::new(of(element), shape, &ByReference, ttl)
        };
        if !is_async {
            let body = |elements: Vec<usize>| body(&elements);
            return batch.vayu_call(cache.engine(), describe, body);
        }
        let body = |elements: Vec<usize>| {
            let body = &body;
            async move {
                Yield(false).await;
                body(&elements)
            }
        };
        block_on(batch.vayu_call_async(cache.engine(), describe, body))
    }

    /// Calls a batch function, all of whose elements are there in the end.
    pub(super) fn whole(&self, is_async: bool, elements: &[usize]) {
        let values = self.batch(is_async, elements, |elements| Ok(self.run(elements)));
        let wanted = elements.iter().map(|&element| (element, element * 10)).collect();
        assert_eq!(values, Ok(wanted));
    }
}

pub(super) fn of(element: usize) -> Key {
    key(&element.to_string())
}

fn all_threads(shared: &Arc<Shared>, callers: usize, code: fn(&Arc<Shared>, usize)) {
    join_threads(shared, callers, code);
    shared.fixture.is_empty();
}

/// Calls `code` in a thread for each caller, and waits for them.
pub(super) fn join_threads(
    shared: &Arc<Shared>,
    callers: usize,
    code: impl Fn(&Arc<Shared>, usize) + Send + Sync + 'static,
) {
    let code = Arc::new(code);
    let threads: Vec<_> = (0..callers)
        .map(|caller| {
            let (shared, code) = (Arc::clone(shared), Arc::clone(&code));
            thread::spawn(move || code(&shared, caller))
        })
        .collect();
    for thread in threads {
        thread.join().expect("a caller");
    }
}

#[test]
fn batches_and_singles_that_overlap_run_each_element_once() {
    check(|| {
        let shared = Shared::new();
        all_threads(&shared, 4, |shared, caller| match caller {
            0 => shared.whole(false, &[1, 2, 3]),
            1 => shared.whole(true, &[3, 2, 4, 2]),
            2 => shared.whole(false, &[4, 1]),
            _ => shared.single(true, 2),
        });
        for element in 1..ELEMENTS {
            assert_eq!(shared.runs(element), 1, "element {element}");
        }
        assert_eq!(shared.runs(0), 0);
    });
}

#[test]
fn elements_of_a_batch_that_panics_are_computed_by_others() {
    check(|| {
        let shared = Shared::new();
        all_threads(&shared, 3, |shared, caller| match caller {
            0 => {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    shared.batch(true, &[1, 2, 3], |_| {
                        thread::yield_now();
                        // Without the message of a panic.
                        std::panic::resume_unwind(Box::new("planned"))
                    })
                }));
                assert!(result.is_err() || result.is_ok_and(|values| values.is_ok()));
            }
            1 => shared.whole(false, &[2, 1]),
            _ => shared.single(false, 2),
        });
        assert_eq!((shared.runs(1), shared.runs(2)), (1, 1));
    });
}

#[test]
fn elements_of_a_batch_that_is_dropped_are_computed_by_others() {
    check(|| {
        let shared = Shared::new();
        all_threads(&shared, 4, |shared, caller| match caller {
            0 | 1 => {
                // Dropped at any moment: as a leader of some, as a waiter for others.
                let elements = if caller == 0 { [1, 2, 3] } else { [3, 2, 1] };
                let call = batch_call(&elements[..], 2).vayu_call_async(
                    shared.fixture.cache.engine(),
                    |&element| {
                        let (shape, ttl) = (PlainOutput::new(), FixedTtl::new(MINUTE));
                        Policy::new(of(element), shape, &ByReference, ttl)
                    },
                    |elements: Vec<usize>| async move {
                        Yield(false).await;
                        Yield(false).await;
                        elements.into_iter().map(|it| (it, it * 10)).collect::<Values>()
                    },
                );
                let mut call = pin!(call);
                for _ in 0..=2 * caller {
                    let mut context = Context::from_waker(Waker::noop());
                    if call.as_mut().poll(&mut context).is_ready() {
                        break;
                    }
                    thread::yield_now();
                }
            }
            2 => shared.whole(false, &[2, 3]),
            _ => shared.single(true, 1),
        });
    });
}

#[test]
fn batches_in_a_circle_do_not_wait_for_each_other() {
    check(|| {
        let shared = Shared::new();
        all_threads(&shared, 3, |shared, caller| {
            let elements = [[1, 2], [2, 3], [3, 1]][caller];
            let values = shared.batch(caller == 1, &elements, |ours| {
                // An element of this batch, and one that another thread may compute.
                let next = elements[1] % 3 + 1;
                shared.single(false, ours[0]);
                shared.whole(false, &[next, elements[1]]);
                Ok(shared.run(ours))
            });
            assert_eq!(values.map(|values| values.len()), Ok(2));
        });
    });
}

#[test]
fn element_that_a_batch_leaves_out_is_computed_by_the_callers_that_wait() {
    check(|| {
        let shared = Shared::new();
        all_threads(&shared, 3, |shared, caller| match caller {
            0 => {
                let values = shared.batch(false, &[1, 2], |elements| {
                    Ok(shared
                        .run(&elements.iter().copied().filter(|&it| it != 2).collect::<Vec<_>>()))
                });
                let values = values.expect("no failure");
                assert_eq!(values.get(&1), Some(&10));
            }
            1 => shared.single(true, 2),
            _ => shared.whole(true, &[2, 1]),
        });
        assert_eq!(shared.runs(1), 1);
    });
}

#[test]
fn batch_that_fails_leaves_no_caller_asleep() {
    check(|| {
        let shared = Shared::new();
        all_threads(&shared, 4, |shared, caller| match caller {
            0..3 => {
                let elements = if caller == 0 { [1, 2] } else { [2, 1] };
                let values = shared.batch(caller == 1, &elements, |elements| {
                    thread::yield_now();
                    if caller == 2 { Ok(shared.run(elements)) } else { Err(()) }
                });
                assert!(values.is_err() || values.is_ok_and(|values| values.len() == 2));
            }
            // The error of a batch is none of a single call.
            _ => shared.single(true, 2),
        });
    });
}

#[test]
fn overdue_batch_is_replaced_for_each_element() {
    check(|| {
        let shared = Shared::new();
        all_threads(&shared, 4, |shared, caller| match caller {
            0 => shared.fixture.clock.advance(Duration::from_secs(31)),
            1 => shared.whole(false, &[1, 2]),
            2 => shared.whole(true, &[2, 1]),
            _ => shared.single(false, 1),
        });
        assert!(shared.runs(1) >= 1 && shared.runs(2) >= 1);
        let stored = shared.fixture.cache.get::<usize>(&of(2)).expect("read");
        assert_eq!(stored, Some(20));
    });
}
