//! Generated code that a function and its handle share: everything that runs before the body takes the
//! arguments.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Expr, ExprLit, GenericParam, Ident, Lit, parse_quote_spanned};

use crate::cached::Attribute;
use crate::cached::args::{ErrTtl, KeySource, Time, Ttl};
use crate::cached::batch;
use crate::cached::closure::closure_on_value;
use crate::cached::function::{self, Argument, Kind};
use crate::cached::model::{Handle, Key, KeyPart, Limit, Model, Purpose};
use crate::cached::own;
use crate::cached::own_cache;
use crate::cached::pattern;
use crate::paths::{Root, own_ident, span_of};

/// Returns the output type of the body.
pub(super) fn output_type(model: &Model) -> TokenStream {
    match &model.function.output {
        Some(output) => output.to_token_stream(),
        None => quote!(()),
    }
}

/// Generates the future of an async body, with `first` at its start.
pub(super) fn async_body(model: &Model, first: &TokenStream) -> TokenStream {
    let statements = own::statements(model);
    typed_async_block(&output_type(model), &model.root, first, &statements)
}

/// Generates an async block with this output, with `first` at its start. The `None` fixes the output type for `return`
/// and `?`. A body that ends with `return` would make what follows it unreachable, which is a warning in the code of the
/// user; after an `if` it is not.
pub(super) fn typed_async_block(
    output: &TokenStream,
    root: &Root,
    first: &TokenStream,
    statements: &TokenStream,
) -> TokenStream {
    let unreachable = root.private("unreachable");
    quote_spanned! {Span::mixed_site()=>
        async move {
            if let ::core::option::Option::Some(vayu_never) = ::core::option::Option::None::<#output> {
                return vayu_never;
            }
            let vayu_value: #output = if true {
                #first
                #statements
            } else {
                #unreachable()
            };
            return vayu_value;
        }
    }
}

