//! The attributes of [vayu](https://docs.rs/vayu-cache). Use them through that crate: the expansions refer to
//! its exports.

mod cached;
mod diagnostics;
#[expect(unreachable_pub, reason = "the same file is public in vayu-core")]
mod duration;
mod invalidates;
mod paths;

use proc_macro::TokenStream;

use crate::cached::Attribute;

/// Caches the results of a function.
///
/// `#[cached(ttl = "5m")]` uses the memory cache of the process, `#[cached(cache = PAGES, ttl = "5m")]`
/// the cache that the expression refers to. The front page of the crate `vayu-cache` has the table of all
/// arguments and the rules on results, keys and `self`.
#[proc_macro_attribute]
pub fn cached(arguments: TokenStream, item: TokenStream) -> TokenStream {
    cached::expand(Attribute::Cached, arguments.into(), item.into()).into()
}

/// Runs one call at a time for each set of arguments, and shares its result (single flight).
///
/// Calls with the same arguments that come while one runs do not run the body: each gets a clone of the result,
/// an error too. Nothing is stored, so the next call runs again. The section *Share running calls* on the front
/// page of the crate `vayu-cache` has the rules and the arguments.
#[proc_macro_attribute]
pub fn single_flight(arguments: TokenStream, item: TokenStream) -> TokenStream {
    cached::expand(Attribute::SingleFlight, arguments.into(), item.into()).into()
}

/// Invalidates entries of a cache after a function has written what they were made of.
///
/// `#[invalidates(cache = PAGES, tags("user:{id}"))]` on the function that writes. The section *Invalidate after a
/// write* on the front page of the crate `vayu-cache` has the rules and the arguments.
#[proc_macro_attribute]
pub fn invalidates(arguments: TokenStream, item: TokenStream) -> TokenStream {
    invalidates::expand(arguments.into(), item.into()).into()
}

/// Caches the results of a function in the memory cache of the process, `vayu::mem_cache()`.
///
/// Takes the arguments of `#[cached]` except `cache`, `max_entries`, `max_weight`, `weigh` and `label`.
#[proc_macro_attribute]
pub fn mem_cached(arguments: TokenStream, item: TokenStream) -> TokenStream {
    cached::expand(Attribute::MemCached, arguments.into(), item.into()).into()
}

/// Generates an item with documentation for the name of each argument of `#[cached]`. Not part of the public interface.
#[doc(hidden)]
#[proc_macro]
pub fn arguments(_: TokenStream) -> TokenStream {
    cached::editor::modules().into()
}
