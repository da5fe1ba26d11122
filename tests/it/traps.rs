//! Checks that the tests named in `docs/traps.md` exist.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Adds the names of all functions in the sources below a directory.
fn add_functions(directory: &Path, functions: &mut HashSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("a name")) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            add_functions(&path, functions);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let names = text.lines().filter_map(|line| line.split_once("fn ")?.1.split('(').next());
            functions.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_in_traps_md_exists() {
    let root = root();
    let mut functions = HashSet::new();
    add_functions(&root, &mut functions);
    let page = fs::read_to_string(root.join("docs/traps.md")).expect("the page");
    let (mut rows, mut missing) = (0, Vec::new());
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| trap")) {
        let tests = row.trim_end_matches([' ', '|']).rsplit(" | ").next().expect("a column");
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let exists = |name: &&str| {
            // A name may have a module path, as the test runner prints it.
            let function = name.rsplit("::").next().unwrap_or(name);
            functions.contains(function) || name.contains('/') && root.join(name).exists()
        };
        if names.is_empty() {
            missing.push(row);
        }
        missing.extend(names.into_iter().filter(|name| !exists(name)));
        rows += 1;
    }
    assert!(rows > 50, "{rows} rows");
    assert!(missing.is_empty(), "{missing:#?}");
}
