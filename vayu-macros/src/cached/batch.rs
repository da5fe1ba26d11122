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
use crate::cached::function::{Argument, Function, Kind, is_error_static, peel, readable};
use crate::cached::model::{Batch, Model, Purpose};
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
        (arguments.options.spawn.is_some(), "spawn", "a batch runs in its caller; remove `spawn`"),
        (
            arguments.handle.is_some(),
            "handle",
            "a handle is for one entry; write `handle` on a function of one element that has the same `prefix`",
        ),
        (
            arguments.options.err_ttl.is_some(),
            "err_ttl",
            "an error is not that of one element; write `err_ttl` on a function of one element that has the same `prefix`",
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

/// Generates the call.
pub(super) fn call(model: &Model, batch: &Batch) -> TokenStream {
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let each = each(model, batch);
    let (body, setup) = (body(model, batch), setup::setup(model, Purpose::Batch));
    let describe = describe(model, batch);
    let at_most = match &batch.at_most {
        None => quote!(::core::primitive::usize::MAX),
        Some(Expr::Lit(literal)) if matches!(literal.lit, Lit::Int(_)) => literal.to_token_stream(),
        Some(at_most) => quote_spanned!(span_of(at_most)=>
            { let vayu_at_most: ::core::primitive::usize = #at_most; vayu_at_most }
        ),
    };
    let shape = shape(model, span);
    let (name, wait) = match model.function.kind {
        Kind::Sync => ("vayu_call", None),
        Kind::Async | Kind::Boxed => ("vayu_call_async", Some(quote!(.await))),
    };
    let call = own_ident(name, span);
    quote_spanned! {span=>
        #each
        #setup
        #body
        #shape
        vayu_output.vayu_shaped(vayu_whole).#call(vayu_cache, vayu_each, #at_most, #describe, vayu_body) #wait
    }
}

/// Generates the shape of the whole output: whether a batch that waits for this one can share its error.
fn shape(model: &Model, span: Span) -> TokenStream {
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

/// Generates the body, and the identity of the function if it is its prefix.
fn body(model: &Model, batch: &Batch) -> TokenStream {
    let (root, function) = (&model.root, &model.function);
    let (name, output) = (&batch.name, output_type(model));
    let mutable = mutability(model, name);
    let elements = match pointee(&batch.ty) {
        Some(_) => {
            let lend = root.private("lend");
            quote_spanned!(Span::mixed_site()=> #lend(vayu_each, &vayu_rest))
        }
        None => quote_spanned!(Span::mixed_site()=> vayu_rest),
    };
    let elements = quote_spanned!(Span::mixed_site()=> let #mutable #name = #elements;);
    let statements = &function.item.block.stmts;
    let body = match function.kind {
        Kind::Sync => {
            let make = root.private("batch_body");
            quote_spanned! {Span::mixed_site()=>
                #make(vayu_each, |vayu_rest| -> #output {
                    #elements
                    #(#statements)*
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
                        #(#statements)*
                    };
                    vayu_future.await
                }
            };
            async_body(model, batch, &body)
        }
    };
    let identity = model.options.prefix.is_none().then(|| {
        let function_prefix = root.private("function_prefix");
        quote_spanned!(Span::mixed_site()=> let vayu_function = #function_prefix(&vayu_body);)
    });
    quote_spanned! {Span::mixed_site()=>
        let vayu_body = #body;
        #identity
    }
}

/// Generates a closure that returns the future of one run, which owns clones of the other arguments that
/// it uses.
fn async_body(model: &Model, batch: &Batch, body: &TokenStream) -> TokenStream {
    let (make, output) = (model.root.private("batch_body_async"), output_type(model));
    let statements = model.function.item.block.to_token_stream();
    let others = model.function.arguments.iter().filter(|argument| {
        argument.name != batch.name && names_value(statements.clone(), &argument.name)
    });
    let clones = others.map(|argument| {
        let (name, conditions) = (&argument.name, &argument.conditions);
        let mutable = mutability(model, name);
        quote_spanned! {span_of(&argument.ty)=>
            #(#conditions)*
            let #mutable #name = ::core::clone::Clone::clone(&#name);
        }
    });
    quote_spanned! {Span::mixed_site()=>
        #make(vayu_each, ::core::marker::PhantomData::<#output>, |vayu_rest| {
            #(#clones)*
            #body
        })
    }
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
fn describe(model: &Model, batch: &Batch) -> TokenStream {
    let name = &batch.name;
    let parts = setup::of_key(model, Purpose::Batch);
    let (key, policy) = (finish_key(model, Purpose::Batch), policy(model, Purpose::Batch));
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
