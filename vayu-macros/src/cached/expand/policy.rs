//! The policy of a call: the expressions of its values, and the calls of its methods.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Expr, parse_quote_spanned};

use crate::cached::args::{ErrTtl, Time, Ttl};
use crate::cached::attribute::Attribute;
use crate::cached::expand::cache::weigh;
use crate::cached::expand::closure::closure_on_value;
use crate::cached::expand::purpose::Purpose;
use crate::cached::model::Model;
use crate::paths::{own_ident, span_of};

/// Generates the conditions on the arguments, which each call evaluates once, before all but the key. An entry does
/// not need them: its methods run the function as it is, or do not run it.
pub(crate) fn conditions(model: &Model, purpose: Purpose) -> TokenStream {
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

/// Generates the values that the policy is made of, and that of `patience`.
pub(crate) fn values(model: &Model, purpose: Purpose) -> TokenStream {
    let root = &model.root;
    let (ttl, cache_if) = (ttl(model, purpose), cache_if(model, purpose));
    let weigh = weigh(model, purpose);
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
    quote_spanned! {Span::mixed_site()=>
        #ttl
        #idle
        #stale
        #patience
        #cache_if
        #weigh
        #err_ttl
        #revalidate
        #shared_ttl
    }
}

/// Generates the serializer. It may borrow a temporary value, which lives as long as the block of this statement.
pub(crate) fn serializer(model: &Model, purpose: Purpose) -> TokenStream {
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
    let serializer = if is_serializer_owned(model, purpose) {
        quote_spanned!(span=> ::core::clone::Clone::clone(#expression))
    } else {
        expression
    };
    quote_spanned!(Span::mixed_site()=> let vayu_serializer = #serializer;)
}

/// Returns whether the call has a clone of its serializer.
fn is_serializer_owned(model: &Model, purpose: Purpose) -> bool {
    match purpose {
        Purpose::Call => model.serializer.as_ref().is_some_and(|it| it.needs_clone),
        Purpose::Batch => false,
        Purpose::Task | Purpose::BatchTask | Purpose::Entry => true,
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

/// Generates the policy of the call. A type that the serializer does not support is reported here, at
/// the output type.
pub(crate) fn policy(model: &Model, purpose: Purpose) -> TokenStream {
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
