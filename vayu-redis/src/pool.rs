//! The connections of sync callers.

use std::process;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::failure::Failure;
use crate::link::Link;

/// A few connections, each of which one caller has at a time.
pub(crate) struct Pool {
    max: usize,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    idle: Vec<Box<dyn Link>>,
    /// How many there are, idle or not.
    open: usize,
    /// How many wait for a place. To wake somebody is a call of the system, even if nobody waits.
    waiting: usize,
    /// The process that opened them. After a fork both would talk over one connection.
    process: u32,
}

impl Pool {
    pub(crate) fn new(max: usize) -> Self {
        let state = State { idle: Vec::new(), open: 0, waiting: 0, process: process::id() };
        Self { max, state: Mutex::new(state), freed: Condvar::new() }
    }

    /// Runs `with` on a connection, a new one if none is idle. The connection is kept if it is still
    /// good afterwards.
    pub(crate) fn with<T>(
        &self,
        deadline: Instant,
        connect: impl FnOnce() -> Result<Box<dyn Link>, Failure>,
        with: impl FnOnce(&mut dyn Link) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut place = self.place(deadline)?;
        let mut link = match place.link.take() {
            Some(link) => link,
            None => connect()?,
        };
        let answer = with(&mut *link);
        if answer.as_ref().err().is_none_or(Failure::is_answer) {
            place.link = Some(link);
        }
        answer
    }

    /// Gives up the connections that are idle.
    pub(crate) fn close_idle(&self) {
        let mut state = self.state();
        let idle = std::mem::take(&mut state.idle);
        state.open = state.open.saturating_sub(idle.len());
        drop(state);
        drop(idle);
    }

    fn place(&self, deadline: Instant) -> Result<Place<'_>, Failure> {
        let mut state = self.state();
        loop {
            if state.process != process::id() {
                // What a thread of the parent was doing does not go on here.
                let idle = std::mem::take(&mut state.idle);
                (state.open, state.process) = (0, process::id());
                drop(idle);
            }
            if let Some(link) = state.idle.pop() {
                return Ok(Place { pool: self, link: Some(link), process: state.process });
            }
            if state.open < self.max {
                state.open += 1;
                return Ok(Place { pool: self, link: None, process: state.process });
            }
            let left = crate::link::left_until(deadline)?;
            state.waiting += 1;
            let wait = self.freed.wait_timeout(state, left);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to a connection. It is given back when this is dropped, with the connection if there is
/// one.
struct Place<'a> {
    pool: &'a Pool,
    link: Option<Box<dyn Link>>,
    process: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        if state.process == self.process {
            match self.link.take() {
                Some(link) => state.idle.push(link),
                None => state.open -= 1,
            }
        }
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.pool.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use redis::{Cmd, Value};
    use vayu_core::testing::watchdog;

    use super::*;

    struct Echo(usize);

    impl Link for Echo {
        fn ask(&mut self, _: &Cmd, _: Instant) -> Result<Value, Failure> {
            Ok(Value::Int(i64::try_from(self.0).unwrap()))
        }
    }

    #[test]
    fn good_connections_are_used_again_and_bad_ones_are_not() {
        let pool = Pool::new(2);
        let opened = AtomicUsize::new(0);
        let connect = || -> Result<Box<dyn Link>, Failure> {
            Ok(Box::new(Echo(opened.fetch_add(1, Ordering::SeqCst))))
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let ask = |link: &mut dyn Link| link.ask(&redis::cmd("PING"), deadline);
        assert_eq!(pool.with(deadline, connect, ask).unwrap(), Value::Int(0));
        assert_eq!(pool.with(deadline, connect, ask).unwrap(), Value::Int(0));
        let fail = |_: &mut dyn Link| Err::<Value, _>(Failure::Answer);
        pool.with(deadline, connect, fail).unwrap_err();
        assert_eq!(pool.with(deadline, connect, ask).unwrap(), Value::Int(1));
        // A place is not lost with what could not be connected.
        pool.close_idle();
        for _ in 0..10 {
            pool.with(deadline, || Err(Failure::Resting), ask).unwrap_err();
        }
        assert_eq!(pool.with(deadline, connect, ask).unwrap(), Value::Int(2));
    }

    #[test]
    fn who_finds_all_taken_waits_until_the_deadline() {
        let pool = Pool::new(1);
        let connect = || -> Result<Box<dyn Link>, Failure> { Ok(Box::new(Echo(0))) };
        let far = Instant::now() + Duration::from_secs(60);
        let nested = |_: &mut dyn Link| {
            let near = Instant::now() + Duration::from_millis(10);
            pool.with(near, connect, |_| Ok(())).unwrap_err();
            Ok(())
        };
        pool.with(far, connect, nested).unwrap();
        pool.with(far, connect, |_| Ok(())).unwrap();
    }

    #[test]
    fn who_waits_is_woken_by_who_has_done() {
        watchdog(Duration::from_secs(20), || {
            let pool = Pool::new(1);
            let connect = || -> Result<Box<dyn Link>, Failure> { Ok(Box::new(Echo(0))) };
            let far = Instant::now() + Duration::from_secs(60);
            thread::scope(|scope| {
                let others = |_: &mut dyn Link| {
                    for _ in 0..3 {
                        scope.spawn(|| pool.with(far, connect, |_| Ok(())).unwrap());
                    }
                    while pool.state().waiting < 3 {
                        thread::yield_now();
                    }
                    Ok(())
                };
                pool.with(far, connect, others).unwrap();
            });
            assert_eq!(pool.state().waiting, 0);
        });
    }
}
