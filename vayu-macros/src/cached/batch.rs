//! `each = ids`: a function that runs once for many elements, each of which has an entry of its own.
//!
//! The body is a closure that takes the elements to run for, in the place of the argument. It may be called several times,
//! so it does not own the other arguments. What differs between the elements (the key, the tags, the label) is
//! evaluated in a closure on one of them, where the name of the argument is a reference to the element.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Expr, FnArg, Ident, Lit, Pat, Signature, Token, Type};

use crate::cached::args::{Arguments, KeySource};
use crate::cached::closure::names_value;
use crate::cached::expand;
use crate::cached::function::{Argument, Function, Kind, is_error_static, peel, readable};
use crate::cached::model::{Batch, Model, Purpose, on_values};
use crate::cached::own;
use crate::cached::setup::{self, finish_key, output_type, policy};
use crate::diagnostics::Diagnostics;
use crate::paths::{own_ident, span_of};

/// Types of one value. Those of other types are known to the compiler only.
const SINGLE: [&str; 17] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32",
    "f64", "bool", "char", "String",
];

/// Checks the arguments of a batch function.
pub(super) fn choose(
    arguments: &Arguments,
    function: &Function,
    diagnostics: &mut Diagnostics,
) -> Option<Batch> {
    let Some((keyword, name)) = &arguments.batch.each else {
        if let Some((keyword, _)) = &arguments.batch.at_most
            && arguments.is_complete
        {
            let message = "`at_most` limits the elements of one run of a function with `each`; write `each = ids`, \
                           or remove `at_most`";
            diagnostics.add(keyword, message);
        }
        return None;
    };
    let refused = [
        (
            arguments.options.revalidate.is_some(),
            "revalidate",
            "the old value is that of one element; write `revalidate` on a function of one element that has the same \
             `prefix`",
        ),
        (
            arguments.options.patience.is_some(),
            "patience",
            "a call with old values returns them at once; remove `patience`",
        ),
    ];
    for (_, option, reason) in refused.iter().filter(|(is_given, ..)| *is_given) {
        let given = arguments.names.iter().find(|name| name == option).unwrap_or(keyword);
        diagnostics.add(given, format!("`{option}` does not work with `each`: {reason}"));
    }
    let is_skipped =
        arguments.skip.as_ref().and_then(|skip| skip.names.iter().find(|skipped| *skipped == name));
    if let Some(skipped) = is_skipped {
        let message =
            format!("the elements of `{name}` are the keys of `each`; remove `skip({name})`");
        diagnostics.add(skipped, message);
    }
    if let Some(KeySource::Expression(key)) = &arguments.key
        && !names_value(key.to_token_stream(), name)
    {
        let message = format!(
            "the key does not name `{name}`, so all elements have one entry; write it with `{name}`, which is \
                               one element there"
        );
        diagnostics.add(key, message);
    }
    let patterns = function.arguments.iter().filter_map(|argument| argument.pattern.as_ref());
    for pattern in patterns {
        let message = "a function with `each` takes its arguments by name; write a name in the place of this pattern, \
                       without `_` in front";
        diagnostics.add(pattern, message);
    }
    let Some(argument) = function.arguments.iter().find(|argument| argument.name == *name) else {
        if function.arguments.iter().all(|argument| argument.pattern.is_none()) {
            diagnostics.add(name, not_an_argument(name, function));
        }
        return None;
    };
    if let Some(condition) = argument.conditions.first() {
        diagnostics.add(condition, "the argument of `each` cannot be conditional");
    }
    if arguments.options.spawn.is_some() && arguments.is_complete {
        check_spawn(arguments, function, argument, diagnostics);
    }
    if arguments.handle.is_some()
        && let Some(used) = on_values(arguments).find_map(|closure| closure.uses(name))
    {
        let message = format!(
            "the entry of one element has no collection `{name}`; use another argument or the value here, or remove \
             `handle`"
        );
        diagnostics.add(used, message);
    }
    let pointee = pointee(&argument.ty).unwrap_or(&argument.ty);
    if let Type::Path(path) = peel(pointee)
        && SINGLE.iter().any(|name| path.path.is_ident(name))
    {
        let message = format!(
            "`each` needs a collection, and `{name}` is one value; write `{name}: &[{}]`",
            readable(pointee)
        );
        diagnostics.add(&argument.ty, message);
        return None;
    }
    if let Type::Array(array) = peel(pointee) {
        let message = format!(
            "the function runs for the elements that are not cached, which may be fewer than this array has; write \
             `{name}: &[{}]`",
            readable(&array.elem)
        );
        diagnostics.add(&argument.ty, message);
        return None;
    }
    Some(batch(argument, arguments))
}

