//! The key, with its prefix, tags and label.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Expr, ExprLit, GenericParam, Ident, Lit, Token};

use crate::cached::args::{Handle, KeySource};
use crate::cached::expand::pattern;
use crate::cached::expand::purpose::Purpose;
use crate::cached::function::{Argument, Kind};
use crate::cached::model::Model;
use crate::cached::model::key::{Key, KeyPart};
use crate::paths::span_of;

/// Generates the key of one element of a batch, with its tags and label.
pub(crate) fn of_key(model: &Model, purpose: Purpose) -> TokenStream {
    let (key, parts, tags) = (key(model, purpose), parts(model), tags_and_label(model, purpose));
    quote!(#key #parts #tags)
}

/// Starts the key, from the arguments or from `key = ..`, and destructures the patterns.
pub(crate) fn key(model: &Model, purpose: Purpose) -> TokenStream {
    let root = &model.root;
    let builder = root.private("KeyBuilder");
    let names: Vec<TokenStream> = model
        .function
        .arguments
        .iter()
        .map(|argument| bind_names(model, argument, purpose))
        .collect();
    match &model.key {
        Key::Arguments(parts) => {
            let arguments = model.function.arguments.iter().zip(parts).zip(&names);
            let parts = arguments.map(|((argument, part), names)| {
                let conditions = &argument.conditions;
                match part {
                    KeyPart::Whole if model.is_each(argument) => {
                        add_element(model, argument, purpose)
                    }
                    KeyPart::Whole => {
                        let part = add_part(model, &argument.name, span_of(&argument.ty));
                        quote!(#(#conditions)* #part #names)
                    }
                    KeyPart::Names(left) => {
                        let parts = left.iter().map(|name| {
                            let part = add_part(model, name, span_of(name));
                            quote!(#(#conditions)* #part)
                        });
                        quote!(#names #(#parts)*)
                    }
                    KeyPart::Nothing => names.clone(),
                }
            });
            match &model.options.version {
                None => {
                    let key = start(model, purpose, &quote!(#builder::arguments()));
                    quote_spanned! {Span::mixed_site()=>
                        let mut vayu_key = #key;
                        #(#parts)*
                        vayu_key.end_arguments();
                    }
                }
                Some(version) => {
                    let key =
                        start(model, purpose, &quote!(#builder::arguments_of_version(#version)));
                    quote_spanned! {Span::mixed_site()=>
                        let mut vayu_key = #key;
                        #(#parts)*
                        vayu_key.end_arguments_of_version(#version);
                    }
                }
            }
        }
        Key::Source(KeySource::Expression(expression)) => {
            let span = span_of(expression);
            let text = key_of_string(model, span, &quote_spanned!(span=> #expression));
            let text = start(model, purpose, &text);
            let key = quote_spanned!(span=> let mut vayu_key = #text;);
            quote!(#(#names)* #key)
        }
        Key::Source(KeySource::Closure(closure)) => {
            let arguments: Vec<_> =
                model.function.arguments.iter().map(|argument| &argument.name).collect();
            let types: Vec<_> = (0..arguments.len()).map(|n| format_ident!("A{n}")).collect();
            let values: Vec<_> = (0..arguments.len()).map(|n| format_ident!("a{n}")).collect();
            // The closure receives the whole arguments, and may capture names of their patterns.
            let parts =
                model.function.arguments.iter().map(|argument| {
                    pattern::by_reference(argument, |name| model.may_use(name), root)
                });
            let span = span_of(closure);
            let text = key_of_string(
                model,
                span,
                &quote_spanned!(span=> key_text(#(&#arguments,)* #closure)),
            );
            let text = start(model, purpose, &text);
            // The signature infers the types of the closure's parameters from the arguments.
            let key = quote_spanned! {span=>
                let mut vayu_key = {
                    fn key_text<#(#types: ?Sized,)* K>(
                        #(#values: &#types,)*
                        make: impl ::core::ops::FnOnce(#(&#types),*) -> K,
                    ) -> K {
                        make(#(#values),*)
                    }
                    #(#parts)*
                    #text
                };
            };
            quote!(#key #(#names)*)
        }
    }
}

/// Generates the statements that destructure an argument with a pattern.
fn bind_names(model: &Model, argument: &Argument, purpose: Purpose) -> TokenStream {
    let names = match purpose {
        Purpose::Call | Purpose::Batch | Purpose::BatchTask => pattern::by_value(argument),
        Purpose::Task => pattern::owned(argument).map(|(owned, _)| owned),
        Purpose::Entry => pattern::by_reference(argument, |name| model.may_use(name), &model.root),
    };
    names.unwrap_or_default()
}

/// Generates the further parts of the key, and the prefix that the attribute names.
pub(crate) fn parts(model: &Model) -> TokenStream {
    let parts = include(model);
    let prefix = model.options.prefix.as_ref().map(|prefix| finish_with(model, prefix));
    quote!(#parts #prefix)
}

/// Adds the prefix that the attribute names to the key. What is computed of a string literal is kept in a static.
fn finish_with(model: &Model, prefix: &Expr) -> TokenStream {
    let span = span_of(prefix);
    if !is_string_literal(prefix) {
        return quote_spanned!(span=> vayu_key.finish(#prefix););
    }
    let literal = model.root.private("LiteralPrefix");
    quote_spanned! {span=>
        vayu_key.finish({
            static VAYU_PREFIX: #literal = #literal::new(#prefix);
            &VAYU_PREFIX
        });
    }
}

/// Returns whether an expression is a string literal, which takes no time.
pub(crate) fn is_string_literal(expression: &Expr) -> bool {
    matches!(expression, Expr::Lit(ExprLit { lit: Lit::Str(_), .. }))
}

/// Appends the parts of `include` to the key.
fn include(model: &Model) -> TokenStream {
    let parts = model.options.include.iter().map(|part| add_part(model, part, span_of(part)));
    let is_text = matches!(model.key, Key::Source(_)) && !model.options.include.is_empty();
    let end_text = is_text.then(|| quote_spanned!(Span::mixed_site()=> vayu_key.end_text();));
    quote!(#end_text #(#parts)*)
}

/// Returns whether the key is one of variables of the call, which is dropped by the engine.
pub(crate) fn is_of_call(model: &Model, purpose: Purpose) -> bool {
    match purpose {
        Purpose::Call => model.function.kind == Kind::Sync || !model.function.has_patterns(),
        Purpose::Batch => true,
        Purpose::Task | Purpose::BatchTask | Purpose::Entry => false,
    }
}

/// Starts a key with a builder.
fn start(model: &Model, purpose: Purpose, builder: &TokenStream) -> TokenStream {
    if !is_of_call(model, purpose) {
        return builder.clone();
    }
    let key = model.root.private("CallKeyBuilder");
    quote_spanned!(Span::mixed_site()=> #key::new(#builder))
}

/// Starts a key with a string.
fn key_of_string(model: &Model, span: Span, text: &TokenStream) -> TokenStream {
    let builder = model.root.private("KeyBuilder");
    let key_string = model.root.private_at("KeyString", span);
    match &model.options.version {
        None => quote_spanned!(span=> #builder::text(#key_string::key_text(&(#text)))),
        Some(version) => {
            quote_spanned!(span=> #builder::text_of_version(#version, #key_string::key_text(&(#text))))
        }
    }
}

/// Appends a value to the key.
fn add_part(model: &Model, value: &impl ToTokens, span: Span) -> TokenStream {
    let (part, key_part) =
        (model.root.private_at("Part", span), model.root.private_at("KeyPart", span));
    quote_spanned! {span=>
        {
            // A statement of its own: before Rust 1.89, a temporary value in the argument of `Part` does not outlive it.
            let vayu_value = &(#value);
            let vayu_part = #part(vayu_value);
            #key_part::add(vayu_part.vayu_kind(), vayu_part.0, &mut vayu_key);
        }
    }
}

/// Appends an element of a batch to the key, as the function of one element appends its argument.
fn add_element(model: &Model, argument: &Argument, purpose: Purpose) -> TokenStream {
    let span = span_of(&argument.ty);
    let (part, key_part) =
        (model.root.private_at("Part", span), model.root.private_at("KeyPart", span));
    let element = match purpose {
        Purpose::Entry => argument.name.to_token_stream(),
        _ => quote_spanned!(span=> vayu_each.vayu_element(vayu_element)),
    };
    quote_spanned! {span=>
        {
            let vayu_part = #part(#element);
            #key_part::add(vayu_part.vayu_kind(), vayu_part.0, &mut vayu_key);
        }
    }
}

pub(crate) fn tags_and_label(model: &Model, purpose: Purpose) -> Option<TokenStream> {
    let (tags, label) = (tags(model, purpose), label(model));
    (tags.is_some() || label.is_some()).then(|| quote!(#tags #label))
}

/// Generates the groups of the tags. A call evaluates them only if a group was ever invalidated.
fn tags(model: &Model, purpose: Purpose) -> Option<TokenStream> {
    if model.options.tags.is_empty() {
        return None;
    }
    let groups = model.options.tags.iter().map(|expression| {
        let span = span_of(expression);
        let tag = model.root.private_at("tag", span);
        match expression {
            // Inline arguments, as in `format!`.
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
                quote_spanned!(span=> #tag(::core::format_args!(#text)))
            }
            _ => quote_spanned!(span=> #tag(&(#expression))),
        }
    });
    let groups = quote!([#(#groups),*]);
    let tags = model.root.private("tags");
    Some(match purpose {
        Purpose::Call | Purpose::Task | Purpose::Batch | Purpose::BatchTask => {
            quote_spanned!(Span::mixed_site()=> let vayu_tags = #tags(vayu_cache, || #groups);)
        }
        Purpose::Entry => quote_spanned!(Span::mixed_site()=> let vayu_tags = #groups;),
    })
}

/// Generates the label, which is evaluated only if the entries leave the process.
fn label(model: &Model) -> Option<TokenStream> {
    let expression = model.options.label.as_ref()?;
    let span = span_of(expression);
    let label = model.root.private_at("label", span);
    let text = match expression {
        // Inline arguments, as in `format!`.
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
            quote_spanned!(span=> ::core::format_args!(#text))
        }
        _ => quote_spanned!(span=> &(#expression)),
    };
    Some(quote_spanned! {span=>
        #label(vayu_cache, &mut vayu_key, |vayu_key| vayu_key.set_label(#text));
    })
}

/// Adds the prefix and the tags to the key. A call borrows the key instead of moving it.
pub(crate) fn finish_key(model: &Model, purpose: Purpose) -> TokenStream {
    let prefix = prefix(model);
    let lend = (purpose == Purpose::Call).then(|| {
        let mutable = is_of_call(model, purpose).then(|| Token![mut](Span::mixed_site()));
        quote_spanned!(Span::mixed_site()=> let vayu_key = & #mutable vayu_key;)
    });
    let tags = (!model.options.tags.is_empty()).then(|| {
        let tagged = model.root.private("Tagged");
        let carried = (purpose == Purpose::Entry)
            .then(|| quote_spanned!(Span::mixed_site()=> vayu_key.set_tags(&vayu_tags);));
        quote_spanned!(Span::mixed_site()=> #carried let vayu_key = #tagged(vayu_key, vayu_tags);)
    });
    quote! {
        #prefix
        #lend
        #tags
    }
}

/// Generates the default prefix: the type name of the function itself if it has a handle, else that of its
/// body or of another closure in it, whose path contains the function. A `prefix = ..` was already added by [`parts`], before the body
/// takes the variables it may use.
fn prefix(model: &Model) -> TokenStream {
    let private = |name| model.root.private(name);
    let prefix = match (&model.options.prefix, &model.handle) {
        (Some(_), _) => return TokenStream::new(),
        (None, None) if model.batch.is_some() => {
            quote_spanned!(Span::mixed_site()=> vayu_function)
        }
        (None, Some(handle)) => {
            let (function_prefix, path) = (private("function_prefix"), path(model, handle));
            quote!(#function_prefix(&#path))
        }
        (None, None) => {
            let function_prefix = private("function_prefix");
            match model.function.kind {
                // The body is made later.
                Kind::Async | Kind::Boxed if model.options.spawn.is_none() => {
                    quote_spanned!(Span::mixed_site()=> #function_prefix(&|| ()))
                }
                _ => quote_spanned!(Span::mixed_site()=> #function_prefix(&vayu_body)),
            }
        }
    };
    quote_spanned!(Span::mixed_site()=> vayu_key.finish_of(#prefix);)
}

/// Returns the path of the function with its generic arguments, as seen from the handle.
pub(crate) fn path(model: &Model, handle: &Handle) -> TokenStream {
    let signature = &model.function.item.sig;
    let mut name = signature.ident.clone();
    name.set_span(handle.name.span());
    let parameters: Vec<&Ident> = signature
        .generics
        .params
        .iter()
        .filter_map(|parameter| match parameter {
            GenericParam::Type(parameter) => Some(&parameter.ident),
            GenericParam::Const(parameter) => Some(&parameter.ident),
            GenericParam::Lifetime(_) => None,
        })
        .collect();
    let owner = handle.is_associated.then(|| quote_spanned!(handle.name.span()=> Self::));
    let generics = (!parameters.is_empty()).then(|| quote!(::<#(#parameters),*>));
    quote!(#owner #name #generics)
}
