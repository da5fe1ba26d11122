//! The connection pool of sync callers.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::deadline::time_until;
use crate::error::Failure;
use crate::error_reply::Scope;
use crate::sync::lock;
use crate::sync_connection::SyncConnection;
use vayu_core::__internal::{IgnorePoison, ProcessId};

/// A pool of connections, each of which one caller uses at a time.
///
/// A connection that turns out to be closed, by the server or the network, is not a failure of the
/// server: it is replaced by a new one, over which the command is sent once more. The other idle
/// connections were idle for longer, so they are closed with it.
pub(crate) struct Pool {
    max: usize,
    /// A connection that was idle for longer may have been dropped silently by the network.
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
    /// Idle connections, the most recently used at the end.
    idle: Vec<PooledConnection>,
    /// Number of connections, idle or in use.
    open: usize,
    /// Number of waiting callers. Notifying is a system call even if there is none.
    waiting: usize,
    /// The process that opened them. After a fork both processes would use the same connections.
    process: ProcessId,
}

impl Pool {
    pub(crate) fn new(max: usize, max_idle: Duration) -> Self {
        let state = State { idle: Vec::new(), open: 0, waiting: 0, process: ProcessId::current() };
        Self { max, max_idle, state: Mutex::new(state), freed: Condvar::new() }
    }

    /// Runs `work` on an idle connection or a new one, and once more on a new one if the idle one
    /// turns out to be closed. The connection is returned to the pool if it is still usable
    /// afterwards.
    pub(crate) fn with_connection<T>(
        &self,
        deadline: Instant,
        connect: impl Fn() -> Result<Box<dyn SyncConnection>, Failure>,
        work: impl Fn(&mut dyn SyncConnection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut guard = self.acquire(deadline)?;
        if let Some(mut connection) = guard.connection.take() {
            let result = work(&mut *connection.inner);
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
        let result = work(&mut *connection.inner);
        guard.put_back(connection, result.as_ref().err());
        result
    }

    /// Closes the idle connections.
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
            if !state.process.is_current() {
                // Threads of the parent do not exist in this process.
                let idle = std::mem::take(&mut state.idle);
                (state.open, state.process) = (0, ProcessId::current());
                drop(idle);
            }
            let connection = state.idle.pop();
            if connection.as_ref().is_some_and(|last| last.used.elapsed() >= self.max_idle) {
                // It was used most recently, so the others are idle for longer.
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
            let left = time_until(deadline)?;
            state.waiting += 1;
            let wait = self.freed.wait_timeout(state, left);
            state = wait.ignore_poison().0;
            state.waiting -= 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A guard for the right to one connection. Dropping it returns the right to the pool, with the
/// connection if there is one.
struct PoolGuard<'a> {
    pool: &'a Pool,
    connection: Option<PooledConnection>,
    process: ProcessId,
}

impl PoolGuard<'_> {
    /// Keeps a connection for the next caller, unless a failure made it unusable.
    fn put_back(&mut self, mut connection: PooledConnection, failure: Option<&Failure>) {
        if failure.is_none_or(|failure| failure.scope() != Scope::Server) {
            connection.used = Instant::now();
            self.connection = Some(connection);
        }
    }
}

/// Returns whether a command that failed on a connection may succeed on a new one. If the server
/// rejects it on any connection, this reconnects at most once a second.
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
        fn send(&mut self, _: &Cmd, _: Instant) -> Result<Value, Failure> {
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
            |connection: &mut dyn SyncConnection| connection.send(&redis::cmd("PING"), deadline);
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(0));
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(0));
        let fail = |_: &mut dyn SyncConnection| Err::<Value, _>(Failure::UnexpectedReply);
        pool.with_connection(deadline, connect, fail).unwrap_err();
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(1));
        // Failed attempts to connect do not use up the pool.
        pool.close_idle();
        for _ in 0..10 {
            pool.with_connection(deadline, || Err(Failure::QueueFull), ask).unwrap_err();
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
            .send(&redis::cmd("PING"), deadline)?
        {
            Value::Int(0..5) => Err(lost()),
            value => Ok(value),
        };
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(5));
        assert_eq!(pool.with_connection(deadline, connect, ask).unwrap(), Value::Int(5));
        // A server that closes new connections has failed, and there is no third attempt.
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