/// Checks what a run in the background needs of the elements and of `self`.
fn check_spawn(
    arguments: &Arguments,
    function: &Function,
    argument: &Argument,
    diagnostics: &mut Diagnostics,
) {
    let name = &argument.name;
    let copied = arguments.own.iter().flat_map(|own| &own.names);
    if let Some(copied) = copied.clone().find(|copied| *copied == name) {
        let message =
            format!("the elements of `{name}` are copied anyway; remove `{name}` from `own`");
        diagnostics.add(copied, message);
    }
    let collection = pointee(&argument.ty);
    if let Type::Slice(slice) = peel(collection.unwrap_or(&argument.ty))
        && let Type::Reference(reference) = peel(&slice.elem)
        && reference.lifetime.as_ref().is_none_or(|lifetime| lifetime.ident != "static")
    {
        let message = "a function with `spawn` must own its elements, since its run outlives the call; take elements without \
                       this reference";
        diagnostics.add(reference, message);
    }
    if collection.is_some()
        && let Some(used) = on_values(arguments).find_map(|closure| closure.uses(name))
    {
        let message = format!(
            "this outlives the call, so it cannot use `{name}`, which is borrowed; take an owned collection"
        );
        diagnostics.add(used, message);
    }
    if let Some(receiver) = function.item.sig.receiver()
        && !own::is_reference(receiver)
    {
        let message = "a function with `each` may run several times, so its runs in the background need copies of `self`; \
                       take `&self` and write `own(self)`";
        diagnostics.add(receiver, message);
    }
}

fn batch(argument: &Argument, arguments: &Arguments) -> Batch {
    let at_most = arguments.batch.at_most.as_ref().map(|(_, at_most)| at_most.clone());
    Batch { name: argument.name.clone(), ty: argument.ty.clone(), at_most }
}

fn not_an_argument(name: &Ident, function: &Function) -> String {
    let names: Vec<String> =
        function.arguments.iter().flat_map(Argument::names).map(|it| format!("`{it}`")).collect();
    if names.is_empty() {
        return format!("`{name}` is not an argument: `{}` has none", function.item.sig.ident);
    }
    format!("`{name}` is not an argument; the arguments are {}", names.join(", "))
}

/// Returns the type that a reference refers to.
fn pointee(ty: &Type) -> Option<&Type> {
    match peel(ty) {
        Type::Reference(reference) => Some(&reference.elem),
        _ => None,
    }
}

