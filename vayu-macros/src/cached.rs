//! `#[cached]`, `#[mem_cached]` and `#[single_flight]`: parse, check, expand.

mod args;
mod batch;
mod closure;
mod editor;
mod expand;
mod function;
mod handle;
pub(crate) mod invalidates;
mod model;
mod names;
mod own;
mod own_cache;
mod pattern;
mod setup;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;

use crate::cached::args::Arguments;
use crate::cached::model::Model;
use crate::diagnostics::Diagnostics;
use crate::paths::Root;

/// The attribute that is being expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Attribute {
    #[default]
    Cached,
    MemCached,
    /// Stores nothing.
    SingleFlight,
}

impl Attribute {
    fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::MemCached => "mem_cached",
            Self::SingleFlight => "single_flight",
        }
    }

    /// Returns the participle for messages: what happens to an output.
    fn participle(self) -> &'static str {
        match self {
            Self::Cached | Self::MemCached => "cached",
            Self::SingleFlight => "shared",
        }
    }

    /// Returns the noun for messages: what the calls with one key share.
    fn unit(self) -> &'static str {
        match self {
            Self::Cached | Self::MemCached => "entry",
            Self::SingleFlight => "run",
        }
    }
}

/// Returns the function with its body behind the cache. On errors: `compile_error!` calls and the item as it is
/// written, so that the errors cause no further ones and an editor still knows the function.
pub(crate) fn expand(
    attribute: Attribute,
    arguments: TokenStream,
    item: TokenStream,
) -> TokenStream {
    let mut diagnostics = Diagnostics::default();
    let arguments = Arguments::parse(attribute, arguments, &mut diagnostics);
    let references = editor::references(&arguments.names, &Root::new(arguments.root.as_ref()));
    let function = function::parse(attribute, &item, &mut diagnostics);
    let model = function.and_then(|function| Model::new(arguments, function, &mut diagnostics));
    match model {
        Some(model) if diagnostics.is_empty() => expand::expand(&model, &references),
        // The function first: rust-analyzer completes the first of the tokens that stand for one of the user.
        _ => {
            let mut tokens = editor::insert(references, item);
            tokens.extend(diagnostics.into_compile_errors());
            tokens
        }
    }
}
