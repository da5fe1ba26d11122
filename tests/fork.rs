//! A computation that was under way when the process was forked does not hold up the child.
//!
//! Without the test harness: a fork keeps the thread that called it and no other.

#[cfg(unix)]
fn main() {
    use std::sync::{Barrier, LazyLock};
    use std::thread;
    use std::time::Duration;

    use fork::{Fork, WEXITSTATUS, WIFEXITED};
    use vayu::testing::watchdog;
    use vayu::{MemoryCache, cached};

    static SET_OUT: Barrier = Barrier::new(2);
    static FORKED: Barrier = Barrier::new(2);
    // A child that waits does so for longer than this test.
    static CACHE: LazyLock<MemoryCache> =
        LazyLock::new(|| MemoryCache::new().with_max_wait(Duration::from_secs(600)));

    #[cached(cache = CACHE, ttl = "1h")]
    fn process_of(in_the_parent: u32) -> u32 {
        if std::process::id() == in_the_parent {
            SET_OUT.wait();
            FORKED.wait();
        }
        std::process::id()
    }

    let parent = std::process::id();
    let leader = thread::spawn(move || process_of(parent));
    SET_OUT.wait();
    match fork::fork().expect("a child") {
        Fork::Child => {
            let is_right = process_of(parent) == std::process::id();
            std::process::exit(i32::from(!is_right));
        }
        Fork::Parent(child) => {
            let status = watchdog(Duration::from_secs(60), move || fork::waitpid(child))
                .expect("the status of the child");
            FORKED.wait();
            assert_eq!(leader.join().expect("no panic"), parent);
            assert!(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status {status}");
        }
    }
    println!("a fork does not wait for what its parent computes ... ok");
}

#[cfg(not(unix))]
fn main() {}
