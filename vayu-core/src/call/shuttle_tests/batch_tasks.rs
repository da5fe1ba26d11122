//! Any overlap of batches and calls of single elements: in the caller and in tasks, with old values, and with cached errors.

use std::pin::Pin;
use std::sync::Mutex;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread::JoinHandle;

use super::batches::{ELEMENTS, Shared, Values, join_threads, of};
use super::*;
use crate::attribute::{BatchCall, batch_call, err_ttl_of_batch};
use crate::call::late_body::Made;
use crate::sync::IgnorePoison;

type BoxedTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The threads of tasks.
#[derive(Default)]
struct Tasks(Mutex<Vec<JoinHandle<()>>>);

impl Tasks {
    fn spawn(&self, task: BoxedTask) {
        self.run(move || block_on(task));
    }

    fn run(&self, code: impl FnOnce() + Send + 'static) {
        let thread = thread::spawn(code);
        self.0.lock().ignore_poison().push(thread);
    }

    /// Waits for all of them.
    fn join(&self) {
        loop {
            let thread = self.0.lock().ignore_poison().pop();
            let Some(thread) = thread else { return };
            thread.join().expect("a task does not panic");
        }
    }
}

/// Returns up to three elements, of which one may be there twice, in any order.
fn any_elements() -> Vec<usize> {
    let mut random = thread_rng();
    (0..random.gen_range(1..4)).map(|_| random.gen_range(1..ELEMENTS)).collect()
}

fn expected(elements: &[usize]) -> Values {
    elements.iter().map(|&element| (element, element * 10)).collect()
}

fn policy_of(element: usize) -> Policy<Key, PlainOutput<usize>, &'static ByReference, FixedTtl> {
    Policy::new(of(element), PlainOutput::new(), &ByReference, FixedTtl::new(MINUTE))
}

/// Polls a future up to `polls` times. Returns its output if it is ready by then.
fn poll_up_to<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let mut context = Context::from_waker(Waker::noop());
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        thread::yield_now();
    }
    None
}

/// Calls a batch function whose computation is a task, which `spawn` gets.
async fn spawning(
    shared: &Arc<Shared>,
    elements: &[usize],
    at_most: usize,
    spawn: impl FnOnce(BoxedTask),
) -> Values {
    let cache = &shared.fixture.cache;
    let batch = batch_call(elements, at_most);
    let found = batch.vayu_look_up(cache.engine(), |&element| policy_of(element));
    let left = match found {
        Ok(values) => return values,
        Err(left) => left,
    };
    let runs = Arc::clone(shared);
    let body = move |elements: Vec<usize>| {
        let runs = Arc::clone(&runs);
        async move {
            Yield(false).await;
            let values = runs.run(&elements);
            Yield(false).await;
            values
        }
    };
    let (asked, call) = batch.vayu_spawnable(cache.engine(), left, body);
    let computed = call.vayu_run(cache.engine(), Made, |task| spawn(Box::pin(task))).await;
    batch.vayu_joined(asked, computed)
}

/// Makes any call of one or more elements.
fn any_call(shared: &Arc<Shared>, tasks: &Arc<Tasks>) {
    let elements = any_elements();
    match thread_rng().gen_range(0..5) {
        0 => shared.single(false, elements[0]),
        1 => shared.single(true, elements[0]),
        2 => shared.whole(false, &elements),
        3 => shared.whole(true, &elements),
        _ => {
            let at_most = thread_rng().gen_range(1..4);
            let values = spawning(shared, &elements, at_most, |task| tasks.spawn(task));
            assert_eq!(block_on(values), expected(&elements));
        }
    }
}

#[test]
fn any_overlap_of_calls_runs_each_element_once() {
    check(|| {
        let (shared, tasks) = (Shared::new(), Arc::<Tasks>::default());
        let asked = Arc::clone(&tasks);
        join_threads(&shared, 4, move |shared, _| any_call(shared, &asked));
        tasks.join();
        for element in 1..ELEMENTS {
            assert!(shared.runs(element) <= 1, "element {element}");
        }
        shared.fixture.is_empty();
    });
}

