//! Tests of the pipeline, over an in-memory stream and a paused clock.

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Builder;
use vayu_core::testing::watchdog;

use super::queue::MAX_PENDING;
use super::*;
use crate::error_reply::Scope;

const TIMEOUT: Duration = Duration::from_millis(250);
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs a test with a paused clock, which advances when all tasks are idle.
fn with_server<F: Future<Output = ()>>(
    test: impl FnOnce(Pipeline, DuplexStream) -> F + Send + 'static,
) {
    watchdog(TEST_TIMEOUT, || {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (ours, server) = duplex(64 * 1024);
            test(Pipeline::from_stream(ours, TIMEOUT, 100, now), server).await;
        });
    });
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
        let grain = Duration::from_millis(2);
        for (caller, limit) in
            [(sooner, TIMEOUT * 7 / 8), (early, TIMEOUT), (late, TIMEOUT + TIMEOUT / 2)]
        {
            assert!(matches!(caller.await.unwrap(), Err(Failure::Timeout(TIMEOUT))));
            let elapsed = now() - began;
            assert!(elapsed >= limit && elapsed <= limit + grain, "{elapsed:?} of {limit:?}");
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
        let pipeline = runtime.block_on(async { Pipeline::from_stream(ours, TIMEOUT, 100, now) });
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
    watchdog(TEST_TIMEOUT, || {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (ours, _server) = duplex(16);
            let pipeline = Pipeline::from_stream(ours, TIMEOUT, 100, now);
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
