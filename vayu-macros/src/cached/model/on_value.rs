//! Closures on values and on errors: the names that they use.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Expr, ExprClosure, Ident, Pat, Type};

use crate::cached::args::{Arguments, ErrTtl, Ttl};
use crate::cached::function::Function;
use crate::cached::model::own::Owned;
use crate::cached::tokens::{find_value, names_value};
use crate::cached::types::{only_argument, peel, readable};
use crate::diagnostics::Diagnostics;

/// A closure on the value or on the error, or an expression in its place.
pub(crate) struct OnValue {
    parameters: TokenStream,
    body: TokenStream,
}

impl OnValue {
    fn of_closure(closure: &ExprClosure) -> Self {
        let (parameters, body) = (closure.inputs.to_token_stream(), closure.body.to_token_stream());
        Self { parameters, body }
    }

    fn of(expression: &Expr) -> Self {
        match expression {
            Expr::Closure(closure) => Self::of_closure(closure),
            other => Self { parameters: TokenStream::new(), body: other.to_token_stream() },
        }
    }

    /// Returns the use of an argument, if it uses that.
    pub(crate) fn uses(&self, name: &Ident) -> Option<TokenTree> {
        if names_value(self.parameters.clone(), name) {
            return None;
        }
        find_value(self.body.clone(), name)
    }
}

/// Returns the closures on values and on errors.
pub(crate) fn on_values(arguments: &Arguments) -> impl Iterator<Item = OnValue> {
    let ttl = match &arguments.ttl {
        Some(Ttl::ByValue(closure)) => Some(OnValue::of_closure(closure)),
        Some(Ttl::ExpiresAt(moment)) => Some(OnValue::of(moment)),
        Some(Ttl::Fixed(_)) | None => None,
    };
    let err_ttl = match &arguments.options.err_ttl {
        Some(ErrTtl::ByError(closure)) => Some(OnValue::of_closure(closure)),
        Some(ErrTtl::Fixed(_)) | None => None,
    };
    let cache_if = arguments.options.cache_if.as_ref().map(OnValue::of);
    [ttl, err_ttl, cache_if].into_iter().flatten()
}

/// Rejects closures on values that name a borrowed argument: a run in the background has these, too.
pub(crate) fn check_closures(arguments: &Arguments, own: &[Owned], diagnostics: &mut Diagnostics) {
    for closure in on_values(arguments) {
        for owned in own {
            let name = owned.name();
            if let Some(used) = closure.uses(&name) {
                let message = format!(
                    "this outlives the call, so it cannot use `{name}`, which is borrowed; take an owned value or an `Arc`"
                );
                diagnostics.add(used, message);
                break;
            }
        }
    }
}

/// Rejects a closure whose parameter is the whole `Result`, as it is written in the signature: only the value in its
/// `Ok` is cached. The compiler checks the types of other predicates.
pub(crate) fn check_predicate(
    predicate: &Expr,
    function: &Function,
    diagnostics: &mut Diagnostics,
) {
    let Some(output) = &function.output else { return };
    let Some(value) = only_argument(output, "Result") else { return };
    let Expr::Closure(closure) = predicate else { return };
    let Some(Pat::Type(typed)) = closure.inputs.first() else { return };
    let pointee = match peel(&typed.ty) {
        Type::Reference(reference) => peel(&reference.elem),
        ty => ty,
    };
    if pointee.to_token_stream().to_string() == peel(output).to_token_stream().to_string() {
        let message = format!(
            "of a `Result` only the value in `Ok` is cached: `cache_if` takes a predicate on that \
             `{}`; remove it, since an `Err` is not cached anyway",
            readable(value)
        );
        diagnostics.add(predicate, message);
    }
}
