//! The pages of the guide, so that their examples run as doctests.

#[doc = include_str!("../docs/guide/stampede.md")]
mod stampede {}

#[doc = include_str!("../docs/guide/stale-data.md")]
mod stale_data {}

#[doc = include_str!("../docs/guide/failing-source.md")]
mod failing_source {}

#[doc = include_str!("../docs/guide/backend-failures.md")]
mod backend_failures {}

#[doc = include_str!("../docs/guide/multiple-machines.md")]
mod multiple_machines {}

#[doc = include_str!("../docs/guide/testing.md")]
mod testing {}

#[doc = include_str!("../docs/guide/invalidation.md")]
mod invalidation {}

#[doc = include_str!("../docs/guide/keys.md")]
mod keys {}
