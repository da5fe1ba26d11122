//! The function under the attribute, and the checks that it can be cached.

mod argument;
pub(crate) mod binding;
mod output;

use proc_macro2::{Span, TokenStream};
use syn::{FnArg, ItemFn, ReturnType, TraitItemFn, Type};

pub(crate) use self::argument::Argument;
use self::argument::{name_argument, name_boxed_argument};
use self::output::check_output;
use crate::cached::attribute::Attribute;
use crate::cached::types::{is_future, is_unit, output_of_boxed_future, peel};
use crate::diagnostics::Diagnostics;

/// A parsed function.
pub(crate) struct Function {
    /// The item, in which each argument has a plain name instead of a pattern.
    pub(crate) item: ItemFn,
    /// The arguments without the receiver.
    pub(crate) arguments: Vec<Argument>,
    pub(crate) kind: Kind,
    /// The output of the call, after `.await`; `None` for `()`.
    pub(crate) output: Option<Type>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sync,
    Async,
    /// A function that returns a boxed future, as `#[async_trait]` generates it.
    Boxed,
}

impl Function {
    /// Returns whether an argument has a pattern instead of a name.
    pub(crate) fn has_patterns(&self) -> bool {
        self.arguments.iter().any(|argument| argument.pattern.is_some())
    }

    /// Parses the item. `None` if it is not a function with a body.
    pub(crate) fn parse(
        attribute: Attribute,
        item: &TokenStream,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let mut item: ItemFn = match syn::parse2(item.clone()) {
            Ok(function) => function,
            Err(_) => {
                diagnostics.push(not_a_function(attribute, item));
                return None;
            }
        };
        check_attributes(attribute, &item, diagnostics);
        check_signature(&item, diagnostics);
        let written = match &item.sig.output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) => Some((**ty).clone()),
        };
        let boxed = written.as_ref().and_then(output_of_boxed_future);
        let returns_unit = written.as_ref().is_some_and(|ty| is_unit(peel(ty)));
        let kind = match (&boxed, item.sig.asyncness) {
            (Some(_), None) => Kind::Boxed,
            (_, Some(_)) => Kind::Async,
            (None, None) => Kind::Sync,
        };
        let output = if kind == Kind::Boxed { boxed } else { written };
        match &output {
            Some(output) if kind == Kind::Sync && is_future(output) => {
                let message = format!(
                    "`{}` returns a future; write `async fn {}(..)` and the type of its output",
                    item.sig.ident, item.sig.ident
                );
                diagnostics.add(output, message);
            }
            Some(output) => check_output(attribute, output, diagnostics),
            None if attribute == Attribute::SingleFlight => {}
            None => {
                let name = &item.sig.ident;
                let message = format!(
                    "`{name}` returns nothing to cache; remove the attribute, or write `-> ()` if it is to run \
                     once per ttl"
                );
                diagnostics.add(name, message);
            }
        }
        if returns_unit {
            // Lints would ask to remove the type that the attribute asks for.
            item.sig.output = ReturnType::Default;
        }
        let ItemFn { sig, block, .. } = &mut item;
        let typed = sig.inputs.iter_mut().filter_map(|argument| match argument {
            FnArg::Typed(typed) => Some(typed),
            FnArg::Receiver(_) => None,
        });
        let arguments = typed
            .enumerate()
            .map(|(index, typed)| match kind {
                Kind::Boxed => name_boxed_argument(index, typed, block),
                Kind::Sync | Kind::Async => name_argument(index, typed),
            })
            .collect();
        Some(Self { item, arguments, kind, output })
    }
}

fn not_a_function(attribute: Attribute, item: &TokenStream) -> syn::Error {
    let name = attribute.name();
    match syn::parse2::<TraitItemFn>(item.clone()) {
        Ok(declaration) => syn::Error::new_spanned(
            declaration.sig,
            format!(
                "a function without a body has nothing to cache; put `#[{name}]` on the \
                     implementations"
            ),
        ),
        Err(_) => {
            let message = format!("`#[{name}]` goes on a function or a method");
            let first = item.clone().into_iter().next();
            syn::Error::new(first.map_or_else(Span::call_site, |token| token.span()), message)
        }
    }
}

/// Rejects attributes that have no effect, or another one, on a function whose body runs in the cache.
fn check_attributes(attribute: Attribute, item: &ItemFn, diagnostics: &mut Diagnostics) {
    for other in &item.attrs {
        let path = other.path();
        let Some(last) = path.segments.last().map(|segment| &segment.ident) else { continue };
        let is_cached = last == "cached" || last == "mem_cached";
        if is_cached && attribute == Attribute::SingleFlight
            || last == "single_flight" && attribute != Attribute::SingleFlight
        {
            let message = format!(
                "`{}` is cached, so concurrent calls share one run already; remove `single_flight`",
                item.sig.ident
            );
            diagnostics.add(path, message);
        } else if is_cached || last == "single_flight" {
            let message = format!(
                "`{}` is {} already; remove one of the two",
                item.sig.ident,
                attribute.participle()
            );
            diagnostics.add(path, message);
        } else if last == "invalidates" && attribute != Attribute::SingleFlight {
            let message = format!(
                "`{}` is cached, so it does not run in each call; put `#[invalidates]` on the function that writes",
                item.sig.ident
            );
            diagnostics.add(path, message);
        } else if last == "track_caller" {
            // The body is a closure, which cannot have the attribute, and a cached value would hold the
            // location of the caller that computed it.
            let message = "a cached function cannot be `#[track_caller]`: its body runs inside of the \
                           cache; remove it, or take `location: &'static Location<'static>` with \
                           `skip(location)`";
            diagnostics.add(path, message);
        }
    }
}

fn check_signature(item: &ItemFn, diagnostics: &mut Diagnostics) {
    let signature = &item.sig;
    if let Some(constness) = &signature.constness {
        diagnostics.add(constness, "a `const fn` cannot use a cache; remove `const`");
    }
    if let Some(abi) = &signature.abi {
        let message = "an `extern` function cannot be cached; cache a Rust function that it calls";
        diagnostics.add(abi, message);
    }
    if let Some(variadic) = &signature.variadic {
        diagnostics.add(variadic, "variadic arguments cannot be part of a key");
    }
}
