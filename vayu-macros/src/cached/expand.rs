//! The function with its body in the hands of the cache.
//!
//! Names of ours are hygienic, so they never meet those of the user's variables; they start with
//! `vayu_` because statics and methods in scope are found whatever the hygiene. The body is emitted once, in
//! place, as the closure or async block that the engine calls.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{AttrStyle, Attribute, ReturnType};

use crate::cached::args::{KeySource, Time, Ttl};
use crate::cached::function::Kind;
use crate::cached::model::{Key, Model};

pub(crate) fn expand(model: &Model) -> TokenStream {
    let item = &model.function.item;
    let (inner, outer): (Vec<&Attribute>, Vec<&Attribute>) =
        item.attrs.iter().partition(|attribute| matches!(attribute.style, AttrStyle::Inner(_)));
    let (visibility, modifiers, signature) = (&item.vis, &item.modifiers.defaultness, &item.sig);
    let setup = setup(model);
    let key = finish_key(model);
    let call = call(model);
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
    }
}

/// Where errors about these tokens are told. Names that are made with it are ours all the same.
fn at(tokens: impl ToTokens) -> Span {
    Span::mixed_site().located_at(tokens.span())
}

/// The type that the body answers.
fn answer(model: &Model) -> TokenStream {
    match &model.function.answer {
        Some(answer) => answer.to_token_stream(),
        None => quote!(()),
    }
}

