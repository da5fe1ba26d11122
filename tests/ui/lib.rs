//! The cases are in `fail` and `pass`; `ui.rs` runs them.
