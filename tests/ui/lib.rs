//! Mistakes in `fail`, which `ui.rs` compares with their messages, and programs in `pass` that must compile without warnings.
