//! The pages of the guide whose examples need other crates, as doctests.

#[doc = include_str!("../vayu/guide/axum.md")]
mod axum {}

#[doc = include_str!("../vayu/guide/rayon.md")]
mod rayon {}
