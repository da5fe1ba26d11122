//! The guide: a page for each problem, with examples that run.
//!
//! | problem | page |
//! |---|---|
//! | many callers request one result at the same time | [`stampede`] |
//! | one query for many elements, each of which is cached | [`batches`] |
//! | a value is too old, or its meaning has changed | [`stale_data`] |
//! | the source is down | [`failing_source`] |
//! | the cache is down | [`backend_failures`] |
//! | the data has changed, and entries must be invalidated before they expire | [`invalidation`] |
//! | results are shared by several machines | [`multiple_machines`] |
//! | results are large, and shared through a bucket | [`object_stores`] |
//! | values in files or on servers are long, or secret | [`values_at_rest`] |
//! | two calls share an entry that should not, or do not that should | [`keys`] |
//! | a cached function is to be tested | [`testing`] |
//! | handlers of a web service are to be cached | [`axum`] |
//! | cached functions run in a thread pool | [`rayon`] |
//! | entries are to be stored elsewhere | [`backend`] |
//! | forever, hit or miss, keep warm, warm start, per tenant, sliding ttl, forks, WebAssembly .. | [`recipes`] |
//! | a program is moved from another library | [`from_cached`], [`from_moka`], [`from_python`] |
//!
//! The module is part of the documentation only.

/// Declares a module for each page. Its links are those of `links.md`, which name modules, in place of those at its
/// end, which name files.
macro_rules! pages {
    ($($page:ident: $file:literal,)*) => {
        $(
            #[cfg_attr(not(doctest), doc = include_str!("../guide/links.md"))]
            #[doc = include_str!($file)]
            pub mod $page {}
        )*
    };
}

/// Declares pages whose examples need other crates. Their doctests are those of the crate `vayu-tests`.
macro_rules! pages_on_other_crates {
    ($($page:ident: $file:literal,)*) => {
        $(
            #[cfg_attr(not(doctest), doc = include_str!("../guide/links.md"))]
            #[cfg_attr(not(doctest), doc = include_str!($file))]
            #[cfg_attr(doctest, doc = "")]
            pub mod $page {}
        )*
    };
}

pages! {
    stampede: "../guide/stampede.md",
    batches: "../guide/batches.md",
    stale_data: "../guide/stale-data.md",
    failing_source: "../guide/failing-source.md",
    backend_failures: "../guide/backend-failures.md",
    multiple_machines: "../guide/multiple-machines.md",
    object_stores: "../guide/object-stores.md",
    values_at_rest: "../guide/values-at-rest.md",
    keys: "../guide/keys.md",
    testing: "../guide/testing.md",
    recipes: "../guide/recipes.md",
    from_cached: "../guide/from-cached.md",
    from_moka: "../guide/from-moka.md",
}

#[cfg_attr(not(doctest), doc = include_str!("../guide/links.md"))]
#[cfg_attr(not(doctest), doc = include_str!("../guide/backend.md"))]
#[cfg_attr(not(doctest), doc = "```")]
#[cfg_attr(not(doctest), doc = include_str!("../guide/directory.rs"))]
#[cfg_attr(not(doctest), doc = "```")]
#[cfg_attr(doctest, doc = "")]
pub mod backend {}

pages_on_other_crates! {
    axum: "../guide/axum.md",
    from_python: "../guide/from-python.md",
    invalidation: "../guide/invalidation.md",
    rayon: "../guide/rayon.md",
}
