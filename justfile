# Shortcuts for the scripts in `.ci`, which CI runs too.

# List the recipes
default:
    @just --list

# Run the first example
quickstart:
    cargo run --release --example quickstart

# Run all tests; arguments are those of `cargo test`
test *arguments:
    .ci/test {{arguments}}

# Run everything that must pass before a change is merged
all:
    .ci/run

# Check the format, and run clippy
lint:
    .ci/lint

# Build the documentation
docs:
    .ci/docs

# Check each feature alone
features:
    .ci/features

# Check what is in the packages; `just package build` builds programs from them
package *arguments:
    .ci/package {{arguments}}

# Run the model checkers
models:
    .ci/models

# Check the limits of instructions and stack
instructions:
    .ci/instructions

# Check with the oldest supported Rust version
msrv:
    .ci/msrv

# Check the crates for other systems, and test them on 32-bit x86, WebAssembly and, under wine, Windows
targets *parts:
    .ci/targets {{parts}}

# Check with the lowest versions of the dependencies
minimal-versions:
    .ci/minimal-versions

# Test what depends on the operating system
system:
    .ci/system

# Check licenses and advisories of dependencies; needs cargo-deny
deny:
    .ci/deny

# Run the tests of vayu-core under miri; `just miri big-endian` those of the bytes of an entry on s390x
miri *arguments:
    .ci/miri {{arguments}}

# Test the benchmarks, and run them with few repetitions
test-benchmarks:
    .ci/benchmarks

# Compare with other crates, in about six minutes; needs redis-server and valgrind
bench *parts:
    cargo run --release -p vayu-bench -- {{parts}}