/// A leader that ends without values: dropped at any await, in a task that is dropped, or by a panic.
#[test]
fn elements_of_a_leader_that_ends_anywhere_are_computed_by_others() {
    check(|| {
        let (shared, tasks) = (Shared::new(), Arc::<Tasks>::default());
        let asked = Arc::clone(&tasks);
        join_threads(&shared, 4, move |shared, caller| {
            if caller > 1 {
                return any_call(shared, &asked);
            }
            let (elements, polls) = (any_elements(), thread_rng().gen_range(0..12));
            let at_most = thread_rng().gen_range(1..4);
            match thread_rng().gen_range(0..4) {
                // The caller is dropped, and its task, if it has one by then, goes on.
                0 => {
                    let call = spawning(shared, &elements, at_most, |task| asked.spawn(task));
                    let values = poll_up_to(polls, call);
                    assert!(values.is_none_or(|values| values == expected(&elements)));
                }
                // The task is dropped, and its caller goes on.
                1 => {
                    let call = spawning(shared, &elements, at_most, |task| {
                        asked.run(move || {
                            poll_up_to(polls, task);
                        });
                    });
                    assert_eq!(block_on(call), expected(&elements));
                }
                // A batch that is a part of its caller is dropped.
                2 => {
                    let call = batch_call(&elements[..], at_most).vayu_call_async(
                        shared.fixture.cache.engine(),
                        |&element| policy_of(element),
                        |elements: Vec<usize>| async move {
                            Yield(false).await;
                            Yield(false).await;
                            expected(&elements)
                        },
                    );
                    let values = poll_up_to(polls, call);
                    assert!(values.is_none_or(|values| values == expected(&elements)));
                }
                _ => {
                    let is_async = thread_rng().gen_range(0..2) == 0;
                    let call = catch_unwind(AssertUnwindSafe(|| {
                        shared.batch(is_async, &elements, |_| {
                            thread::yield_now();
                            // Without the message of a panic.
                            std::panic::resume_unwind(Box::new("planned"))
                        })
                    }));
                    assert!(call.is_err() || call.is_ok_and(|it| it == Ok(expected(&elements))));
                }
            }
        });
        tasks.join();
        shared.fixture.is_empty();
    });
}

impl Shared {
    /// Calls a batch function with `stale`, whose refresh is a task or a part of the call. The value of an element is the
    /// number of its runs.
    fn refreshing(self: &Arc<Self>, elements: &[usize], tasks: Option<&Tasks>) -> Values {
        let cache = &self.fixture.cache;
        let batch = batch_call(elements, thread_rng().gen_range(1..4));
        let describe = |&element: &usize| policy_of(element).stale(60 * MINUTE);
        let found = batch.vayu_look_up(cache.engine(), describe);
        let mut left = match found {
            Ok(values) => return values,
            Err(left) => left,
        };
        let runs = Arc::clone(self);
        let body = move |elements: Vec<usize>| {
            let runs = Arc::clone(&runs);
            async move {
                Yield(false).await;
                runs.run(&elements);
                elements.iter().map(|&element| (element, runs.runs(element))).collect::<Values>()
            }
        };
        block_on(async {
            let refresh = match tasks {
                None => None,
                Some(tasks) => {
                    left.vayu_serve_stale_async(cache.engine()).await.map(|it| (tasks, it))
                }
            };
            if let Some((tasks, refresh)) = refresh {
                let body = body.clone();
                let task = batch.vayu_task_of(cache.engine(), refresh, body);
                if thread_rng().gen_range(0..4) == 0 {
                    // It is left to a later call.
                    drop(task);
                } else {
                    tasks.spawn(Box::pin(task));
                }
            }
            batch.vayu_finish_async(cache.engine(), left, body).await
        })
    }

    /// Calls a function of one element with `stale`.
    fn refreshing_single(&self, element: usize) -> usize {
        let policy = policy_of(element).stale(60 * MINUTE);
        blocking::run(self.fixture.cache.engine(), policy, || {
            self.run(&[element]);
            self.runs(element)
        })
    }
}

