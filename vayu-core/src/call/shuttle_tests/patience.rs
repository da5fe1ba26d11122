//! Callers that wait a while for a refresh.

use std::sync::Mutex;

use super::*;
use crate::call::late_body::Made;
use crate::call::lookup::begin;
use crate::call::patience::patient;
use crate::sync::IgnorePoison;

/// A run that is not polled, until its future is dropped.
type Hung = Mutex<Option<Box<dyn std::any::Any + Send>>>;

/// Makes a call of a value that is its run. The run in the first task hangs. Returns the value, and whether the call has
/// waited for a task.
fn patient_call(fixture: &Arc<Fixture>, hung: &Arc<Hung>) -> (usize, bool) {
    let engine = fixture.cache.engine();
    let policy = Policy::new(key("k"), PlainOutput::new(), &ByReference, FixedTtl::new(MINUTE));
    let policy = policy.stale(60 * MINUTE);
    let lookup = match begin(engine, &policy) {
        Ok(output) => return (output, false),
        Err(lookup) => lookup,
    };
    let runs = Arc::clone(fixture);
    let body = Box::pin(async move {
        Yield(false).await;
        runs.run()
    });
    let call = patient(engine.clone(), policy, lookup, body, Duration::from_millis(50));
    let mut has_waited = false;
    let value = block_on(call.vayu_run(engine, Made, |task| {
        has_waited = true;
        let mut hung = hung.lock().ignore_poison();
        if hung.is_none() {
            *hung = Some(Box::new(task));
        } else {
            drop(hung);
            thread::spawn(move || block_on(task));
        }
    }));
    (value, has_waited)
}

#[test]
fn callers_with_patience_return_no_value_that_was_invalidated_before_their_time_is_over() {
    check(|| {
        let (fixture, hung) = (Fixture::new(), Arc::new(Hung::default()));
        assert_eq!(patient_call(&fixture, &hung), (1, false));
        fixture.clock.advance(2 * MINUTE);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (fixture, hung) = (Arc::clone(&fixture), Arc::clone(&hung));
                thread::spawn(move || patient_call(&fixture, &hung))
            })
            .collect();
        thread::yield_now();
        fixture.cache.remove(&key("k")).expect("remove");
        fixture.clock.advance(Duration::from_millis(50));
        // The end of the run that hangs.
        let task = hung.lock().ignore_poison().replace(Box::new(()));
        drop(task);
        assert!(patient_call(&fixture, &hung).0 > 1, "it has begun after the invalidation");
        for thread in threads {
            let (value, has_waited) = thread.join().expect("no panic");
            assert!(value <= fixture.runs());
            assert!(value > 1 || !has_waited, "its time was over after the invalidation");
        }
        assert!(patient_call(&fixture, &hung).0 > 1);
        fixture.is_empty();
    });
}