/// Generates everything that is evaluated before the body takes the arguments. Patterns are destructured
/// before the first expression of the attribute, which may use their names. The key is started before
/// that, since it may contain whole arguments. A batch has keys of its elements, see [`of_key`].
pub(super) fn setup(model: &Model, purpose: Purpose) -> TokenStream {
    let root = &model.root;
    let cache = cache(model);
    let has_patterns = model.function.arguments.iter().any(|argument| argument.pattern.is_some());
    let (key_before, key_after, tags) = match purpose {
        Purpose::Batch | Purpose::BatchTask => (None, None, None),
        _ if has_patterns => {
            (Some(key(model, purpose)), Some(parts(model)), tags_and_label(model, purpose))
        }
        _ => {
            let (key, parts) = (key(model, purpose), parts(model));
            (None, Some(quote!(#key #parts)), tags_and_label(model, purpose))
        }
    };
    let serializer = serializer(model, purpose);
    let (ttl, cache_if) = (ttl(model, purpose), cache_if(model, purpose));
    let weigh = own_cache::weigh(model, purpose);
    let err_ttl = err_ttl(model, purpose);
    let revalidate = model.options.revalidate.as_ref().map(|_| {
        let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
        let revalidate = root.private_at("revalidate", span);
        quote_spanned!(span=> let vayu_ttl = #revalidate(vayu_shape, vayu_ttl);)
    });
    // The calls of all elements have it.
    let shared_ttl = (purpose == Purpose::BatchTask).then(
        || quote_spanned!(Span::mixed_site()=> let vayu_ttl = ::std::sync::Arc::new(vayu_ttl);),
    );
    let stale = model.options.stale.as_ref().map(|stale| {
        let stale = time(stale);
        quote_spanned!(Span::mixed_site()=> let vayu_stale = #stale;)
    });
    let idle = idle(model);
    let patience = model.options.patience.as_ref().filter(|_| purpose == Purpose::Task);
    let patience = patience.map(|(_, patience)| {
        let patience = time(patience);
        quote_spanned!(Span::mixed_site()=> let vayu_patience = #patience;)
    });
    let conditions = conditions(model, purpose);
    let (borrowed, shape) = (borrowed(model), shape(model, purpose));
    let (any, exclusive) = (root.private("AnyPart"), root.private("ExclusiveKind"));
    quote_spanned! {Span::mixed_site()=>
        use {#any as _, #exclusive as _};
        #key_before
        #conditions
        #cache
        #borrowed
        #shape
        #key_after
        let vayu_serializer = #serializer;
        #ttl
        #idle
        #stale
        #patience
        #cache_if
        #weigh
        #err_ttl
        #revalidate
        #shared_ttl
        #tags
    }
}

/// Generates the key of one element of a batch, with its tags and label.
pub(super) fn of_key(model: &Model, purpose: Purpose) -> TokenStream {
    let (key, parts, tags) = (key(model, purpose), parts(model), tags_and_label(model, purpose));
    quote!(#key #parts #tags)
}

/// Generates the further parts of the key, and the prefix that the attribute names.
fn parts(model: &Model) -> TokenStream {
    let parts = include(model);
    let prefix = model
        .options
        .prefix
        .as_ref()
        .map(|prefix| quote_spanned!(span_of(prefix)=> vayu_key.finish(#prefix);));
    quote!(#parts #prefix)
}

fn tags_and_label(model: &Model, purpose: Purpose) -> Option<TokenStream> {
    let (tags, label) = (tags(model, purpose), label(model));
    (tags.is_some() || label.is_some()).then(|| quote!(#tags #label))
}

/// Generates the conditions on the arguments, which each call evaluates once, before all but the key. An entry does
/// not need them: its methods run the function as it is, or do not run it.
fn conditions(model: &Model, purpose: Purpose) -> TokenStream {
    if purpose == Purpose::Entry {
        return TokenStream::new();
    }
    let condition = |name, condition: &Option<Expr>| {
        let condition = condition.as_ref()?;
        let (span, name) = (span_of(condition), own_ident(name, Span::mixed_site()));
        Some(quote_spanned!(span=> let #name: ::core::primitive::bool = #condition;))
    };
    let bypass = condition("vayu_bypass", &model.options.bypass_if);
    let refresh = condition("vayu_refresh", &model.options.refresh_if);
    quote!(#bypass #refresh)
}

/// Generates the check that the cache can return a `&'static` value.
fn borrowed(model: &Model) -> Option<TokenStream> {
    let output = model.function.output.as_ref()?;
    model.cache.as_ref().filter(|_| function::is_static(output))?;
    let (root, span) = (&model.root, span_of(output));
    let (encoded, plain) = (root.private("EncodedStored"), root.private("PlainStored"));
    let (holds, probe) =
        (root.private_at("HoldsReferences", span), root.private_at("StoredProbe", span));
    Some(quote_spanned! {span=>
        {
            use {#encoded as _, #plain as _};
            #holds::check(#probe::of(vayu_cache).vayu_form());
        }
    })
}

/// Generates the shape of the output, by its type. Only the compiler knows whether an alias is a future.
fn shape(model: &Model, purpose: Purpose) -> TokenStream {
    let (root, output) = (&model.root, output_type(model));
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let (plain, result) = (root.private("PlainShape"), root.private("ResultShape"));
    let shares_errors = model.kind != Attribute::SingleFlight
        && model.function.output.as_ref().is_some_and(|output| {
            // The errors of a batch are those of its elements.
            let map = model.batch.as_ref().and_then(|_| function::only_argument(output, "Result"));
            function::is_error_static(map.unwrap_or(output), &model.function.item.sig.generics)
        });
    let caches_errors = |shape: TokenStream| {
        let caches_errors = root.private_at("CachesErrors", span);
        let is_given = model.options.err_ttl.is_some();
        is_given.then(|| quote_spanned!(span=> let #shape = #caches_errors::checked(#shape);))
    };
    let (probe, batch) = match &model.batch {
        None => {
            let probe = root.private("Probe");
            let probe = quote_spanned!(Span::mixed_site()=> let vayu_probe = &#probe::<#output, #shares_errors>::new(););
            (probe, None)
        }
        Some(batch) => {
            // An error about the type and one about the path are reported once if their spans are the same.
            let output = spanned(output, span);
            let output_type = match purpose {
                Purpose::Entry => {
                    let of_each = root.private_at("OutputOfEach", span);
                    let element = batch::element_type(model, batch);
                    quote_spanned!(span=> <#output as #of_each<#element, _>>::output_type())
                }
                _ => quote_spanned!(span=> vayu_each.vayu_output::<#output, _>()),
            };
            let probe = quote_spanned! {span=>
                let vayu_output = #output_type;
                let vayu_probe = &vayu_output.vayu_probe::<#shares_errors>();
            };
            let whole = batch::shape(model, span);
            let caches_errors = caches_errors(quote_spanned!(span=> vayu_whole));
            (probe, Some(quote!(#whole #caches_errors)))
        }
    };
    let shape = if model.function.kind == Kind::Sync {
        let (future, known) = (root.private("FutureShape"), root.private_at("KnownShape", span));
        quote_spanned!(span=> use #future as _; #known::known(vayu_probe.vayu_shape()))
    } else {
        quote_spanned!(span=> vayu_probe.vayu_shape())
    };
    let whole = (model.kind == Attribute::SingleFlight).then(|| {
        let whole = root.private_at("whole", span);
        quote_spanned!(Span::mixed_site()=> let vayu_shape = #whole(vayu_shape);)
    });
    let caches_errors = match batch {
        None => caches_errors(quote_spanned!(span=> vayu_shape)),
        Some(_) => None,
    };
    quote_spanned! {Span::mixed_site()=>
        #probe
        #batch
        let vayu_shape = {
            use {#plain as _, #result as _};
            #shape
        };
        #whole
        #caches_errors
    }
}

/// Sets the hygiene of tokens to that of `span`, where they are.
fn spanned(tokens: TokenStream, span: Span) -> TokenStream {
    let spanned = tokens.into_iter().map(|mut token| {
        token.set_span(span.located_at(token.span()));
        if let TokenTree::Group(group) = &token {
            let mut inner = Group::new(group.delimiter(), spanned(group.stream(), span));
            inner.set_span(token.span());
            token = TokenTree::Group(inner);
        }
        token
    });
    spanned.collect()
}

fn serializer(model: &Model, purpose: Purpose) -> TokenStream {
    let (expression, span) = match (&model.serializer, &model.cache) {
        (Some(serializer), _) => {
            let expression = &serializer.expression;
            let span = span_of(expression);
            (quote_spanned!(span=> &(#expression)), span)
        }
        (None, cache) => {
            let span = cache.as_ref().map_or_else(Span::mixed_site, |c| span_of(&c.expression));
            (quote_spanned!(span=> vayu_cache.serializer()), span)
        }
    };
    if is_serializer_owned(model, purpose) {
        quote_spanned!(span=> ::core::clone::Clone::clone(#expression))
    } else {
        expression
    }
}

/// Returns whether the call has a clone of its serializer.
fn is_serializer_owned(model: &Model, purpose: Purpose) -> bool {
    match purpose {
        Purpose::Call => model.serializer.as_ref().is_some_and(|it| it.needs_clone),
        Purpose::Batch => false,
        Purpose::Task | Purpose::BatchTask | Purpose::Entry => true,
    }
}

fn cache(model: &Model) -> TokenStream {
    let root = &model.root;
    if let Some(limit) = &model.limit {
        let own_cache = own_cache::reference(model, limit);
        return match limit {
            Limit::Entries(_) => {
                quote_spanned!(Span::mixed_site()=> let vayu_cache = #own_cache;)
            }
            Limit::Weight { .. } => {
                quote_spanned!(Span::mixed_site()=> let (vayu_cache, vayu_weights) = #own_cache;)
            }
        };
    }
    if model.kind == Attribute::SingleFlight {
        let flights = root.private("single_flights");
        return quote_spanned!(Span::mixed_site()=> let vayu_cache = #flights(););
    }
    let Some(cache) = &model.cache else {
        let mem_cache = root.item("mem_cache");
        return quote_spanned!(Span::mixed_site()=> let vayu_cache = #mem_cache(););
    };
    let expression = &cache.expression;
    let span = span_of(expression);
    let as_cache = root.private_at("AsCache", span);
    if cache.needs_clone {
        quote_spanned! {span=>
            let vayu_cache = ::core::clone::Clone::clone(#as_cache::as_cache(&(#expression)));
            let vayu_cache = &vayu_cache;
        }
    } else {
        quote_spanned! {span=>
            let vayu_cache = &(#expression);
            let vayu_cache = #as_cache::as_cache(vayu_cache);
        }
    }
}

/// Starts the key, from the arguments or from `key = ..`, and destructures the patterns.
fn key(model: &Model, purpose: Purpose) -> TokenStream {
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
                None => quote_spanned! {Span::mixed_site()=>
                    let mut vayu_key = #builder::arguments();
                    #(#parts)*
                    vayu_key.end_arguments();
                },
                Some(version) => quote_spanned! {Span::mixed_site()=>
                    let mut vayu_key = #builder::arguments_of_version(#version);
                    #(#parts)*
                    vayu_key.end_arguments_of_version(#version);
                },
            }
        }
        Key::Source(KeySource::Expression(expression)) => {
            let span = span_of(expression);
            let text = key_of_string(model, span, &quote_spanned!(span=> #expression));
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

/// Appends the parts of `include` to the key.
fn include(model: &Model) -> TokenStream {
    let parts = model.options.include.iter().map(|part| add_part(model, part, span_of(part)));
    quote!(#(#parts)*)
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

fn ttl(model: &Model, purpose: Purpose) -> TokenStream {
    match &model.ttl {
        Ttl::Fixed(ttl) => {
            let (ttl, fixed_ttl) = (time(ttl), model.root.private("fixed_ttl"));
            quote_spanned!(Span::mixed_site()=> let vayu_ttl = #fixed_ttl(#ttl);)
        }
        Ttl::ExpiresAt(expression) => {
            let span = span_of(expression);
            let expires_at = model.root.private_at("expires_at", span);
            let closure = match &**expression {
                Expr::Closure(closure) => closure.clone(),
                moment => {
                    let time = quote_spanned!(span=> ::std::time::SystemTime);
                    parse_quote_spanned! {span=>
                        |_| { let vayu_moment: #time = #moment; vayu_moment }
                    }
                }
            };
            let closure = closure_on_value(model, &closure, purpose);
            quote_spanned!(span=> let vayu_ttl = #expires_at(vayu_shape, #closure);)
        }
        Ttl::ByValue(closure) => {
            let span = span_of(closure);
            let ttl_fn = model.root.private_at("ttl_fn", span);
            let closure = closure_on_value(model, closure, purpose);
            quote_spanned!(span=> let vayu_ttl = #ttl_fn(vayu_shape, #closure);)
        }
    }
}

/// Generates the idle time. A mistake is in the cache, which does not keep the times of uses.
fn idle(model: &Model) -> Option<TokenStream> {
    let time = time(model.options.idle.as_ref()?);
    let span = model.cache.as_ref().map_or_else(Span::mixed_site, |it| span_of(&it.expression));
    let idle = model.root.private_at("idle", span);
    Some(quote_spanned!(span=> let vayu_ttl = #idle(vayu_cache, vayu_ttl, #time);))
}

/// Generates an expression of type `Duration`.
fn time(time: &Time) -> TokenStream {
    match time {
        Time::Fixed(time) => {
            let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
            quote_spanned!(Span::mixed_site()=> ::core::time::Duration::new(#seconds, #nanos))
        }
        Time::Expression(expression) => quote_spanned! {span_of(expression)=>
            { let vayu_time: ::core::time::Duration = #expression; vayu_time }
        },
    }
}

/// Generates the predicate on the value.
fn cache_if(model: &Model, purpose: Purpose) -> Option<TokenStream> {
    let predicate = model.options.cache_if.as_ref()?;
    let span = span_of(predicate);
    if !matches!(predicate, Expr::Closure(_)) {
        let trait_name = model.root.private_at("Predicate", span);
        return Some(quote_spanned! {span=>
            let vayu_ttl = #trait_name::add_to(vayu_shape, #predicate, vayu_ttl);
        });
    }
    let cache_if = model.root.private_at("cache_if", span);
    let predicate = match predicate {
        Expr::Closure(closure) => closure_on_value(model, closure, purpose),
        other => other.to_token_stream(),
    };
    Some(quote_spanned!(span=> let vayu_ttl = #cache_if(vayu_shape, vayu_ttl, #predicate);))
}

/// Generates the ttl of errors.
fn err_ttl(model: &Model, purpose: Purpose) -> Option<TokenStream> {
    let (span, closure) = match model.options.err_ttl.as_ref()? {
        ErrTtl::Fixed(ttl) => {
            let (span, ttl) = (Span::mixed_site(), time(ttl));
            (span, quote_spanned!(span=> { let vayu_time = #ttl; move |_| vayu_time }))
        }
        ErrTtl::ByError(closure) => (span_of(closure), closure_on_value(model, closure, purpose)),
    };
    let (name, shape) = match &model.batch {
        None => ("err_ttl", "vayu_shape"),
        Some(_) => ("err_ttl_of_batch", "vayu_whole"),
    };
    let (err_ttl, shape) = (model.root.private_at(name, span), own_ident(shape, span));
    Some(quote_spanned!(span=> let vayu_ttl = #err_ttl(#shape, vayu_ttl, #closure);))
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
pub(super) fn finish_key(model: &Model, purpose: Purpose) -> TokenStream {
    let prefix = prefix(model);
    let lend = (purpose == Purpose::Call)
        .then(|| quote_spanned!(Span::mixed_site()=> let vayu_key = &vayu_key;));
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
/// body, whose path contains the function. A `prefix = ..` was already added by [`setup`], before the body
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
            let function_prefix = private(match model.function.kind {
                Kind::Async | Kind::Boxed if model.options.spawn.is_none() => {
                    "async_function_prefix"
                }
                _ => "function_prefix",
            });
            quote_spanned!(Span::mixed_site()=> #function_prefix(&vayu_body))
        }
    };
    quote_spanned!(Span::mixed_site()=> vayu_key.finish_of(#prefix);)
}

/// Returns the path of the function with its generic arguments, as seen from the handle.
pub(super) fn path(model: &Model, handle: &Handle) -> TokenStream {
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

/// Generates the policy of the call. A type that the serializer does not support is reported here, at
/// the output type.
pub(super) fn policy(model: &Model, purpose: Purpose) -> TokenStream {
    let (root, options) = (&model.root, &model.options);
    let ttl = match purpose {
        Purpose::Batch => quote_spanned!(Span::mixed_site()=> &vayu_ttl),
        // The calls of several elements have clones.
        Purpose::BatchTask => {
            quote_spanned!(Span::mixed_site()=> ::core::clone::Clone::clone(&vayu_ttl))
        }
        _ => quote_spanned!(Span::mixed_site()=> vayu_ttl),
    };
    let of_call = |span| match purpose {
        Purpose::BatchTask => quote_spanned!(span=> ::core::clone::Clone::clone(&vayu_serializer)),
        _ => quote_spanned!(span=> vayu_serializer),
    };
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let policy = root.private_at("Policy", span);
    let method =
        own_ident(if is_serializer_owned(model, purpose) { "owned" } else { "borrowed" }, span);
    // The mistake is in the value, or in the serializer that the attribute names.
    let serializer = match &model.serializer {
        None => {
            let name = match model.kind {
                Attribute::SingleFlight => "ShareableBy",
                Attribute::Cached | Attribute::MemCached => "StorableIn",
            };
            let (storable, of_call) = (root.private_at(name, span), of_call(span));
            quote_spanned!(span=> #storable::#method(vayu_cache, vayu_shape, #of_call))
        }
        Some(serializer) => {
            let span = span_of(&serializer.expression);
            let (storable, of_call) = (root.private_at("StorableBy", span), of_call(span));
            quote_spanned!(span=> #storable::#method(vayu_cache, vayu_shape, #of_call))
        }
    };
    let tags = (!options.tags.is_empty()).then(|| quote!(.with_tags()));
    let own_serializer = model.serializer.as_ref().map(|_| quote!(.with_own_serializer()));
    let stale =
        options.stale.as_ref().map(|_| quote_spanned!(Span::mixed_site()=> .stale(vayu_stale)));
    let idle = options.idle.as_ref().map(|_| quote!(.with_idle()));
    let jitter = options.jitter.map(|thousandths| quote!(.jitter(#thousandths)));
    // The entry of an element runs nothing.
    let handle = model.handle.as_ref().filter(|_| model.batch.is_none());
    let handle = handle.map(|_| quote!(.with_handle()));
    let is_evaluated = |condition: &Option<Expr>| condition.is_some() && purpose != Purpose::Entry;
    let bypass_if = is_evaluated(&options.bypass_if)
        .then(|| quote_spanned!(Span::mixed_site()=> .bypass_if(vayu_bypass)));
    let refresh_if = is_evaluated(&options.refresh_if)
        .then(|| quote_spanned!(Span::mixed_site()=> .refresh_if(vayu_refresh)));
    let quiet = options.is_quiet.then(|| quote!(.quiet()));
    // Only a value past its ttl has a refresh that may fail.
    let shape = match (&options.stale, &model.batch) {
        (Some(_), None) => {
            let [probe, shown, hidden] =
                ["ErrorProbe", "ShownError", "HiddenError"].map(|name| root.private_at(name, span));
            quote_spanned! {span=>
                { use {#shown as _, #hidden as _}; (&#probe(vayu_shape)).vayu_shape() }
            }
        }
        _ => quote_spanned!(span=> vayu_shape),
    };
    quote_spanned! {span=>
        #policy::new(vayu_key, #shape, #serializer, #ttl)
            #tags
            #own_serializer
            #stale
            #idle
            #jitter
            #handle
            #bypass_if
            #refresh_if
            #quiet
    }
}