#[test]
fn old_elements_of_calls_that_overlap_are_refreshed_once() {
    check(|| {
        let (shared, tasks) = (Shared::new(), Arc::<Tasks>::default());
        let first: Vec<usize> = (1..ELEMENTS - 1).collect();
        shared.refreshing(&first, None);
        shared.fixture.clock.advance(2 * MINUTE);
        let asked = Arc::clone(&tasks);
        join_threads(&shared, 4, move |shared, _| {
            let elements = any_elements();
            match thread_rng().gen_range(0..4) {
                0 => assert!(shared.refreshing_single(elements[0]) <= 2),
                1 => assert!(shared.refreshing(&elements, None).values().all(|runs| *runs <= 2)),
                _ => {
                    let values = shared.refreshing(&elements, Some(&asked));
                    assert!(values.values().all(|runs| *runs <= 2));
                }
            }
        });
        tasks.join();
        for element in 1..ELEMENTS {
            let limit = if element == ELEMENTS - 1 { 1 } else { 2 };
            assert!(shared.runs(element) <= limit, "element {element}");
        }
        shared.fixture.is_empty();
        // No element is left in backoff: the refreshes have ended, or have not begun.
        let all: Vec<usize> = (1..ELEMENTS).collect();
        shared.refreshing(&all, None);
        for element in 1..ELEMENTS {
            let runs = shared.runs(element);
            assert_eq!(runs, if element == ELEMENTS - 1 { 1 } else { 2 }, "element {element}");
        }
    });
}

impl Shared {
    /// Calls a batch function that fails, whose errors are cached. Its error has the numbers of the runs of its elements.
    fn failing(&self, is_async: bool, elements: &[usize]) -> Vec<(usize, usize)> {
        let cache = &self.fixture.cache;
        type Shape = SharedResultOutput<Values, Vec<(usize, usize)>>;
        let batch: BatchCall<'_, _, Shape> = BatchCall::new(elements, thread_rng().gen_range(1..4));
        let describe = |&element: &usize| {
            let ttl = err_ttl_of_batch(Shape::new(), FixedTtl::new(MINUTE), |_| MINUTE);
            Policy::new(of(element), PlainOutput::new(), &ByReference, ttl)
        };
        let body = |elements: &[usize]| -> Result<Values, Vec<(usize, usize)>> {
            self.run(elements);
            Err(elements.iter().map(|&element| (element, self.runs(element))).collect())
        };
        let output = if is_async {
            let body = |elements: Vec<usize>| async move {
                Yield(false).await;
                body(&elements)
            };
            block_on(batch.vayu_call_async(cache.engine(), describe, body))
        } else {
            let body = |elements: Vec<usize>| body(&elements);
            batch.vayu_call(cache.engine(), describe, body)
        };
        output.expect_err("each run fails")
    }
}

#[test]
fn batches_that_fail_and_overlap_run_each_element_once() {
    check(|| {
        let shared = Shared::new();
        join_threads(&shared, 4, |shared, caller| {
            let elements = any_elements();
            let error = shared.failing(caller % 2 == 0, &elements);
            assert!(error.iter().any(|(element, _)| elements.contains(element)), "{error:?}");
        });
        for element in 1..ELEMENTS {
            assert!(shared.runs(element) <= 1, "element {element}");
        }
        shared.fixture.is_empty();
    });
}

#[test]
fn cached_error_of_a_batch_is_not_returned_after_an_invalidation() {
    check(|| {
        let shared = Shared::new();
        join_threads(&shared, 3, |shared, caller| {
            if caller > 0 {
                shared.failing(caller == 1, &[1, 2]);
                return;
            }
            let before = shared.runs(1);
            shared.fixture.cache.remove(&of(1)).expect("remove");
            let error = shared.failing(false, &[1]);
            let run = error.iter().find(|(element, _)| *element == 1).expect("it is of 1").1;
            assert!(run > before, "run {run} began before the invalidation");
        });
        assert!(shared.runs(1) <= 3);
        shared.fixture.is_empty();
    });
}

/// An error of a batch is none of a single call, so a single call of an element that was in a failed run runs.
#[test]
fn batches_that_fail_beside_single_calls_leave_no_caller_asleep() {
    check(|| {
        let shared = Shared::new();
        join_threads(&shared, 4, |shared, caller| {
            let elements = any_elements();
            if caller % 2 == 0 {
                shared.single(caller == 0, elements[0]);
                return;
            }
            let values = shared.batch(caller == 1, &elements, |elements| {
                thread::yield_now();
                if thread_rng().gen_range(0..2) == 0 { Ok(shared.run(elements)) } else { Err(()) }
            });
            assert!(values.is_err() || values == Ok(expected(&elements)));
        });
        shared.fixture.is_empty();
    });
}
