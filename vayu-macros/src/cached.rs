//! `#[cached]`, `#[mem_cached]` and `#[single_flight]`: parse, check, expand.
//!
//! Each step uses those before it:
//!
//! 1. `args`: the arguments of the attribute, as they are written. `function`: the function under it.
//! 2. `model`: both, checked against each other.
//! 3. `expand`: the generated code. In it, `setup` is what runs before the body takes the arguments, made of the `key`, the
//!    `cache`, the `shape` of the output and the `policy`; `call`, `batch` and `handle` are what the function expands to.
//!
//! `types` and `tokens` read code of the user.

pub(crate) mod args;
mod attribute;
pub(crate) mod editor;
pub(crate) mod expand;
pub(crate) mod function;
mod model;
#[cfg(test)]
mod tests;
mod tokens;
pub(crate) mod types;

use proc_macro2::TokenStream;

use crate::cached::args::Arguments;
pub(crate) use crate::cached::attribute::Attribute;
use crate::cached::function::Function;
use crate::cached::model::Model;
use crate::diagnostics::Diagnostics;
use crate::paths::Root;

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
    let function = Function::parse(attribute, &item, &mut diagnostics);
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
