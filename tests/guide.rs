//! The pages of the guide, so that their examples run as doctests.

#[doc = include_str!("../docs/guide/stampede.md")]
mod stampede {}

#[doc = include_str!("../docs/guide/stale-data.md")]
mod stale_data {}

#[doc = include_str!("../docs/guide/failing-source.md")]
mod failing_source {}

#[doc = include_str!("../docs/guide/dead-backend.md")]
mod dead_backend {}

#[doc = include_str!("../docs/guide/more-machines.md")]
mod more_machines {}

#[doc = include_str!("../docs/guide/testing.md")]
mod testing {}

#[doc = include_str!("../docs/guide/invalidation.md")]
mod invalidation {}

#[doc = include_str!("../docs/guide/keys.md")]
mod keys {}
