//! `#[cached]` and `#[mem_cached]`: parse, check, expand.

mod args;
mod expand;
mod function;
mod handle;
mod model;
mod pattern;
mod setup;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;

use crate::cached::args::Arguments;
use crate::cached::model::Model;
use crate::diagnostics::Mistakes;

/// Which of the two attributes it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attribute {
    Cached,
    MemCached,
}

impl Attribute {
    fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::MemCached => "mem_cached",
        }
    }
}

/// The item with its body in the hands of the cache. With mistakes: those, and the item as it is,
/// so that nothing else is reported because of them.
pub(crate) fn expand(
    attribute: Attribute,
    arguments: TokenStream,
    item: TokenStream,
) -> TokenStream {
    let mut mistakes = Mistakes::default();
    match check(attribute, arguments, &item, &mut mistakes) {
        Some(model) if mistakes.is_empty() => expand::expand(&model),
        _ => {
            let mut tokens = mistakes.into_compile_errors();
            tokens.extend(item);
            tokens
        }
    }
}

fn check(
    attribute: Attribute,
    arguments: TokenStream,
    item: &TokenStream,
    mistakes: &mut Mistakes,
) -> Option<Model> {
    let arguments = Arguments::parse(attribute, arguments, mistakes);
    let function = function::parse(attribute, item, mistakes)?;
    Model::new(arguments, function, mistakes)
}
