//! The expanded function.
//!
//! Generated variables are hygienic and cannot collide with variables of the user. They start with `vayu_`
//! because hygiene does not apply to statics and methods. The body is emitted once, in place, as the
//! closure or async block that the engine calls.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{AttrStyle, Attribute, Expr, ReturnType};

use crate::cached::batch;
use crate::cached::function::Kind;
use crate::cached::handle;
use crate::cached::model::{Model, Purpose};
use crate::cached::own;
use crate::cached::own_cache;
use crate::cached::pattern;
use crate::cached::setup::{self, finish_key, output_type, policy, setup};
use crate::paths::span_of;

/// Returns the function, with `first` at the start of its body.
pub(crate) fn expand(model: &Model, first: &TokenStream) -> TokenStream {
    let item = &model.function.item;
    let (inner, outer): (Vec<&Attribute>, Vec<&Attribute>) =
        item.attrs.iter().partition(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    let (visibility, modifiers, signature) = (&item.vis, &item.modifiers.defaultness, &item.sig);
    let handle = model.handle.as_ref().map(|handle| handle::expand(model, handle));
    let own_cache = own_cache::accessor(model);
    let batch = model.batch.as_ref();
    let signature = batch.map_or_else(|| signature.clone(), |it| batch::signature(model, it));
    let signature = own::signature(model, signature);
    let statements = match (batch, &model.options.spawn) {
        (Some(batch), None) => batch::call(model, batch),
        (Some(batch), Some(spawn)) => batch::spawning_call(model, batch, spawn),
        (None, Some(spawn))
            if model.options.stale.is_none() || model.options.patience.is_some() =>
        {
            spawning_call(model, spawn)
        }
        (None, Some(spawn)) => refreshing_call(model, spawn),
        (None, None) => call(model),
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
            #first
            #block
        }
        #handle
        #own_cache
    }
}

/// Generates the body as a closure or a future.
fn body(model: &Model) -> TokenStream {
    let function = &model.function;
    let output = output_type(model);
    // With `spawn` the body owns the arguments, so a `ref` of a pattern moves into it.
    let references = function.arguments.iter().filter_map(|argument| match model.options.spawn {
        Some(_) => pattern::owned(argument).map(|(_, references)| references),
        None => None,
    });
    let boxed_references = quote!(#(#references)*);
    let check = revalidation(model);
    let references = quote!(#boxed_references #check);
    let (parameters, statements) = (own::parameters(model), own::statements(model));
    match function.kind {
        Kind::Sync => {
            let capture = model.options.spawn.as_ref().map(|_| quote!(move));
            quote_spanned! {Span::mixed_site()=>
                let vayu_body = #capture |#parameters| -> #output {
                    #references
                    #statements
                };
            }
        }
        Kind::Async if !model.own.is_empty() => quote_spanned! {Span::mixed_site()=>
            let vayu_body = async move |#parameters| -> #output {
                #references
                #statements
            };
        },
        Kind::Async => {
            let body = setup::async_body(model, &references);
            if model.options.spawn.is_some() {
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
                    #check
                    let vayu_future: #boxed = {
                        #boxed_references
                        #statements
                    };
                    vayu_future.await
                });
            }
        }
    }
}

/// Generates the start of a body that does not run if a function says that the old value is unchanged.
fn revalidation(model: &Model) -> Option<TokenStream> {
    let (_, check) = model.options.revalidate.as_ref()?;
    let check = own::in_body(model, check.to_token_stream());
    if check.is_empty() {
        return None;
    }
    let span = span_of(&check);
    let previous_of = model.root.private_at("previous_of", span);
    let unchanged = model.root.private_at("unchanged", span);
    let names = model.function.arguments.iter().map(|argument| &argument.name);
    let wait = (model.function.kind != Kind::Sync).then(|| quote!(.await));
    Some(quote_spanned! {span=>
        if let ::core::option::Option::Some(vayu_old) = #previous_of(vayu_shape) {
            if (#check)(&*vayu_old, #(&#names),*) #wait {
                return #unchanged(vayu_shape, vayu_old);
            }
        }
    })
}