/// Returns the signature without the `mut` of arguments that the body declares again.
pub(super) fn signature(model: &Model, batch: &Batch) -> Signature {
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

/// Generates a call that may hand work over to the background: its computation as a task, or with `stale` the refresh of values
/// past their ttl. The body is made once something is missing, since it owns what it uses.
pub(super) fn spawning_call(model: &Model, batch: &Batch, spawn: &Expr) -> TokenStream {
    let output_span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let (each, at_most) = (each(model, batch), at_most(batch));
    let setup = setup::setup(model, Purpose::BatchTask);
    let identity = identity(model, &quote_spanned!(Span::mixed_site()=> || ()));
    let (describe, body) = (describe(model, batch, Purpose::BatchTask), body(model, batch));
    let [copies, ..] = own::of_batch(model);
    let is_sync = model.function.kind == Kind::Sync;
    let spawned = expand::spawned(model, spawn);
    let rest = if model.options.stale.is_none() {
        let run = model.root.private_at("run_spawning", span_of(spawn));
        let made = model.root.private("Made");
        let run = quote_spanned! {span_of(spawn)=>
            #run(vayu_cache, vayu_call, #made, |vayu_task| #spawned).await
        };
        quote_spanned! {output_span=>
            let (vayu_asked, vayu_call) =
                vayu_shaped.vayu_spawnable(vayu_cache, vayu_each, vayu_left, vayu_at_most, vayu_body);
            let vayu_computed = #run;
            vayu_shaped.vayu_joined(vayu_asked, vayu_computed)
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
            #spawn_refresh(vayu_cache, &vayu_name, || {
                let vayu_body = ::core::clone::Clone::clone(&vayu_body);
                let vayu_task =
                    vayu_shaped.#task_of(vayu_cache, vayu_each, vayu_refresh, vayu_at_most, vayu_body);
                #spawned
            });
        };
        quote_spanned! {output_span=>
            let mut vayu_left = vayu_left;
            let vayu_refresh = vayu_left.#serve_stale(vayu_cache) #wait;
            if let ::core::option::Option::Some(vayu_refresh) = vayu_refresh {
                let vayu_name = vayu_refresh.function();
                #spawn_refresh
            }
            vayu_shaped.#finish(vayu_cache, vayu_each, vayu_left, vayu_at_most, vayu_body) #wait
        }
    };
    quote_spanned! {output_span=>
        #each
        #setup
        #identity
        let vayu_at_most = #at_most;
        let vayu_shaped = vayu_output.vayu_shaped(vayu_whole);
        let vayu_found = vayu_shaped.vayu_look_up(vayu_cache, vayu_each, #describe);
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

/// Generates the identity of the function, if it is its prefix: that of the type of a closure.
fn identity(model: &Model, closure: &TokenStream) -> Option<TokenStream> {
    (model.options.prefix.is_none() && model.handle.is_none()).then(|| {
        let function_prefix = model.root.private("function_prefix");
        quote_spanned!(Span::mixed_site()=> let vayu_function = #function_prefix(&#closure);)
    })
}

/// Generates the call.
pub(super) fn call(model: &Model, batch: &Batch) -> TokenStream {
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let (each, at_most) = (each(model, batch), at_most(batch));
    let (body, setup) = (body(model, batch), setup::setup(model, Purpose::Batch));
    let identity = identity(model, &quote_spanned!(Span::mixed_site()=> vayu_body));
    let describe = describe(model, batch, Purpose::Batch);
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
        vayu_output.vayu_shaped(vayu_whole).#call(vayu_cache, vayu_each, #at_most, #describe, vayu_body) #wait
    }
}

/// Generates the shape of the whole output: whether a batch that waits for this one can share its error.
pub(super) fn shape(model: &Model, span: Span) -> TokenStream {
    let (plain, result) = (model.root.private("PlainShape"), model.root.private("ResultShape"));
    let generics = &model.function.item.sig.generics;
    let shares_errors =
        model.function.output.as_ref().is_some_and(|output| is_error_static(output, generics));
    let probe = own_ident("vayu_whole_probe", span);
    quote_spanned! {span=>
        let vayu_whole = {
            use {#plain as _, #result as _};
            (&vayu_output.#probe::<#shares_errors>()).vayu_shape()
        };
    }
}

/// Returns the type of an element.
pub(super) fn element_type(model: &Model, batch: &Batch) -> TokenStream {
    let collection = pointee(&batch.ty).unwrap_or(&batch.ty);
    match peel(collection) {
        Type::Slice(slice) => slice.elem.to_token_stream(),
        _ => {
            let elements = model.root.private_at("Elements", span_of(collection));
            quote!(<#collection as #elements>::Element)
        }
    }
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
            let body = setup::async_body(model, &elements);
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
    let parts = setup::of_key(model, purpose);
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
