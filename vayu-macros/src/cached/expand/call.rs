//! The call of the engine, for a function with one entry for each call.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::Expr;

use crate::cached::expand::body::body;
use crate::cached::expand::key::finish_key;
use crate::cached::expand::own;
use crate::cached::expand::policy::policy;
use crate::cached::expand::purpose::Purpose;
use crate::cached::expand::setup::{Setup, setup};
use crate::cached::function::Kind;
use crate::cached::model::Model;
use crate::paths::{own_ident, span_of};

pub(crate) fn call(model: &Model) -> TokenStream {
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let (setup, body) = (setup(model, Purpose::Call), body(model));
    let (key, policy) = (finish_key(model, Purpose::Call), policy(model, Purpose::Call));
    let call = match model.function.kind {
        Kind::Sync => {
            let call = model.root.private_at("call", span);
            quote_spanned!(span=> #call(vayu_cache, vayu_start, #policy, vayu_body))
        }
        Kind::Async | Kind::Boxed if model.function.has_patterns() => {
            let begin = model.root.private_at("begin_async", span);
            let finish = model.root.private_at("finish_async", span);
            let engine = engine(model);
            quote_spanned! {span=>
                let vayu_policy = #policy;
                match #begin(vayu_cache, &vayu_policy) {
                    ::core::result::Result::Ok(vayu_output) => vayu_output,
                    ::core::result::Result::Err(vayu_rest) => {
                        #engine
                        #finish(vayu_engine, &vayu_policy, vayu_rest, vayu_body).await
                    }
                }
            }
        }
        // The key and the policy are variables of a block that ends before the call waits: only those of a call with a rest
        // are in its future.
        Kind::Async | Kind::Boxed => {
            let begin = model.root.private_at("begin_async_call", span);
            let finish = model.root.private_at("finish_async", span);
            let moved = model.root.private_at("moved", span);
            let (engine, Setup { of_call, of_policy }) = (engine(model), setup);
            return quote_spanned! {span=>
                #of_call
                let mut vayu_policy = ::core::option::Option::None;
                'vayu_call: {
                    let vayu_rest = {
                        #of_policy
                        #key
                        match #begin(vayu_cache, vayu_start, #policy, &mut vayu_policy) {
                            ::core::result::Result::Ok(vayu_output) => break 'vayu_call vayu_output,
                            ::core::result::Result::Err(vayu_left) => vayu_left,
                        }
                    };
                    #body
                    #engine
                    #finish(vayu_engine, #moved(&vayu_policy), vayu_rest, vayu_body).await
                }
            };
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
pub(crate) fn spawning_call(model: &Model, spawn: &Expr) -> TokenStream {
    let root = &model.root;
    let output_span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let (begun, engine) = (begun(model), engine(model));
    let is_sync = model.function.kind == Kind::Sync;
    let (spawnable, patience) = match &model.options.patience {
        None => ("spawnable", None),
        Some(_) => ("patient", Some(quote_spanned!(Span::mixed_site()=> , vayu_patience))),
    };
    let spawnable = root.private_at(spawnable, output_span);
    let run = own_ident(if is_sync { "vayu_run_blocking" } else { "vayu_run" }, span_of(spawn));
    let spawned = spawned(model, spawn);
    let (job, wait) = if is_sync {
        let job = root.private_at("job", span_of(spawn));
        (Some(quote_spanned!(span_of(spawn)=> let vayu_task = #job(vayu_task);)), None)
    } else {
        (None, Some(quote!(.await)))
    };
    let run = quote_spanned! {span_of(spawn)=>
        vayu_call.#run(vayu_engine, vayu_maker, |vayu_task| { #job #spawned })
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
                #engine
                #maker
                let vayu_call = #spawnable(vayu_engine, vayu_policy, vayu_rest, vayu_body #patience);
                #run #wait
            }
        }
    }
}

/// Generates a call that refreshes a value past its ttl in a task, or that of a sync function in another thread.
pub(crate) fn refreshing_call(model: &Model, spawn: &Expr) -> TokenStream {
    let root = &model.root;
    let output_span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let (begun, engine) = (begun(model), engine(model));
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
        #spawn_refresh(vayu_engine, &vayu_function, || {
            #owning
            let vayu_task = #task_of(vayu_engine, vayu_policy, vayu_refresh);
            #spawned
        });
    };
    quote_spanned! {output_span=>
        #begun
        match vayu_begun {
            ::core::result::Result::Ok(vayu_output) => vayu_output,
            ::core::result::Result::Err((vayu_rest, vayu_body)) => {
                #engine
                let (vayu_output, vayu_left) =
                    #finish(vayu_engine, &vayu_policy, vayu_rest, #in_caller) #wait;
                if let ::core::option::Option::Some(vayu_refresh) = vayu_left {
                    let vayu_function = vayu_refresh.function();
                    #spawn_refresh
                }
                vayu_output
            }
        }
    }
}

/// Generates the engine, for what follows the lookup.
pub(crate) fn engine(model: &Model) -> TokenStream {
    let engine = model.root.private("engine");
    quote_spanned!(Span::mixed_site()=> let vayu_engine = #engine(vayu_cache);)
}

/// Generates the call of the spawner.
pub(crate) fn spawned(model: &Model, spawn: &Expr) -> TokenStream {
    match (model.function.kind, spawn) {
        // So that the type of its parameter is inferred, which it may call.
        (Kind::Sync, Expr::Closure(_)) => {
            let pass = model.root.private_at("pass", span_of(spawn));
            quote_spanned!(span_of(spawn)=> #pass(vayu_task, #spawn))
        }
        _ => quote_spanned!(span_of(spawn)=> (#spawn)(vayu_task)),
    }
}

/// Generates the start of a call that may move its body into a task: `vayu_begun` is the output, or else the rest of
/// the lookup, with the body. The body of an async function is boxed in the block that creates it: each
/// later move would add its size to the future of the call.
fn begun(model: &Model) -> TokenStream {
    let output_span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let setup = setup(model, Purpose::Task);
    let (body, key, policy) =
        (body(model), finish_key(model, Purpose::Task), policy(model, Purpose::Task));
    let begin = model.root.private_at("begin_async", output_span);
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
                    ::core::result::Result::Err((vayu_rest, #moved))
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

/// Generates the body of a call that may hand it over, with the closure that runs it in the caller.
fn in_caller(model: &Model) -> TokenStream {
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let borrowed = own::borrowed(model);
    match model.function.kind {
        Kind::Sync => quote_spanned!(span=> vayu_body, |vayu_body| vayu_body(#borrowed)),
        Kind::Async if !model.own.is_empty() => {
            let caller_body = model.root.private_at("caller_body", span);
            quote_spanned! {span=>
                #caller_body(
                    vayu_body,
                    |vayu_body| ::std::boxed::Box::pin(async move { vayu_body(#borrowed).await }),
                )
            }
        }
        Kind::Async | Kind::Boxed => quote_spanned!(span=> vayu_body),
    }
}
