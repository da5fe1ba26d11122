//! The function with its body in the hands of the cache.
//!
//! Names of ours are hygienic, so they never meet those of the user's variables; they start with
//! `vayu_` because statics and methods in scope are found whatever the hygiene. The body is emitted once, in
//! place, as the closure or async block that the engine calls.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{AttrStyle, Attribute, Expr, ReturnType};

use crate::cached::function::Kind;
use crate::cached::handle;
use crate::cached::model::Model;
use crate::cached::pattern;
use crate::cached::setup::{Purpose, answer, at, finish_key, policy, setup};

pub(crate) fn expand(model: &Model) -> TokenStream {
    let item = &model.function.item;
    let (inner, outer): (Vec<&Attribute>, Vec<&Attribute>) =
        item.attrs.iter().partition(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    let (visibility, modifiers, signature) = (&item.vis, &item.modifiers.defaultness, &item.sig);
    let handle = model.handle.as_ref().map(|handle| handle::expand(model, handle));
    let statements = match &model.spawn {
        Some(spawn) => call_that_spawns(model, spawn),
        None => call(model),
    };
    let block = match model.function.kind {
        Kind::Sync | Kind::Async => statements,
        Kind::Boxed => quote! {
            ::std::boxed::Box::pin(async move { #statements })
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
    // The body of a task outlives what a `ref` in a pattern would borrow from.
    let references = function.arguments.iter().filter_map(|argument| match model.spawn {
        Some(_) => pattern::owned(argument).map(|(_, references)| references),
        None => None,
    });
    let references = quote!(#(#references)*);
    let statements = &function.item.block.stmts;
    match function.kind {
        Kind::Sync => quote_spanned! {Span::mixed_site()=>
            let vayu_body = || -> #answer {
                #references
                #(#statements)*
            };
        },
        Kind::Async => {
            // `None` tells the compiler what `return` and `?` answer.
            let body = quote_spanned! {Span::mixed_site()=>
                async move {
                    if let ::core::option::Option::Some(vayu_never) = ::core::option::Option::None::<#answer> {
                        return vayu_never;
                    }
                    let vayu_value: #answer = {
                        #references
                        #(#statements)*
                    };
                    #[allow(unreachable_code)]
                    return vayu_value;
                }
            };
            if model.spawn.is_some() {
                quote_spanned!(Span::mixed_site()=> let vayu_body = #body;)
            } else {
                quote_spanned!(Span::mixed_site()=> let vayu_body = ::core::pin::pin!(#body);)
            }
        }
        Kind::Boxed => {
            let boxed = match &function.item.sig.output {
                ReturnType::Type(_, boxed) => boxed.to_token_stream(),
                ReturnType::Default => quote!(()),
            };
            quote_spanned! {Span::mixed_site()=>
                let vayu_body = ::core::pin::pin!(async move {
                    let vayu_future: #boxed = {
                        #references
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
    let (setup, body) = (setup(model, Purpose::Call), body(model));
    let (key, policy) = (finish_key(model, Purpose::Call), policy(model));
    let call = match model.function.kind {
        Kind::Sync => {
            let call = model.root.private_at("call", span);
            quote_spanned!(span=> #call(vayu_cache, #policy, vayu_body))
        }
        Kind::Async | Kind::Boxed => {
            let begin = model.root.private_at("begin_async", span);
            let finish = model.root.private_at("finish_async", span);
            quote_spanned! {span=>
                let vayu_policy = #policy;
                match #begin(vayu_cache, &vayu_policy, &vayu_probe) {
                    ::core::result::Result::Ok(vayu_answer) => vayu_answer,
                    ::core::result::Result::Err(vayu_rest) => {
                        #finish(vayu_cache, &vayu_policy, vayu_rest, vayu_body).await
                    }
                }
            }
        }
    };
    quote! {
        #setup
        #body
        #key
        #call
    }
}

/// A call that may leave its body to a task. The body is boxed in the block in which it is made: a
/// future that is moved after that has a place in the future of the call for each time.
fn call_that_spawns(model: &Model, spawn: &Expr) -> TokenStream {
    let root = &model.root;
    let answer = model.function.answer.as_ref().map_or_else(Span::mixed_site, at);
    let setup = setup(model, Purpose::Task);
    let (body, key, policy) = (body(model), finish_key(model, Purpose::Task), policy(model));
    let begin = root.private_at("begin_async", answer);
    let finish = root.private_at("finish_async_spawning", answer);
    let task_of = root.private_at("task_of", answer);
    let spawn_refresh = root.private_at("spawn_refresh", at(spawn));
    let spawn_refresh = quote_spanned! {at(spawn)=>
        #spawn_refresh(vayu_cache, &vayu_function, || (#spawn)(vayu_task));
    };
    quote_spanned! {answer=>
        #setup
        let vayu_policy;
        let vayu_begun = {
            #body
            #key
            vayu_policy = #policy;
            match #begin(vayu_cache, &vayu_policy, &vayu_probe) {
                ::core::result::Result::Ok(vayu_answer) => ::core::result::Result::Ok(vayu_answer),
                ::core::result::Result::Err(vayu_rest) => {
                    ::core::result::Result::Err((vayu_rest, ::std::boxed::Box::pin(vayu_body)))
                }
            }
        };
        match vayu_begun {
            ::core::result::Result::Ok(vayu_answer) => vayu_answer,
            ::core::result::Result::Err((vayu_rest, vayu_body)) => {
                let (vayu_answer, vayu_left) =
                    #finish(vayu_cache, &vayu_policy, vayu_rest, vayu_body).await;
                if let ::core::option::Option::Some(vayu_refresh) = vayu_left {
                    let (vayu_function, vayu_task) =
                        #task_of(vayu_cache, vayu_policy, vayu_refresh);
                    #spawn_refresh
                }
                vayu_answer
            }
        }
    }
}
