//! The connections of sync callers.

use std::process;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Failure;
use crate::error_reply::Scope;
use crate::sync_connection::SyncConnection;

/// A few connections, each of which one caller has at a time.
///
/// A connection that turns out to be closed, by the server or on the way, says nothing about the
/// server: it is replaced by a new one, over which the command is sent once more. As the others were
/// idle for longer they are given up with it.
pub(crate) struct Pool {
    max: usize,
    /// A connection that was idle for longer than this may have been dropped without a sign.
    max_idle: Duration,
    state: Mutex<State>,
    freed: Condvar,
}

struct PooledConnection {
    inner: Box<dyn SyncConnection>,
    opened: Instant,
    used: Instant,
}

struct State {
    /// The one that was used last is at the end.
    idle: Vec<PooledConnection>,
    /// How many there are, idle or not.
    open: usize,
    /// How many wait for a place. To wake somebody is a call of the system, even if nobody waits.
    waiting: usize,
    /// The process that opened them. After a fork both would talk over one connection.
    process: u32,
}

impl Pool {
    pub(crate) fn new(max: usize, max_idle: Duration) -> Self {
        let state = State { idle: Vec::new(), open: 0, waiting: 0, process: process::id() };
        Self { max, max_idle, state: Mutex::new(state), freed: Condvar::new() }
    }

