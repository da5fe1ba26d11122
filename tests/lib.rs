//! Tests that span the crates of vayu. Exports nothing.

#[cfg(doctest)]
mod guide;
