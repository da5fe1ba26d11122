//! Cached functions in memory, on WebAssembly: `.ci/targets wasm` runs this program under Node.js, on `wasm32-wasip1` and on
//! `wasm32-unknown-unknown` with the clock of JavaScript and with one of its own.

mod asynchronous;
mod host;
mod sync;

/// A check, and its name.
type Check = (&'static str, fn());

fn run(checks: &[Check]) {
    for (name, check) in checks {
        check();
        host::print(&format!("{name}: ok"));
    }
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
fn main() {
    run(sync::CHECKS);
    let passed = sync::CHECKS.len() + host::block_on(asynchronous::check_all());
    println!("test result: ok. {passed} passed");
}

/// Returns to JavaScript, so that its timers fire.
#[cfg(all(target_family = "wasm", target_os = "unknown", feature = "js"))]
fn main() {
    run(sync::CHECKS);
    wasm_bindgen_futures::spawn_local(async {
        let passed = sync::CHECKS.len() + asynchronous::check_all().await;
        host::print(&format!("test result: ok. {passed} passed"));
    });
}

/// Returns the number of checks that have passed: nothing can be printed.
#[cfg(all(target_family = "wasm", target_os = "unknown", not(feature = "js")))]
fn main() -> std::process::ExitCode {
    sync::caches_are_paused_until_a_clock_is_set();
    assert!(vayu::time::set_host_clock(host::Manual));
    assert!(!vayu::time::set_host_clock(host::Manual));
    run(sync::CHECKS);
    let passed = 1 + sync::CHECKS.len() + host::block_on(asynchronous::check_all());
    u8::try_from(passed).map_or(std::process::ExitCode::FAILURE, Into::into)
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    #[test]
    fn the_checks_hold_on_other_systems_too() {
        super::main();
    }
}