fn call(model: &Model) -> TokenStream {
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let (setup, body) = (setup(model, Purpose::Call), body(model));
    let (key, policy) = (finish_key(model, Purpose::Call), policy(model, Purpose::Call));
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
                match #begin(vayu_cache, &vayu_policy) {
                    ::core::result::Result::Ok(vayu_output) => vayu_output,
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

/// Generates a call whose rest is a future that may move to a task: its computation, or with `patience` the refresh of
/// a value past its ttl. That of a sync function moves to another thread.
fn spawning_call(model: &Model, spawn: &Expr) -> TokenStream {
    let root = &model.root;
    let output_span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let begun = begun(model, |rest| {
        let owned_lookup = root.private_at("owned_lookup", output_span);
        quote_spanned!(output_span=> #owned_lookup(#rest))
    });
    let is_sync = model.function.kind == Kind::Sync;
    let (spawnable, run, patience) = match &model.options.patience {
        None => ("spawnable", "run_spawning", None),
        Some(_) => {
            let patience = quote_spanned!(Span::mixed_site()=> , vayu_patience);
            let run = if is_sync { "run_patient_blocking" } else { "run_patient" };
            ("patient", run, Some(patience))
        }
    };
    let spawnable = root.private_at(spawnable, output_span);
    let run = root.private_at(run, span_of(spawn));
    let spawned = spawned(model, spawn);
    let (job, wait) = if is_sync {
        let job = root.private_at("job", span_of(spawn));
        (Some(quote_spanned!(span_of(spawn)=> let vayu_task = #job(vayu_task);)), None)
    } else {
        (None, Some(quote!(.await)))
    };
    let run = quote_spanned! {span_of(spawn)=>
        #run(vayu_cache, vayu_call, vayu_maker, |vayu_task| { #job #spawned })
    };
    let maker = if model.own.is_empty() && !is_sync {
        let made = root.private("Made");
        quote_spanned!(Span::mixed_site()=> let vayu_maker = #made;)
    } else {
        let (late_body, owning) = (root.private_at("late_body", output_span), owning(model));
        let boxed = (!is_sync).then(
            || quote_spanned!(output_span=> let vayu_body = ::std::boxed::Box::pin(vayu_body);),
        );
        quote_spanned! {output_span=>
            let (vayu_maker, vayu_body) = #late_body(|| #owning);
            #boxed
        }
    };
    quote_spanned! {output_span=>
        #begun
        match vayu_begun {
            ::core::result::Result::Ok(vayu_output) => vayu_output,
            ::core::result::Result::Err((vayu_rest, vayu_body)) => {
                #maker
                let vayu_call = #spawnable(vayu_cache, vayu_policy, vayu_rest, vayu_body #patience);
                #run #wait
            }
        }
    }
}

/// Generates the call of the spawner.
pub(super) fn spawned(model: &Model, spawn: &Expr) -> TokenStream {
    match (model.function.kind, spawn) {
        // So that the type of its parameter is inferred, which it may call.
        (Kind::Sync, Expr::Closure(_)) => {
            let pass = model.root.private_at("pass", span_of(spawn));
            quote_spanned!(span_of(spawn)=> #pass(vayu_task, #spawn))
        }
        _ => quote_spanned!(span_of(spawn)=> (#spawn)(vayu_task)),
    }
}

/// Generates the start of a call that may move its body into a task: `vayu_begun` is the output, or else what
/// `rest` makes of the lookup, with the body. The body of an async function is boxed in the block that creates it: each
/// later move would add its size to the future of the call.
fn begun(model: &Model, rest: impl FnOnce(TokenStream) -> TokenStream) -> TokenStream {
    let output_span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let setup = setup(model, Purpose::Task);
    let (body, key, policy) =
        (body(model), finish_key(model, Purpose::Task), policy(model, Purpose::Task));
    let begin = model.root.private_at("begin_async", output_span);
    let rest = rest(quote_spanned!(output_span=> vayu_rest));
    let moved = match model.function.kind {
        Kind::Sync => quote_spanned!(output_span=> vayu_body),
        Kind::Async if !model.own.is_empty() => quote_spanned!(output_span=> vayu_body),
        Kind::Async | Kind::Boxed => {
            quote_spanned!(output_span=> ::std::boxed::Box::pin(vayu_body))
        }
    };
    quote_spanned! {output_span=>
        #setup
        let vayu_policy;
        let vayu_begun = {
            #body
            #key
            vayu_policy = #policy;
            match #begin(vayu_cache, &vayu_policy) {
                ::core::result::Result::Ok(vayu_output) => ::core::result::Result::Ok(vayu_output),
                ::core::result::Result::Err(vayu_rest) => {
                    ::core::result::Result::Err((#rest, #moved))
                }
            }
        };
    }
}

/// Generates the block that makes of a body one with copies of the borrowed arguments.
fn owning(model: &Model) -> TokenStream {
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    if model.own.is_empty() {
        return quote_spanned!(span=> vayu_body);
    }
    let (copies, lent) = own::copies(model);
    let body = match model.function.kind {
        Kind::Sync => quote_spanned!(span=> move || vayu_body(#lent)),
        Kind::Async | Kind::Boxed => quote_spanned! {span=>
            ::std::boxed::Box::pin(async move { vayu_body(#lent).await })
        },
    };
    quote_spanned!(span=> { #copies #body })
}

/// Generates the closure that runs or awaits a body in the caller.
fn in_caller(model: &Model) -> TokenStream {
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let borrowed = own::borrowed(model);
    match model.function.kind {
        Kind::Sync => quote_spanned!(span=> |vayu_body| vayu_body(#borrowed)),
        Kind::Async if !model.own.is_empty() => quote_spanned! {span=>
            |vayu_body| ::std::boxed::Box::pin(async move { vayu_body(#borrowed).await })
        },
        Kind::Async | Kind::Boxed => quote_spanned!(span=> |vayu_body| vayu_body),
    }
}

/// Generates a call that refreshes a value past its ttl in a task, or that of a sync function in another thread.
fn refreshing_call(model: &Model, spawn: &Expr) -> TokenStream {
    let root = &model.root;
    let output_span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let begun = begun(model, |rest| rest);
    let (finish, task_of, wait) = match model.function.kind {
        Kind::Sync => ("finish_spawning", "job_of", None),
        Kind::Async | Kind::Boxed => ("finish_async_spawning", "task_of", Some(quote!(.await))),
    };
    let finish = root.private_at(finish, output_span);
    let task_of = root.private_at(task_of, output_span);
    let spawn_refresh = root.private_at("spawn_refresh", span_of(spawn));
    let spawned = spawned(model, spawn);
    let owning = (!model.own.is_empty()).then(|| {
        let owning = owning(model);
        quote_spanned!(output_span=> let vayu_refresh = vayu_refresh.map(|vayu_body| #owning);)
    });
    let in_caller = in_caller(model);
    let spawn_refresh = quote_spanned! {span_of(spawn)=>
        #spawn_refresh(vayu_cache, &vayu_function, || {
            #owning
            let vayu_task = #task_of(vayu_cache, vayu_policy, vayu_refresh);
            #spawned
        });
    };
    quote_spanned! {output_span=>
        #begun
        match vayu_begun {
            ::core::result::Result::Ok(vayu_output) => vayu_output,
            ::core::result::Result::Err((vayu_rest, vayu_body)) => {
                let (vayu_output, vayu_left) =
                    #finish(vayu_cache, &vayu_policy, vayu_rest, vayu_body, #in_caller) #wait;
                if let ::core::option::Option::Some(vayu_refresh) = vayu_left {
                    let vayu_function = vayu_refresh.function();
                    #spawn_refresh
                }
                vayu_output
            }
        }
    }
}