    /// Runs `with` on a connection, a new one if none is idle, and once more on a new one if an idle
    /// one turns out to be of no use. The connection is kept if it is still good afterwards.
    pub(crate) fn with_connection<T>(
        &self,
        deadline: Instant,
        connect: impl Fn() -> Result<Box<dyn SyncConnection>, Failure>,
        with: impl Fn(&mut dyn SyncConnection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut guard = self.acquire(deadline)?;
        if let Some(mut connection) = guard.connection.take() {
            let result = with(&mut *connection.inner);
            match result.as_ref().err() {
                Some(failure) if is_retryable(failure, connection.opened) => {
                    drop(connection);
                    self.close_idle();
                }
                failure => {
                    guard.put_back(connection, failure);
                    return result;
                }
            }
        }
        let connection = connect()?;
        let now = Instant::now();
        let mut connection = PooledConnection { inner: connection, opened: now, used: now };
        let result = with(&mut *connection.inner);
        guard.put_back(connection, result.as_ref().err());
        result
    }

    /// Gives up the connections that are idle.
    pub(crate) fn close_idle(&self) {
        let mut state = self.state();
        let idle = std::mem::take(&mut state.idle);
        state.open = state.open.saturating_sub(idle.len());
        drop(state);
        drop(idle);
    }

    fn acquire(&self, deadline: Instant) -> Result<PoolGuard<'_>, Failure> {
        let mut state = self.state();
        loop {
            if state.process != process::id() {
                // What a thread of the parent was doing does not go on here.
                let idle = std::mem::take(&mut state.idle);
                (state.open, state.process) = (0, process::id());
                drop(idle);
            }
            let connection = state.idle.pop();
            if connection.as_ref().is_some_and(|last| last.used.elapsed() >= self.max_idle) {
                // It was used last, so the others are older.
                let idle = std::mem::take(&mut state.idle);
                state.open -= idle.len();
                let process = state.process;
                drop(state);
                drop((connection, idle));
                return Ok(PoolGuard { pool: self, connection: None, process });
            }
            if connection.is_some() {
                return Ok(PoolGuard { pool: self, connection, process: state.process });
            }
            if state.open < self.max {
                state.open += 1;
                return Ok(PoolGuard { pool: self, connection: None, process: state.process });
            }
            let left = crate::sync_connection::time_until(deadline)?;
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
struct PoolGuard<'a> {
    pool: &'a Pool,
    connection: Option<PooledConnection>,
    process: u32,
}

impl PoolGuard<'_> {
    /// Keeps a connection for the next caller, unless there was a failure after which it is of no use.
    fn put_back(&mut self, mut connection: PooledConnection, failure: Option<&Failure>) {
        if failure.is_none_or(|failure| failure.scope() != Scope::Server) {
            connection.used = Instant::now();
            self.connection = Some(connection);
        }
    }
}

/// Returns whether a command that failed on a connection may succeed on a new one. If the server
/// refuses it on any connection, that is tried once a second at most.
pub(crate) fn is_retryable(failure: &Failure, opened: Instant) -> bool {
    const AGE: Duration = Duration::from_secs(1);
    failure.is_connection_lost() || failure.scope() == Scope::Connection && opened.elapsed() >= AGE
}

impl Drop for PoolGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        if state.process == self.process {
            match self.connection.take() {
                Some(connection) => state.idle.push(connection),
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
    use redis::{Cmd, Value};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use vayu_core::testing::watchdog;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    struct Echo(usize);

    impl SyncConnection for Echo {
        fn execute(&mut self, _: &Cmd, _: Instant) -> Result<Value, Failure> {
            Ok(Value::Int(i64::try_from(self.0).unwrap()))
        }
    }

    #[test]
    fn working_connection_is_reused_and_broken_one_is_replaced() {
        let pool = Pool::new(2, HOUR);
        let opened = AtomicUsize::new(0);
        let connect = || -> Result<Box<dyn SyncConnection>, Failure> {
            Ok(Box::new(Echo(opened.fetch_add(1, Ordering::SeqCst))))
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let ask =
            |connection: &mut dyn SyncConnection| connection.execute(&redis::cmd("PING"), deadline);
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(0));
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(0));
        let fail = |_: &mut dyn SyncConnection| Err::<Value, _>(Failure::UnexpectedReply);
        pool.with_connection(deadline, connect, fail).unwrap_err();
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(1));
        // A place is not lost with what could not be connected.
        pool.close_idle();
        for _ in 0..10 {
            pool.with_connection(deadline, || Err(Failure::CircuitOpen), ask).unwrap_err();
        }
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(2));
    }

    #[test]
    fn closed_connections_are_replaced_together_and_the_failure_of_a_new_one_is_final() {
        let pool = Pool::new(8, HOUR);
        let opened = AtomicUsize::new(0);
        let connect = || -> Result<Box<dyn SyncConnection>, Failure> {
            Ok(Box::new(Echo(opened.fetch_add(1, Ordering::SeqCst))))
        };
        let deadline = Instant::now() + HOUR;
        // Five are idle, all of them closed.
        let nested = |depth: usize| {
            fn nest(
                pool: &Pool,
                connect: &dyn Fn() -> Result<Box<dyn SyncConnection>, Failure>,
                depth: usize,
            ) {
                let deeper = |_: &mut dyn SyncConnection| {
                    if depth > 1 {
                        nest(pool, connect, depth - 1);
                    }
                    Ok(())
                };
                pool.with_connection(Instant::now() + HOUR, connect, deeper).unwrap();
            }
            nest(&pool, &connect, depth);
        };
        nested(5);
        let lost =
            || Failure::ConnectionLost(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into());
        let ask = |connection: &mut dyn SyncConnection| match connection
            .execute(&redis::cmd("PING"), deadline)?
        {
            Value::Int(0..5) => Err(lost()),
            value => Ok(value),
        };
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(5));
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(5));
        // A server that closes new connections has failed, and there is no third try.
        let tries = AtomicUsize::new(0);
        let fail = |_: &mut dyn SyncConnection| {
            tries.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(lost())
        };
        pool.with_connection(deadline, connect, fail).unwrap_err();
        assert_eq!((tries.load(Ordering::SeqCst), opened.load(Ordering::SeqCst)), (2, 7));
    }

    #[test]
    fn connection_idle_for_max_idle_is_replaced() {
        let opened = AtomicUsize::new(0);
        let connect = || -> Result<Box<dyn SyncConnection>, Failure> {
            Ok(Box::new(Echo(opened.fetch_add(1, Ordering::SeqCst))))
        };
        let deadline = Instant::now() + HOUR;
        for (max_idle, connections) in [(HOUR, 1), (Duration::ZERO, 3)] {
            opened.store(0, Ordering::SeqCst);
            let pool = Pool::new(1, max_idle);
            for _ in 0..3 {
                pool.with_connection(deadline, connect, |_| Ok(())).unwrap();
            }
            assert_eq!(opened.load(Ordering::SeqCst), connections);
        }
    }

    #[test]
    fn caller_without_a_free_connection_waits_until_its_deadline() {
        let pool = Pool::new(1, HOUR);
        let connect = || -> Result<Box<dyn SyncConnection>, Failure> { Ok(Box::new(Echo(0))) };
        let distant = Instant::now() + Duration::from_secs(60);
        let nested = |_: &mut dyn SyncConnection| {
            let near = Instant::now() + Duration::from_millis(10);
            pool.with_connection(near, connect, |_| Ok(())).unwrap_err();
            Ok(())
        };
        pool.with_connection(distant, connect, nested).unwrap();
        pool.with_connection(distant, connect, |_| Ok(())).unwrap();
    }

    #[test]
    fn returned_connection_wakes_a_waiting_caller() {
        watchdog(Duration::from_secs(20), || {
            let pool = Pool::new(1, HOUR);
            let connect = || -> Result<Box<dyn SyncConnection>, Failure> { Ok(Box::new(Echo(0))) };
            let distant = Instant::now() + Duration::from_secs(60);
            thread::scope(|scope| {
                let others = |_: &mut dyn SyncConnection| {
                    for _ in 0..3 {
                        scope.spawn(|| pool.with_connection(distant, connect, |_| Ok(())).unwrap());
                    }
                    while pool.state().waiting < 3 {
                        thread::yield_now();
                    }
                    Ok(())
                };
                pool.with_connection(distant, connect, others).unwrap();
            });
            assert_eq!(pool.state().waiting, 0);
        });
    }
}
