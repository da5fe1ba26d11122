//! The README, and the pages of the guide whose examples need other crates, as doctests.

#[doc = include_str!("../README.md")]
mod readme {}

#[doc = include_str!("../vayu/guide/axum.md")]
mod axum {}

#[doc = include_str!("../vayu/guide/backend.md")]
///
/// ```
#[doc = include_str!("../vayu/guide/directory.rs")]
/// ```
mod backend {}

#[doc = include_str!("../vayu/guide/from-python.md")]
mod from_python {}

#[doc = include_str!("../vayu/guide/invalidation.md")]
mod invalidation {}

#[doc = include_str!("../vayu/guide/rayon.md")]
mod rayon {}