/// Everything that is evaluated before the body takes the arguments.
fn setup(model: &Model) -> TokenStream {
    let root = &model.root;
    let (probe, plain) = (root.private("Probe"), root.private("PlainShape"));
    let answer = answer(model);
    let (cache, key) = (cache(model), key(model));
    let serializer = match &model.serializer {
        Some(expression) => quote_spanned!(at(expression)=> &(#expression)),
        None => {
            let span = model.cache.as_ref().map_or_else(Span::mixed_site, |c| at(&c.expression));
            quote_spanned!(span=> vayu_cache.serializer())
        }
    };
    let (ttl, keep) = (ttl(model), keep(model));
    let stale = model.stale.as_ref().map(|stale| {
        let stale = time(stale);
        quote_spanned!(Span::mixed_site()=> let vayu_stale = #stale;)
    });
    quote_spanned! {Span::mixed_site()=>
        #cache
        let vayu_probe = #probe::<#answer>::new();
        let vayu_shape = {
            #[allow(unused_imports)]
            use #plain as _;
            vayu_probe.vayu_shape()
        };
        #key
        let vayu_serializer = #serializer;
        #ttl
        #stale
        #keep
    }
}

fn cache(model: &Model) -> TokenStream {
    let root = &model.root;
    let Some(cache) = &model.cache else {
        let mem_cache = root.item("mem_cache");
        return quote_spanned!(Span::mixed_site()=> let vayu_cache = #mem_cache(););
    };
    let expression = &cache.expression;
    let span = at(expression);
    let cache_of = root.private_at("cache_of", span);
    if cache.is_moved_from {
        quote_spanned! {span=>
            let vayu_cache = ::core::clone::Clone::clone(#cache_of(&(#expression)));
            let vayu_cache = &vayu_cache;
        }
    } else {
        quote_spanned! {span=>
            let vayu_cache = &(#expression);
            let vayu_cache = #cache_of(vayu_cache);
        }
    }
}

fn key(model: &Model) -> TokenStream {
    let root = &model.root;
    let builder = root.private("KeyBuilder");
    let made = match &model.key {
        Key::Arguments(chosen) => {
            let parts = chosen.iter().map(|&index| {
                let argument = &model.function.arguments[index];
                let part = add_part(model, &argument.name, at(&argument.ty));
                let conditions = &argument.conditions;
                quote!(#(#conditions)* #part)
            });
            quote_spanned! {Span::mixed_site()=>
                let mut vayu_key = #builder::arguments();
                #(#parts)*
                vayu_key.end_arguments();
            }
        }
        Key::Source(KeySource::Text(expression)) => {
            let span = at(expression);
            quote_spanned! {span=>
                #[allow(unused_mut)]
                let mut vayu_key = #builder::text(&(#expression));
            }
        }
        Key::Source(KeySource::Closure(closure)) => {
            let names: Vec<_> =
                model.function.arguments.iter().map(|argument| &argument.name).collect();
            let types: Vec<_> = (0..names.len()).map(|n| format_ident!("A{n}")).collect();
            let values: Vec<_> = (0..names.len()).map(|n| format_ident!("a{n}")).collect();
            let span = at(closure);
            // A function knows the types of the closure's parameters from the arguments.
            quote_spanned! {span=>
                #[allow(unused_mut)]
                let mut vayu_key = {
                    fn key_text<#(#types: ?Sized,)* K>(
                        #(#values: &#types,)*
                        make: impl ::core::ops::FnOnce(#(&#types),*) -> K,
                    ) -> K {
                        make(#(#values),*)
                    }
                    #builder::text(&key_text(#(&#names,)* #closure))
                };
            }
        }
    };
    let parts = model.include.iter().map(|part| add_part(model, part, at(part)));
    let any = root.private("AnyPart");
    quote_spanned! {Span::mixed_site()=>
        #[allow(unused_imports)]
        use #any as _;
        #made
        #(#parts)*
    }
}

/// Appends one value to the key.
fn add_part(model: &Model, value: &impl ToTokens, span: Span) -> TokenStream {
    let part = model.root.private_at("Part", span);
    quote_spanned! {span=>
        {
            // That the key uses an argument does not mean that the body does.
            #[allow(clippy::used_underscore_binding)]
            let vayu_part = #part(&(#value));
            vayu_part.vayu_kind().add(&vayu_part, &mut vayu_key);
        }
    }
}

fn ttl(model: &Model) -> TokenStream {
    match &model.ttl {
        Ttl::OfAll(ttl) => {
            let ttl = time(ttl);
            quote_spanned!(Span::mixed_site()=> let vayu_ttl = #ttl;)
        }
        Ttl::ByValue(closure) => {
            let span = at(closure);
            let ttl_by = model.root.private_at("ttl_by", span);
            quote_spanned!(span=> let vayu_ttl = #ttl_by(vayu_shape, &vayu_probe, #closure);)
        }
    }
}

/// An expression of type `Duration`.
fn time(time: &Time) -> TokenStream {
    match time {
        Time::Fixed(time) => {
            let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
            quote_spanned!(Span::mixed_site()=> ::core::time::Duration::new(#seconds, #nanos))
        }
        Time::Expression(expression) => quote_spanned! {at(expression)=>
            { let vayu_time: ::core::time::Duration = #expression; vayu_time }
        },
    }
}

fn keep(model: &Model) -> TokenStream {
    if let Some(predicate) = &model.cache_if {
        let span = at(predicate);
        let keep_if = model.root.private_at("keep_if", span);
        quote_spanned!(span=> let vayu_keep = #keep_if(vayu_shape, &vayu_probe, #predicate);)
    } else {
        let always = model.root.private("Always");
        quote_spanned!(Span::mixed_site()=> let vayu_keep = #always;)
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

fn finish_key(model: &Model) -> TokenStream {
    match &model.prefix {
        Some(prefix) => quote_spanned!(at(prefix)=> let vayu_key = vayu_key.finish(#prefix);),
        None => {
            let function_prefix = model.root.private(match model.function.kind {
                Kind::Sync => "function_prefix",
                Kind::Async | Kind::Boxed => "async_function_prefix",
            });
            quote_spanned!(Span::mixed_site()=> let vayu_key = vayu_key.finish(#function_prefix(&vayu_body));)
        }
    }
}

fn call(model: &Model) -> TokenStream {
    let root = &model.root;
    // What the serializer cannot take is the type of the answer.
    let span = model.function.answer.as_ref().map_or_else(Span::mixed_site, at);
    let policy = root.private_at("Policy", span);
    let version = model.version.as_ref().map(|version| {
        let stamp = root.private("version_stamp");
        quote!(.version(const { #stamp(#version) }))
    });
    let stale =
        model.stale.as_ref().map(|_| quote_spanned!(Span::mixed_site()=> .stale(vayu_stale)));
    let jitter = model.jitter.map(|thousandths| quote!(.jitter(#thousandths)));
    let quiet = model.is_quiet.then(|| quote!(.quiet()));
    let (name, wait) = match model.function.kind {
        Kind::Sync => ("call", None),
        Kind::Async | Kind::Boxed => ("call_async", Some(quote_spanned!(span=> .await))),
    };
    let call = root.private_at(name, span);
    quote_spanned! {span=>
        #call(
            vayu_cache,
            #policy::new(vayu_key, vayu_shape, vayu_serializer, vayu_ttl, vayu_keep)
                #version
                #stale
                #jitter
                #quiet,
            vayu_body,
        )
        #wait
    }
}
