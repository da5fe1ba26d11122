//! Compile errors as printed by the compiler, and code that must compile without warnings.

use std::process::Command;

/// The version that the `.stderr` files are from. Other versions word their own messages differently.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn ui() {
    let tests = trybuild::TestCases::new();
    tests.pass("ui/pass/*.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("the compiler is there");
    let version = String::from_utf8_lossy(&version.stdout);
    if version.starts_with(COMPILER) {
        tests.compile_fail("ui/fail/*.rs");
    } else {
        eprintln!("compile errors are not compared: expected {COMPILER}x, found {version}");
    }
}
