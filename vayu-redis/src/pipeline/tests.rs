//! Tests of the pipeline, over an in-memory stream and a paused clock.

use std::sync::Mutex;
use std::task::Waker;

use tokio::io::{AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::runtime::{Builder, Runtime};
use vayu_core::testing::watchdog;

use super::queue::{MAX_DIRECT, MAX_PENDING};
use super::*;
use crate::error_reply::Scope;

const TIMEOUT: Duration = Duration::from_millis(250);
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A stream that callers write to, too, as a socket.
#[derive(Clone)]
struct SharedStream(Arc<Mutex<DuplexStream>>);

impl AsyncRead for SharedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock().unwrap()).poll_read(context, buffer)
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock().unwrap()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock().unwrap()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock().unwrap()).poll_shutdown(context)
    }
}

impl io::Write for SharedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(self).poll_write(&mut Context::from_waker(Waker::noop()), bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for SharedStream {
    fn reset_on_close(&self) {}
}

/// A socket that takes nothing without waiting.
struct Full;

impl Socket for Full {
    fn reset_on_close(&self) {}
}

impl io::Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns a pipeline whose callers may write to its stream if it is idle, or leave all to the driver.
fn pipeline(ours: DuplexStream, by_callers: bool) -> Pipeline {
    let socket = SharedStream(Arc::new(Mutex::new(ours)));
    let direct: Box<dyn Socket> =
        if by_callers { Box::new(socket.clone()) } else { Box::new(Full) };
    Pipeline::from_stream(socket, direct, TIMEOUT, 100, now)
}

/// Runs a test with a paused clock, which advances when all tasks are idle: once where callers write to the socket, and once
/// where only the driver does.
fn with_server<F: Future<Output = ()>>(
    test: impl Fn(Pipeline, DuplexStream) -> F + Send + 'static,
) {
    watchdog(TEST_TIMEOUT, move || {
        for by_callers in [true, false] {
            paused().block_on(async {
                let (ours, server) = duplex(64 * 1024);
                test(pipeline(ours, by_callers), server).await;
            });
        }
    });
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Returns the time of the paused clock.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn send(pipeline: &Pipeline, name: &str) -> tokio::task::JoinHandle<Result<Value, Failure>> {
    send_within(pipeline, name, TIMEOUT)
}

fn send_within(
    pipeline: &Pipeline,
    name: &str,
    limit: Duration,
) -> tokio::task::JoinHandle<Result<Value, Failure>> {
    let (pipeline, command, deadline) = (pipeline.clone(), request::get(name), now() + limit);
    tokio::spawn(async move { pipeline.send(command.command(), deadline).await })
}

async fn expect_commands(server: &mut DuplexStream, names: &[&str]) {
    let expected: Vec<u8> =
        names.iter().flat_map(|name| request::get(name).command().get_packed_command()).collect();
    let mut received = vec![0; 2 * expected.len()];
    let length = server.read(&mut received).await.unwrap();
    assert_eq!(received[..length], expected, "written at once");
}

fn bytes(text: &str) -> Value {
    Value::BulkString(text.into())
}

#[test]
fn commands_sent_together_are_written_at_once_and_replies_matched_in_order() {
    with_server(|pipeline, mut server| async move {
        for _ in 0..3 {
            let pending = ["a", "b", "c"].map(|name| send(&pipeline, name));
            expect_commands(&mut server, &["a", "b", "c"]).await;
            for piece in [&b"$1\r\nx\r"[..], b"\n$-1\r", b"\n-WRONGTYPE no\r\n"] {
                server.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let [first, second, third] = pending;
            assert_eq!(first.await.unwrap().unwrap(), bytes("x"));
            assert_eq!(second.await.unwrap().unwrap(), Value::Nil);
            assert_eq!(third.await.unwrap().unwrap_err().scope(), Scope::Command);
        }
    });
}

#[test]
fn each_command_times_out_at_its_own_deadline() {
    with_server(|pipeline, mut server| async move {
        let began = now();
        let early = send(&pipeline, "early");
        tokio::time::sleep(TIMEOUT / 2).await;
        let late = send(&pipeline, "late");
        // The connection is not silent.
        tokio::time::sleep(TIMEOUT / 4).await;
        server.write_all(b"$").await.unwrap();
        let sooner = send_within(&pipeline, "sooner", TIMEOUT / 8);
        let (grain, sooner_limit) = (Duration::from_millis(2), Duration::from_millis(32));
        assert!(sooner_limit > TIMEOUT / 8, "it is rounded up");
        for (caller, at, waited) in [
            (sooner, TIMEOUT * 7 / 8, sooner_limit),
            (early, TIMEOUT, TIMEOUT),
            (late, TIMEOUT + TIMEOUT / 2, TIMEOUT),
        ] {
            let failure = caller.await.unwrap().unwrap_err();
            assert_eq!(failure.to_string(), format!("no reply within {waited:?}"));
            let elapsed = now() - began;
            assert!(elapsed >= at && elapsed <= at + grain, "{elapsed:?} of {at:?}");
        }
    });
}

/// Simulates a firewall that has dropped the connection silently.
#[test]
fn silent_connection_is_closed_after_one_timeout_even_without_callers() {
    for is_cancelled in [false, true] {
        with_server(move |pipeline, mut server| async move {
            // An idle connection is not silent: no reply is pending.
            tokio::time::sleep(10 * TIMEOUT).await;
            let first = send(&pipeline, "first");
            expect_commands(&mut server, &["first"]).await;
            tokio::time::sleep(TIMEOUT / 2).await;
            let second = send(&pipeline, "second");
            tokio::task::yield_now().await;
            if is_cancelled {
                first.abort();
            } else {
                assert!(matches!(first.await.unwrap(), Err(Failure::Timeout(_))));
            }
            assert!(
                second.await.unwrap().unwrap_err().is_connection_lost(),
                "it may be sent again"
            );
            assert!(send(&pipeline, "third").await.unwrap().unwrap_err().is_connection_lost());
        });
    }
}

#[test]
fn late_reply_is_discarded_and_the_connection_kept() {
    with_server(|pipeline, mut server| async move {
        for _ in 0..5 {
            let late = send(&pipeline, "late");
            tokio::time::sleep(TIMEOUT * 9 / 10).await;
            let patient = send(&pipeline, "patient");
            server.write_all(b"$4\r\nl").await.unwrap();
            late.await.unwrap().unwrap_err();
            server.write_all(b"ate\r\n$1\r\np\r\n").await.unwrap();
            assert_eq!(patient.await.unwrap().unwrap(), bytes("p"));
        }
    });
}

#[test]
fn commands_without_a_partial_reply_are_retryable_after_a_disconnect() {
    for (sent, is_first_lost) in [("", true), ("$1\r\n", false)] {
        with_server(move |pipeline, mut server| async move {
            let callers = ["a", "b", "c"].map(|name| send(&pipeline, name));
            expect_commands(&mut server, &["a", "b", "c"]).await;
            server.write_all(sent.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
            drop(server);
            let mut lost = Vec::new();
            for caller in callers {
                lost.push(caller.await.unwrap().unwrap_err().is_connection_lost());
            }
            assert_eq!(lost, [is_first_lost, true, true]);
        });
    }
}

#[test]
fn pending_replies_are_limited() {
    with_server(|pipeline, _server| async move {
        let enqueue = || pipeline.0.queue.enqueue(request::ping().command(), now() + TIMEOUT);
        for _ in 0..MAX_PENDING {
            drop(enqueue().unwrap());
        }
        assert!(matches!(enqueue(), Err(Failure::QueueFull)));
    });
}

#[test]
fn reply_to_a_cancelled_command_is_discarded() {
    with_server(|pipeline, mut server| async move {
        let late = send_within(&pipeline, "late", TIMEOUT / 2);
        let (cancelled, patient) = (send(&pipeline, "cancelled"), send(&pipeline, "patient"));
        late.await.unwrap().unwrap_err();
        cancelled.abort();
        server.write_all(b"$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n").await.unwrap();
        assert_eq!(patient.await.unwrap().unwrap(), bytes("3"));
    });
}

#[test]
fn broken_connection_fails_pending_and_later_commands() {
    for sent in ["", "$1\r\nx\r\n+x\r\n+unasked\r\n", "*1\r\n", "$101\r\n"] {
        with_server(move |pipeline, mut server| async move {
            let waiting = [send(&pipeline, "a"), send(&pipeline, "b")];
            expect_commands(&mut server, &["a", "b"]).await;
            server.write_all(sent.as_bytes()).await.unwrap();
            let is_answered = sent.starts_with("$1\r");
            if !is_answered {
                server.shutdown().await.unwrap();
            }
            let began = now();
            for one in waiting {
                assert_eq!(one.await.unwrap().is_ok(), is_answered, "{sent:?}");
            }
            tokio::task::yield_now().await;
            let failure = send(&pipeline, "c").await.unwrap().unwrap_err();
            assert!(failure.is_connection_lost(), "{failure}");
            assert_eq!(now() - began, Duration::ZERO, "at once");
        });
    }
}

#[test]
fn commands_fail_when_the_runtime_ends() {
    watchdog(TEST_TIMEOUT, || {
        let (ours, _server) = duplex(1024);
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let pipeline = runtime.block_on(async { pipeline(ours, true) });
        let enqueue = || pipeline.0.queue.enqueue(request::ping().command(), now() + TIMEOUT);
        let reply = enqueue().unwrap();
        drop(runtime);
        assert!(reply.blocking_recv().unwrap().is_err());
        assert!(enqueue().is_err());
    });
}

#[test]
fn last_handle_stops_the_driver() {
    with_server(|pipeline, mut server| async move {
        let other = pipeline.clone();
        drop(pipeline);
        let waiting = send(&other, "a");
        expect_commands(&mut server, &["a"]).await;
        server.write_all(b"$-1\r\n").await.unwrap();
        waiting.await.unwrap().unwrap();
        drop(other);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "it is connection_closed");
    });
}

#[test]
fn timeout_holds_while_a_write_blocks() {
    for by_callers in [true, false] {
        watchdog(TEST_TIMEOUT, move || {
            paused().block_on(async {
                let (ours, _server) = duplex(16);
                let pipeline = pipeline(ours, by_callers);
                let first = send(&pipeline, "a name that is longer than what the pipe takes");
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                // Queued while the first is being written.
                let second = send(&pipeline, "second");
                assert!(matches!(first.await.unwrap(), Err(Failure::Timeout(_))));
                assert!(matches!(second.await.unwrap(), Err(Failure::Timeout(_))));
                // A server that does not read counts as silent, too.
                let third = tokio::time::timeout(100 * TIMEOUT, send(&pipeline, "third")).await;
                assert!(third.unwrap().unwrap().unwrap_err().is_connection_lost());
            });
        });
    }
}

#[test]
fn caller_writes_to_an_idle_connection_before_the_driver_runs() {
    watchdog(TEST_TIMEOUT, || {
        paused().block_on(async {
            let (ours, mut server) = duplex(64 * 1024);
            let pipeline = pipeline(ours, true);
            let enqueue = |name| {
                let deadline = now() + TIMEOUT;
                pipeline.0.queue.enqueue(request::get(name).command(), deadline).unwrap()
            };
            for round in 0..3 {
                let first = enqueue("first");
                // No task has run in between.
                let (second, third) = (enqueue("second"), enqueue("third"));
                let mut received = [0; 1000];
                let length = now_or_never(server.read(&mut received)).unwrap();
                let packed = request::get("first").command().get_packed_command();
                assert_eq!(received[..length], packed, "round {round}");
                expect_commands(&mut server, &["second", "third"]).await;
                server.write_all(b"$1\r\n1\r\n$1\r\n2\r\n").await.unwrap();
                assert_eq!(first.await.unwrap().unwrap(), bytes("1"));
                assert_eq!(second.await.unwrap().unwrap(), bytes("2"));
                // A reply is pending, so this is left to the driver.
                let fourth = enqueue("fourth");
                assert!(now_or_never(server.read(&mut received)).is_none());
                expect_commands(&mut server, &["fourth"]).await;
                server.write_all(b"$1\r\n3\r\n$1\r\n4\r\n").await.unwrap();
                assert_eq!(third.await.unwrap().unwrap(), bytes("3"));
                assert_eq!(fourth.await.unwrap().unwrap(), bytes("4"));
            }
        });
    });
}

#[test]
fn long_command_is_left_to_the_driver() {
    watchdog(TEST_TIMEOUT, || {
        paused().block_on(async {
            let (ours, mut server) = duplex(2 * MAX_DIRECT);
            let pipeline = pipeline(ours, true);
            for (length, by_caller) in [(MAX_DIRECT / 2, true), (MAX_DIRECT + 1, false)] {
                let command = request::get(&"n".repeat(length));
                let (command, deadline) = (command.command(), now() + TIMEOUT);
                let reply = pipeline.0.queue.enqueue(command, deadline).unwrap();
                let mut received = vec![0; command.get_packed_command().len()];
                let at_once = now_or_never(server.read(&mut received)).unwrap_or(0);
                assert_eq!(at_once > 0, by_caller, "{length}");
                server.read_exact(&mut received[at_once..]).await.unwrap();
                assert_eq!(received, command.get_packed_command());
                server.write_all(b"$-1\r\n").await.unwrap();
                assert_eq!(reply.await.unwrap().unwrap(), Value::Nil);
            }
        });
    });
}

/// Returns the output of a read that is ready at the first poll.
fn now_or_never(read: impl Future<Output = io::Result<usize>>) -> Option<usize> {
    match pin!(read).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(length) => Some(length.unwrap()),
        Poll::Pending => None,
    }
}

/// A socket takes as much as it has space for: what callers and the driver write stays in order, and complete.
#[test]
fn commands_stay_whole_and_in_order_on_a_socket_with_little_space() {
    for space in 1..200 {
        watchdog(TEST_TIMEOUT, move || {
            paused().block_on(async {
                let (ours, mut server) = duplex(space);
                let pipeline = pipeline(ours, true);
                let names: Vec<String> = (0..20).map(|n| "n".repeat(n) + "!").collect();
                let mut expected = Vec::new();
                let callers: Vec<_> = names
                    .iter()
                    .map(|name| {
                        expected.extend(request::get(name).command().get_packed_command());
                        send(&pipeline, name)
                    })
                    .collect();
                let mut received = vec![0; expected.len()];
                // Replies before a command was read whole are those to the ones before it.
                let half = expected.len() / 2;
                server.read_exact(&mut received[..half]).await.unwrap();
                server.write_all(b"$1\r\n0\r\n").await.unwrap();
                server.read_exact(&mut received[half..]).await.unwrap();
                assert_eq!(received, expected, "{space} bytes");
                for n in 1..20 {
                    let reply = format!("$2\r\n{n:02}\r\n");
                    server.write_all(reply.as_bytes()).await.unwrap();
                }
                for (n, caller) in callers.into_iter().enumerate() {
                    let reply = if n == 0 { bytes("0") } else { bytes(&format!("{n:02}")) };
                    assert_eq!(caller.await.unwrap().unwrap(), reply, "{n}");
                }
            });
        });
    }
}

#[test]
fn reply_to_a_command_that_is_still_written_lets_no_other_one_into_it() {
    watchdog(TEST_TIMEOUT, || {
        paused().block_on(async {
            let (ours, mut server) = duplex(64);
            let pipeline = pipeline(ours, true);
            let long = "n".repeat(200);
            let first = send(&pipeline, &long);
            tokio::task::yield_now().await;
            server.write_all(b"$1\r\n1\r\n").await.unwrap();
            assert_eq!(first.await.unwrap().unwrap(), bytes("1"));
            let mut expected = request::get(&long).command().get_packed_command();
            expected.extend(request::get("second").command().get_packed_command());
            let mut received = vec![0; expected.len()];
            // No reply is pending, and there is space, which the driver has not used yet.
            let length = now_or_never(server.read(&mut received)).unwrap();
            let second = request::get("second");
            let second = pipeline.0.queue.enqueue(second.command(), now() + TIMEOUT).unwrap();
            server.read_exact(&mut received[length..]).await.unwrap();
            assert_eq!(received, expected);
            server.write_all(b"$1\r\n2\r\n").await.unwrap();
            assert_eq!(second.await.unwrap().unwrap(), bytes("2"));
        });
    });
}

#[test]
fn connection_on_which_a_reply_is_due_is_reset() {
    for is_due in [true, false] {
        watchdog(TEST_TIMEOUT, move || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let ours = runtime.block_on(tcp::connect_async("127.0.0.1", port)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let ours = ours.into_std().unwrap();
            let direct = Box::new(ours.try_clone().unwrap());
            runtime.block_on(async {
                let stream = TcpStream::from_std(ours).unwrap();
                let pipeline = Pipeline::from_stream(stream, direct, TIMEOUT, 100, now);
                let command = request::ping();
                let reply = pipeline.0.queue.enqueue(command.command(), now() + TIMEOUT).unwrap();
                if !is_due {
                    io::Write::write_all(&mut server, b"$-1\r\n").unwrap();
                    reply.await.unwrap().unwrap();
                }
            });
            drop(runtime);
            let end = io::Read::read_to_end(&mut server, &mut Vec::new());
            let is_reset = end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
            assert_eq!(is_reset, is_due);
        });
    }
}
