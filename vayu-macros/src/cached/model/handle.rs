//! The companion function of `handle = ..`, checked against the function.

use quote::ToTokens;
use syn::Type;

use crate::cached::args::Handle;
use crate::cached::function::Function;
use crate::cached::tokens::mentions;
use crate::cached::types::peel;
use crate::diagnostics::Diagnostics;

/// Checks the handle, and decides whether it is an associated function.
pub(crate) fn check_handle(
    mut handle: Handle,
    function: &Function,
    diagnostics: &mut Diagnostics,
) -> Handle {
    let item = &function.item;
    if handle.name == item.sig.ident {
        diagnostics
            .add(&handle.name, "this is the name of the function itself; give the handle another");
    }
    for argument in &function.arguments {
        if let Type::ImplTrait(ty) = peel(&argument.ty) {
            let message = "a function with a handle must be able to name its types; write a type \
                           parameter";
            diagnostics.add(ty, message);
        }
        if let Some(condition) = argument.conditions.first() {
            diagnostics
                .add(condition, "an argument of a function with a handle cannot be conditional");
        }
    }
    handle.is_associated |=
        mentions(item.sig.to_token_stream(), &|name| name == "self" || name == "Self");
    handle
}
