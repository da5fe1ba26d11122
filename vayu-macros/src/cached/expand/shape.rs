//! The type of the output, and its shape: a value, a `Result`, or a future behind an alias.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::Type;

use crate::cached::attribute::Attribute;
use crate::cached::expand::purpose::Purpose;
use crate::cached::function::Kind;
use crate::cached::model::Model;
use crate::cached::model::batch::Batch;
use crate::cached::types::{is_error_static, is_static, only_argument, peel, pointee};
use crate::paths::{own_ident, span_of};

/// Returns the output type of the body.
pub(crate) fn output_type(model: &Model) -> TokenStream {
    match &model.function.output {
        Some(output) => output.to_token_stream(),
        None => quote!(()),
    }
}

/// Returns the type of an element.
pub(crate) fn element_type(model: &Model, batch: &Batch) -> TokenStream {
    let collection = pointee(&batch.ty).unwrap_or(&batch.ty);
    match peel(collection) {
        Type::Slice(slice) => slice.elem.to_token_stream(),
        _ => {
            let elements = model.root.private_at("Elements", span_of(collection));
            quote!(<#collection as #elements>::Element)
        }
    }
}

/// Generates the shape of the output, by its type. Only the compiler knows whether an alias is a future.
pub(crate) fn shape(model: &Model, purpose: Purpose) -> TokenStream {
    let (root, output) = (&model.root, output_type(model));
    let span = model.function.output.as_ref().map_or_else(Span::mixed_site, span_of);
    let (plain, result) = (root.private("PlainShape"), root.private("ResultShape"));
    let shares_errors = model.kind != Attribute::SingleFlight
        && model.function.output.as_ref().is_some_and(|output| {
            // The errors of a batch are those of its elements.
            let map = model.batch.as_ref().and_then(|_| only_argument(output, "Result"));
            is_error_static(map.unwrap_or(output), &model.function.item.sig.generics)
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
                    let element = element_type(model, batch);
                    quote_spanned!(span=> <#output as #of_each<#element, _>>::output_type())
                }
                _ => quote_spanned!(span=> vayu_each.vayu_output::<#output, _>()),
            };
            let probe = quote_spanned! {span=>
                let vayu_output = #output_type;
                let vayu_probe = &vayu_output.vayu_probe::<#shares_errors>();
            };
            let whole = shape_of_batch(model, span);
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

/// Generates the shape of the whole output: whether a batch that waits for this one can share its error.
fn shape_of_batch(model: &Model, span: Span) -> TokenStream {
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

/// Generates the check that the cache can return a `&'static` value.
pub(crate) fn borrowed(model: &Model) -> Option<TokenStream> {
    let output = model.function.output.as_ref()?;
    model.cache.as_ref().filter(|_| is_static(output))?;
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
