//! Compile errors, as they are printed, and code that must compile without a warning.

use std::process::Command;

/// The compiler whose words are in the `.stderr` files. Others word their own part differently.
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
        eprintln!("compile errors are not compared: they are those of {COMPILER}x, not {version}");
    }
}
