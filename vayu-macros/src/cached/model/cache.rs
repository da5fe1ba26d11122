//! The cache and the serializer: one that is named, or a memory cache of the function's own.

use quote::ToTokens;
use syn::{Expr, GenericParam, Ident, ReceiverKind};

use crate::cached::args::Limits;
use crate::cached::function::{Argument, Function};
use crate::cached::tokens::{find, mentions};
use crate::cached::types::is_shared_reference;
use crate::diagnostics::Diagnostics;

pub(crate) struct Cache {
    pub(crate) expression: Expr,
    /// True if the body may move or mutate the variables of the expression, so the cache is cloned.
    pub(crate) needs_clone: bool,
}

/// The limit of a memory cache of the function's own.
pub(crate) enum Limit {
    Entries(Expr),
    Weight { max: Expr, weigh: Expr },
}

pub(crate) struct Serializer {
    pub(crate) expression: Expr,
    /// As in [`Cache`].
    pub(crate) needs_clone: bool,
}

/// Rejects the function itself as its cache, where a field of `self` is meant.
pub(crate) fn check_cache(expression: &Expr, function: &Function, diagnostics: &mut Diagnostics) {
    let Expr::Path(path) = expression else { return };
    let name = &function.item.sig.ident;
    if path.path.is_ident(name)
        && !function.arguments.iter().any(|it| it.names().any(|it| it == name))
    {
        let instead = match function.item.sig.receiver() {
            Some(_) => format!("write `cache = self.{name}` for a field"),
            None => "name a cache, like `cache = PAGES`".to_owned(),
        };
        diagnostics.add(path, format!("`{name}` is the function itself; {instead}"));
    }
}

/// Combines the arguments that describe a cache of the function's own. Reports one mistake.
pub(crate) fn choose_limit(
    limits: Limits,
    has_cache: bool,
    is_complete: bool,
    function: &Function,
    diagnostics: &mut Diagnostics,
) -> Option<Limit> {
    let Limits { max_entries, max_weight, weigh } = limits;
    if let Some((keyword, _)) = max_entries.as_ref().or(max_weight.as_ref())
        && has_cache
    {
        let message = format!(
            "`{keyword}` creates a memory cache for this function alone; remove `cache`, or set the \
             limit where that cache is built"
        );
        diagnostics.add(keyword, message);
        return None;
    }
    match (max_entries, max_weight, weigh) {
        (Some((keyword, _)), Some(_), _) => {
            let message =
                "a cache has a limit on entries or one on their weight; remove one of the two";
            diagnostics.add(keyword, message);
            None
        }
        (None | Some(_), None, Some((keyword, _))) => {
            if is_complete {
                let message = "`weigh` is for `max_weight`; write `max_weight = 64 << 20`, the limit on \
                               the sum of the weights, or remove `weigh`";
                diagnostics.add(keyword, message);
            }
            None
        }
        (Some((keyword, max)), None, None) => {
            check_constant(&keyword, &max, function, diagnostics);
            Some(Limit::Entries(max))
        }
        (None, Some((keyword, max)), Some((_, weigh))) => {
            check_constant(&keyword, &max, function, diagnostics);
            if let Expr::Closure(closure) = &weigh
                && closure.inputs.len() != 1
            {
                let message = "`weigh` takes one parameter, a reference to the value; write \
                               `weigh = |value| ..`";
                diagnostics.add(closure, message);
            }
            Some(Limit::Weight { max, weigh })
        }
        (None, Some((keyword, max)), None) => {
            if check_constant(&keyword, &max, function, diagnostics) && is_complete {
                let message = "`max_weight` needs the weight of each value, a `u32`; write \
                               `weigh = |value| ..`";
                diagnostics.add(keyword, message);
            }
            None
        }
        (None, None, None) => None,
    }
}

/// Rejects names of the signature in an expression that belongs to a static. Returns whether there are none.
fn check_constant(
    keyword: &Ident,
    expression: &Expr,
    function: &Function,
    diagnostics: &mut Diagnostics,
) -> bool {
    let parameters = function.item.sig.generics.params.iter().filter_map(|it| match it {
        GenericParam::Type(parameter) => Some(&parameter.ident),
        GenericParam::Const(parameter) => Some(&parameter.ident),
        GenericParam::Lifetime(_) => None,
    });
    let names: Vec<&Ident> =
        function.arguments.iter().flat_map(Argument::names).chain(parameters).collect();
    let used = find(expression.to_token_stream(), &|name| {
        names.contains(&name) || name == "self" || name == "Self"
    });
    if let Some(name) = &used {
        let message = format!(
            "`{keyword}` is evaluated once, when the cache is created, so it cannot use `{name}`; write \
             a constant"
        );
        diagnostics.add(name, message);
    }
    used.is_none()
}

/// Returns whether an expression uses a variable that the body may move or borrow mutably.
pub(crate) fn needs_clone(expression: &Expr, function: &Function) -> bool {
    let owns_self = function.item.sig.receiver().is_some_and(|receiver| match &receiver.kind {
        ReceiverKind::Reference(_, _, mutability) => mutability.is_some(),
        ReceiverKind::Typed(_, ty) => !is_shared_reference(ty),
        _ => true,
    });
    let owned: Vec<&Ident> = function
        .arguments
        .iter()
        .filter(|argument| !is_shared_reference(&argument.ty))
        .flat_map(Argument::names)
        .collect();
    mentions(expression.to_token_stream(), &|name| {
        (owns_self && name == "self") || owned.contains(&name)
    })
}
