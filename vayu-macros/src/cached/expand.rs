//! The function with its body in the hands of the cache.
//!
//! Names of ours are hygienic, so they never meet those of the user's variables; they start with
//! `vayu_` because statics and methods in scope are found whatever the hygiene. The body is emitted once, in
//! place, as the closure or async block that the engine calls.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{AttrStyle, Attribute, ReturnType};

use crate::cached::function::Kind;
use crate::cached::handle;
use crate::cached::model::Model;
use crate::cached::setup::{Purpose, answer, at, finish_key, policy, setup};

pub(crate) fn expand(model: &Model) -> TokenStream {
    let item = &model.function.item;
    let (inner, outer): (Vec<&Attribute>, Vec<&Attribute>) =
        item.attrs.iter().partition(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    let (visibility, modifiers, signature) = (&item.vis, &item.modifiers.defaultness, &item.sig);
    let setup = setup(model, Purpose::Call);
    let key = finish_key(model);
    let call = call(model);
    let handle = model.handle.as_ref().map(|handle| handle::expand(model, handle));
    let body = body(model);
    let block = match model.function.kind {
        Kind::Sync | Kind::Async => quote! {
            #setup
            #body
            #key
            #call
        },
        Kind::Boxed => quote! {
            ::std::boxed::Box::pin(async move {
                #setup
                #body
                #key
                #call
            })
        },
    };
    quote! {
        #(#outer)*
        #visibility #modifiers #signature {
            #(#inner)*
            #block
        }
        #handle
    }
}

/// The body, as what the engine runs.
fn body(model: &Model) -> TokenStream {
    let function = &model.function;
    let answer = answer(model);
    let patterns = function.arguments.iter().filter_map(|argument| {
        let (pattern, name) = (argument.pattern.as_ref()?, &argument.name);
        let conditions = &argument.conditions;
        Some(quote!(#(#conditions)* let #pattern = #name;))
    });
    let patterns = quote!(#(#patterns)*);
    let statements = &function.item.block.stmts;
    match function.kind {
        Kind::Sync => quote_spanned! {Span::mixed_site()=>
            let vayu_body = || -> #answer {
                #patterns
                #(#statements)*
            };
        },
        // `None` tells the compiler what `return` and `?` answer.
        Kind::Async => quote_spanned! {Span::mixed_site()=>
            let vayu_body = ::core::pin::pin!(async move {
                if let ::core::option::Option::Some(vayu_never) = ::core::option::Option::None::<#answer> {
                    return vayu_never;
                }
                let vayu_value: #answer = {
                    #patterns
                    #(#statements)*
                };
                #[allow(unreachable_code)]
                return vayu_value;
            });
        },
        Kind::Boxed => {
            let boxed = match &function.item.sig.output {
                ReturnType::Type(_, boxed) => boxed.to_token_stream(),
                ReturnType::Default => quote!(()),
            };
            quote_spanned! {Span::mixed_site()=>
                let vayu_body = ::core::pin::pin!(async move {
                    let vayu_future: #boxed = {
                        #patterns
                        #(#statements)*
                    };
                    vayu_future.await
                });
            }
        }
    }
}

fn call(model: &Model) -> TokenStream {
    let span = model.function.answer.as_ref().map_or_else(Span::mixed_site, at);
    let (name, wait) = match model.function.kind {
        Kind::Sync => ("call", None),
        Kind::Async | Kind::Boxed => ("call_async", Some(quote_spanned!(span=> .await))),
    };
    let call = model.root.private_at(name, span);
    let policy = policy(model);
    quote_spanned!(span=> #call(vayu_cache, #policy, vayu_body) #wait)
}
