//! The cache of a call: one that the attribute names, the default one, or one of the function's own.
//!
//! The memory cache of a function with `max_entries` or `max_weight` is a static, which all instantiations of a
//! generic function share. It is in the body of the function. A handle needs it, too, and cannot name a static in
//! another body, so it is then in the body of a hidden function beside both.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::Ident;
use syn::ext::IdentExt;

use crate::cached::attribute::Attribute;
use crate::cached::expand::purpose::Purpose;
use crate::cached::model::Model;
use crate::cached::model::cache::Limit;
use crate::paths::span_of;

pub(crate) fn cache(model: &Model) -> TokenStream {
    let root = &model.root;
    if let Some(limit) = &model.limit {
        let own_cache = reference(model, limit);
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

/// Generates an expression for a reference to the cache, and one to the weights if there are any.
pub(crate) fn reference(model: &Model, limit: &Limit) -> TokenStream {
    match &model.handle {
        None => in_place(model, limit),
        Some(handle) => {
            let owner = handle.is_associated.then(|| quote_spanned!(Span::mixed_site()=> Self::));
            let name = accessor_name(model);
            quote_spanned!(Span::mixed_site()=> #owner #name())
        }
    }
}

/// Generates the hidden function of a cache that is shared with a handle.
pub(crate) fn accessor(model: &Model) -> Option<TokenStream> {
    let limit = model.limit.as_ref().filter(|_| model.handle.is_some())?;
    let attributes = &model.function.item.attrs;
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let (name, cache) = (accessor_name(model), model.root.item("MemoryCache"));
    let output = match limit {
        Limit::Entries(_) => quote!(&'static #cache),
        Limit::Weight { .. } => {
            let weights = model.root.private("Weights");
            quote!((&'static #cache, &'static #weights))
        }
    };
    let body = in_place(model, limit);
    Some(quote_spanned! {Span::mixed_site()=>
        #(#conditions)*
        #[doc(hidden)]
        #[inline]
        fn #name() -> #output {
            #body
        }
    })
}

fn accessor_name(model: &Model) -> Ident {
    format_ident!("vayu_cache_of_{}", model.function.item.sig.ident, span = Span::mixed_site())
}

/// Generates a block with the static.
fn in_place(model: &Model, limit: &Limit) -> TokenStream {
    let (cache, options) = (model.root.item("MemoryCache"), model.root.item("MemoryOptions"));
    let function = model.function.item.sig.ident.unraw().to_string();
    // In the list of the caches of the process.
    let name = quote_spanned! {Span::mixed_site()=>
        ::core::concat!(::core::module_path!(), "::", #function)
    };
    let max = |max| quote_spanned!(span_of(max)=> { let vayu_max: ::core::primitive::u64 = #max; vayu_max });
    match limit {
        Limit::Entries(entries) => {
            let max = max(entries);
            quote_spanned! {Span::mixed_site()=>
                {
                    static VAYU_CACHE: ::std::sync::LazyLock<#cache> = ::std::sync::LazyLock::new(
                        || #options::new().max_entries(#max).build().with_name(#name)
                    );
                    &*VAYU_CACHE
                }
            }
        }
        Limit::Weight { max: weight, .. } => {
            let (max, weights) = (max(weight), model.root.private("Weights"));
            quote_spanned! {Span::mixed_site()=>
                {
                    static VAYU_WEIGHTS: #weights = #weights::new();
                    static VAYU_CACHE: ::std::sync::LazyLock<#cache> = ::std::sync::LazyLock::new(
                        || #options::new()
                            .max_weight(#max, |_, vayu_value| VAYU_WEIGHTS.weigh(vayu_value))
                            .build()
                            .with_name(#name)
                    );
                    (&*VAYU_CACHE, &VAYU_WEIGHTS)
                }
            }
        }
    }
}

/// Generates the weights of values. The closure must not capture anything: it is called for the cache.
/// Values are stored through an entry, too, so it adds the weights at once.
pub(crate) fn weigh(model: &Model, purpose: Purpose) -> Option<TokenStream> {
    let Some(Limit::Weight { weigh, .. }) = &model.limit else { return None };
    let span = span_of(weigh);
    let weighed = model.root.private_at("weighed", span);
    let added = (purpose == Purpose::Entry).then(|| quote_spanned!(span=> .added()));
    Some(quote_spanned! {span=>
        let vayu_ttl = #weighed(vayu_shape, vayu_ttl, vayu_weights, #weigh) #added;
    })
}
