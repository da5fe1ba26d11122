//! `each = ids`: a function that runs once for many elements, each of which has an entry of its own.
//!
//! The body is a closure that takes the elements to run for, in the place of the argument. It may be called several times,
//! so it does not own the other arguments. What differs between the elements (the key, the tags, the label) is
//! evaluated in a closure on one of them, where the name of the argument is a reference to the element.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Expr, FnArg, Ident, Lit, Pat, Signature, Token};

use crate::cached::expand::body;
use crate::cached::expand::call::{engine, spawned};
use crate::cached::expand::key::{finish_key, of_key};
use crate::cached::expand::own;
use crate::cached::expand::policy::policy;
use crate::cached::expand::purpose::Purpose;
use crate::cached::expand::setup::setup;
use crate::cached::expand::shape::output_type;
use crate::cached::function::Kind;
use crate::cached::model::Model;
use crate::cached::model::batch::Batch;
use crate::cached::tokens::names_value;
use crate::cached::types::pointee;
use crate::paths::{own_ident, span_of};

/// Generates the call.
pub(crate) fn call(model: &Model, batch: &Batch) -> TokenStream {
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let (each, at_most) = (each(model, batch), at_most(batch));
    let (body, setup) = (body(model, batch), setup(model, Purpose::Batch));
    let identity = identity(model, &quote_spanned!(Span::mixed_site()=> vayu_body));
    let describe = describe(model, batch, Purpose::Batch);
    let engine = engine(model);
    let (name, wait) = match model.function.kind {
        Kind::Sync => ("vayu_call", None),
        Kind::Async | Kind::Boxed => ("vayu_call_async", Some(quote!(.await))),
    };
    let call = own_ident(name, span);
    quote_spanned! {span=>
        #each
        #setup
        #body
        #identity
        #engine
        vayu_each.vayu_batch(vayu_whole, #at_most).#call(vayu_engine, #describe, vayu_body) #wait
    }
}

/// Generates a call that may hand work over to the background: its computation as a task, or with `stale` the refresh of values
/// past their ttl. The body is made once something is missing, since it owns what it uses.
pub(crate) fn spawning_call(model: &Model, batch: &Batch, spawn: &Expr) -> TokenStream {
    let output_span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let (each, at_most) = (each(model, batch), at_most(batch));
    let (setup, engine) = (setup(model, Purpose::BatchTask), engine(model));
    let identity = identity(model, &quote_spanned!(Span::mixed_site()=> || ()));
    let (describe, body) = (describe(model, batch, Purpose::BatchTask), body(model, batch));
    let [copies, ..] = own::of_batch(model);
    let is_sync = model.function.kind == Kind::Sync;
    let spawned = spawned(model, spawn);
    let rest = if model.options.stale.is_none() {
        let made = model.root.private("Made");
        let run = quote_spanned! {span_of(spawn)=>
            vayu_call.vayu_run(vayu_engine, #made, |vayu_task| #spawned).await
        };
        quote_spanned! {output_span=>
            let (vayu_asked, vayu_call) =
                vayu_batch.vayu_spawnable(vayu_engine, vayu_left, vayu_body);
            let vayu_computed = #run;
            vayu_batch.vayu_joined(vayu_asked, vayu_computed)
        }
    } else {
        let spawn_refresh = model.root.private_at("spawn_refresh", span_of(spawn));
        let [serve_stale, task_of, finish] = if is_sync {
            ["vayu_serve_stale", "vayu_job_of", "vayu_finish"]
        } else {
            ["vayu_serve_stale_async", "vayu_task_of", "vayu_finish_async"]
        };
        let [serve_stale, task_of, finish] =
            [serve_stale, task_of, finish].map(|name| own_ident(name, output_span));
        let wait = (!is_sync).then(|| quote!(.await));
        let spawn_refresh = quote_spanned! {span_of(spawn)=>
            #spawn_refresh(vayu_engine, &vayu_name, || {
                let vayu_body = ::core::clone::Clone::clone(&vayu_body);
                let vayu_task = vayu_batch.#task_of(vayu_engine, vayu_refresh, vayu_body);
                #spawned
            });
        };
        quote_spanned! {output_span=>
            let mut vayu_left = vayu_left;
            let vayu_refresh = vayu_left.#serve_stale(vayu_engine) #wait;
            if let ::core::option::Option::Some(vayu_refresh) = vayu_refresh {
                let vayu_name = vayu_refresh.function();
                #spawn_refresh
            }
            vayu_batch.#finish(vayu_engine, vayu_left, vayu_body) #wait
        }
    };
    quote_spanned! {output_span=>
        #each
        #setup
        #identity
        #engine
        let vayu_batch = vayu_each.vayu_batch(vayu_whole, #at_most);
        let vayu_found = vayu_batch.vayu_look_up(vayu_engine, #describe);
        match vayu_found {
            ::core::result::Result::Ok(vayu_value) => vayu_value,
            ::core::result::Result::Err(vayu_left) => {
                #copies
                #body
                #rest
            }
        }
    }
}

/// Returns the signature without the `mut` of arguments that the body declares again.
pub(crate) fn signature(model: &Model, batch: &Batch) -> Signature {
    let function = &model.function;
    let mut signature = function.item.sig.clone();
    for input in &mut signature.inputs {
        if let FnArg::Typed(argument) = input
            && let Pat::Ident(name) = &mut *argument.pat
            && (function.kind != Kind::Sync || name.ident == batch.name)
        {
            name.mutability = None;
        }
    }
    signature
}

fn at_most(batch: &Batch) -> TokenStream {
    match &batch.at_most {
        None => quote!(::core::primitive::usize::MAX),
        Some(Expr::Lit(literal)) if matches!(literal.lit, Lit::Int(_)) => literal.to_token_stream(),
        Some(at_most) => quote_spanned!(span_of(at_most)=>
            { let vayu_at_most: ::core::primitive::usize = #at_most; vayu_at_most }
        ),
    }
}

/// Generates the identity of the function, if it is its prefix: that of the type of a closure.
fn identity(model: &Model, closure: &TokenStream) -> Option<TokenStream> {
    (model.options.prefix.is_none() && model.handle.is_none()).then(|| {
        let function_prefix = model.root.private("function_prefix");
        quote_spanned!(Span::mixed_site()=> let vayu_function = #function_prefix(&#closure);)
    })
}

/// Generates the collection of the call.
fn each(model: &Model, batch: &Batch) -> TokenStream {
    let (name, span) = (&batch.name, span_of(&batch.ty));
    let each_in = model.root.private_at("EachIn", span);
    let collection = match pointee(&batch.ty) {
        Some(_) => quote_spanned!(span=> &*#name),
        None => quote_spanned!(span=> &#name),
    };
    quote_spanned!(span=> let vayu_each = #each_in::each(#collection);)
}

/// Generates the body. With `spawn` it owns what it uses.
fn body(model: &Model, batch: &Batch) -> TokenStream {
    let (root, function) = (&model.root, &model.function);
    let (name, output) = (&batch.name, output_type(model));
    let mutable = mutability(model, name);
    let elements = match pointee(&batch.ty) {
        // The body outlives the collection of the call.
        Some(collection) if model.options.spawn.is_some() => {
            let elements = root.private_at("Elements", span_of(collection));
            quote_spanned!(Span::mixed_site()=> <#collection as #elements>::lend(&vayu_rest))
        }
        Some(_) => {
            let lend = root.private("lend");
            quote_spanned!(Span::mixed_site()=> #lend(vayu_each, &vayu_rest))
        }
        None => quote_spanned!(Span::mixed_site()=> vayu_rest),
    };
    let [_, _, copies] = own::of_batch(model);
    let elements = quote_spanned!(Span::mixed_site()=> #copies let #mutable #name = #elements;);
    let statements = own::statements(model);
    let capture = capture(model);
    let body = match function.kind {
        Kind::Sync => {
            let make = root.private("batch_body");
            quote_spanned! {Span::mixed_site()=>
                #make(vayu_each, #capture |vayu_rest| -> #output {
                    #elements
                    #statements
                })
            }
        }
        Kind::Async => {
            let body = body::async_body(model, &elements);
            async_body(model, batch, &body)
        }
        Kind::Boxed => {
            let body = quote_spanned! {Span::mixed_site()=>
                async move {
                    let vayu_future = {
                        #elements
                        #statements
                    };
                    vayu_future.await
                }
            };
            async_body(model, batch, &body)
        }
    };
    quote_spanned!(Span::mixed_site()=> let vayu_body = #body;)
}

/// Generates a closure that returns the future of one run, which owns clones of the other arguments that
/// it uses.
fn async_body(model: &Model, batch: &Batch, body: &TokenStream) -> TokenStream {
    let (make, output) = (model.root.private("batch_body_async"), output_type(model));
    let statements = model.function.item.block.to_token_stream();
    let others = model.function.arguments.iter().filter(|argument| {
        argument.name != batch.name
            && names_value(statements.clone(), &argument.name)
            && !model.own.iter().any(|owned| owned.is(&argument.name))
    });
    let clones = others.map(|argument| {
        let (name, conditions) = (&argument.name, &argument.conditions);
        let mutable = mutability(model, name);
        quote_spanned! {span_of(&argument.ty)=>
            #(#conditions)*
            let #mutable #name = ::core::clone::Clone::clone(&#name);
        }
    });
    let ([_, copies, _], capture) = (own::of_batch(model), capture(model));
    quote_spanned! {Span::mixed_site()=>
        #make(vayu_each, ::core::marker::PhantomData::<#output>, #capture |vayu_rest| {
            #(#clones)*
            #copies
            #body
        })
    }
}

fn capture(model: &Model) -> Option<Token![move]> {
    model.options.spawn.as_ref().map(|_| Token![move](Span::mixed_site()))
}

/// Returns the `mut` before an argument.
fn mutability(model: &Model, name: &Ident) -> Option<Token![mut]> {
    model.function.item.sig.inputs.iter().find_map(|input| match input {
        FnArg::Typed(argument) => match &*argument.pat {
            Pat::Ident(pattern) if pattern.ident == *name => pattern.mutability,
            _ => None,
        },
        FnArg::Receiver(_) => None,
    })
}

/// Generates the closure that describes the call of one element.
fn describe(model: &Model, batch: &Batch, purpose: Purpose) -> TokenStream {
    let name = &batch.name;
    let parts = of_key(model, purpose);
    let (key, policy) = (finish_key(model, purpose), policy(model, purpose));
    quote_spanned! {Span::mixed_site()=>
        |vayu_element| {
            let #name = vayu_element;
            // The attribute may not name it.
            let _ = #name;
            #parts
            #key
            #policy
        }
    }
}
