//! Tests of vayu that span its crates. There is nothing to import from here.

#[cfg(doctest)]
mod guide;
