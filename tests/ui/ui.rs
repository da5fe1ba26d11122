//! Compile errors as printed by the compiler. Code that must compile without warnings is in `pass`.

use std::process::Command;

/// The version that the `.stderr` files are from. Other versions word their own messages differently.
const COMPILER: &str = "rustc 1.95.";

/// Cases with several mistakes in one attribute or signature, with their errors.
const SEVERAL: [(&str, usize); 9] = [
    // All mistakes are reported at once.
    ("several_errors", 6),
    ("skip_of_nothing", 2),
    // Two mistaken arguments in some of the attributes.
    ("literals_with_a_suffix", 8),
    ("numbers_that_do_not_fit", 5),
    ("units_that_differ_by_case", 4),
    // Two attributes are one mistake.
    ("cached_twice", 2),
    ("single_flight_with_what_it_does_not_take", 7),
    // Some functions have two attributes.
    ("invalidates_with_mistakes", 14),
    // Both functions name the one that is not in scope, and the handle also calls it. The attribute cannot know
    // that it is in an `impl`.
    ("handle_of_an_associated_function", 3),
];

#[test]
fn each_mistake_is_one_error() {
    let mut cases = 0;
    for file in std::fs::read_dir("fail").expect("the cases are there") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let name = path.file_stem().expect("a name").to_string_lossy();
        let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("a readable file");
        let (source, messages) = (read(&path), read(&path.with_extension("stderr")));
        let count = |text: &str, starts: &[&str]| {
            let starts_so =
                |line: &&str| starts.iter().any(|start| line.trim_start().starts_with(start));
            text.lines().filter(starts_so).count()
        };
        let several = SEVERAL.iter().find(|(case, _)| *case == name).map(|&(_, errors)| errors);
        let mistakes = several.unwrap_or_else(|| {
            let attributes = [
                "#[cached",
                "#[vayu::cached",
                "#[mem_cached",
                "#[vayu::mem_cached",
                "#[single_flight",
                "#[invalidates",
            ];
            count(&source, &attributes)
        });
        assert_eq!(count(&messages, &["error:", "error["]), mistakes, "{name}:\n{messages}");
        for internal in ["__private", "CachedFn", "Policy<", "KeyBuilder", "expected one of"] {
            assert!(!messages.contains(internal), "{name} names `{internal}`:\n{messages}");
        }
        cases += 1;
    }
    assert!(cases > 70, "{cases}");
}

#[test]
fn ui() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("the compiler is there");
    let version = String::from_utf8_lossy(&version.stdout);
    if version.starts_with(COMPILER) {
        trybuild::TestCases::new().compile_fail("fail/*.rs");
    } else {
        eprintln!("compile errors are not compared: expected {COMPILER}x, found {version}");
    }
}
