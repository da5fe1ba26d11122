//! The companion function of `handle = ..`: it takes the same arguments and returns the entry of the call.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Attribute, FnArg, Pat, ReturnType, Safety, Signature, parse_quote_spanned};

use crate::cached::args::Handle;
use crate::cached::expand::key::{finish_key, path};
use crate::cached::expand::policy::policy;
use crate::cached::expand::purpose::Purpose;
use crate::cached::expand::setup::setup;
use crate::cached::expand::shape::{element_type, output_type};
use crate::cached::function::Kind;
use crate::cached::model::Model;
use crate::cached::model::batch::Batch;
use crate::paths::span_of;

pub(crate) fn expand(model: &Model, handle: &Handle) -> TokenStream {
    let item = &model.function.item;
    let root = &model.root;
    let (attributes, visibility) = (attributes(model), &item.vis);
    let signature = signature(model, handle);
    let setup = setup(model, Purpose::Entry);
    let (key, policy) = (finish_key(model, Purpose::Entry), policy(model, Purpose::Entry));
    let (element, call) = match &model.batch {
        None => (None, call(model, handle)),
        Some(batch) => (Some(element(model, batch)), quote!(())),
    };
    let entry = root.private_at("entry", handle.name.span());
    quote_spanned! {Span::mixed_site()=>
        #(#attributes)*
        #visibility #signature {
            #element
            #setup
            #key
            #entry(vayu_cache, #policy, #call)
        }
    }
}

/// Returns its documentation, and the attributes of the function about `cfg`, lints and deprecation.
fn attributes(model: &Model) -> Vec<TokenStream> {
    let function = model.function.item.sig.ident.to_string();
    let documentation = match &model.batch {
        None => format!(
            "Returns the cache entry of a call of `{function}` with these arguments, to read, refresh, \
             set or invalidate it. Runs nothing until a method of the entry is called."
        ),
        Some(batch) => format!(
            "Returns the cache entry of one element of the `{}` of `{function}`, to read, set or \
             invalidate it. It never runs the function.",
            batch.name
        ),
    };
    let shared = model.function.item.attrs.iter().filter_map(shared);
    let own = quote!(#[doc = #documentation]);
    let is_deprecated =
        model.function.item.attrs.iter().any(|attribute| attribute.path().is_ident("deprecated"));
    // The handle calls the function.
    let allow = is_deprecated.then(|| quote!(#[allow(deprecated)]));
    std::iter::once(own).chain(shared).chain(allow).collect()
}

fn shared(attribute: &Attribute) -> Option<TokenStream> {
    let is = |name: &&str| attribute.path().is_ident(name);
    if is(&"expect") {
        // A lint expected in the function may not fire here.
        let lints = &attribute.meta.require_list().ok()?.tokens;
        return Some(quote!(#[allow(#lints)]));
    }
    let is_shared = ["cfg", "allow", "warn", "deny", "forbid", "deprecated"].iter().any(is);
    is_shared.then(|| attribute.to_token_stream())
}

/// Returns the signature of the function with another name and an `Entry` as output.
fn signature(model: &Model, handle: &Handle) -> Signature {
    let root = &model.root;
    let (entry, query) = (root.item("Entry"), root.private("Query"));
    let signature = &model.function.item.sig;
    let output = output_type(model);
    let (output, call) = match (&model.batch, model.function.kind, &signature.output) {
        (Some(_), ..) => {
            let value = root.private("ElementValue");
            (quote!(<#output as #value>::Value), quote!(()))
        }
        (None, Kind::Sync, _) => {
            let call = quote!(impl ::core::ops::FnOnce() -> #output);
            (output, call)
        }
        // The boxed type itself says whether it is `Send`.
        (None, Kind::Boxed, ReturnType::Type(_, boxed)) => (output, boxed.to_token_stream()),
        _ => {
            let call = quote!(impl ::core::future::Future<Output = #output>);
            (output, call)
        }
    };
    let mut inputs = signature.inputs.clone();
    for input in &mut inputs {
        if let FnArg::Typed(argument) = input
            && let Pat::Ident(name) = &mut *argument.pat
        {
            name.mutability = None;
            if let Some(batch) = &model.batch
                && name.ident == batch.name
            {
                let element = element_type(model, batch);
                argument.ty = parse_quote_spanned!(span_of(&batch.ty)=> #element);
            }
        }
    }
    // The type of another cache is not known.
    let cache = model.cache.is_none().then(|| {
        let (cache, as_cache) = (root.item("MemoryCache"), root.private("AsCache"));
        quote! {
            , Backend = <#cache as #as_cache>::Backend, Serializer = <#cache as #as_cache>::Serializer
        }
    });
    Signature {
        asyncness: None,
        ident: handle.name.clone(),
        inputs,
        output: parse_quote_spanned! {Span::mixed_site()=>
            -> #entry<impl #query<Output = #output #cache>, #call>
        },
        ..signature.clone()
    }
}

/// Generates the reference to an element that the attribute names.
fn element(model: &Model, batch: &Batch) -> TokenStream {
    let name = &batch.name;
    // The key may not have all arguments.
    let names = model.function.arguments.iter().map(|argument| &argument.name);
    quote_spanned! {Span::mixed_site()=>
        #(let _ = &#names;)*
        let #name = &#name;
    }
}

/// Generates the call that the entry runs on a miss or a refresh.
fn call(model: &Model, handle: &Handle) -> TokenStream {
    let signature = &model.function.item.sig;
    let path = path(model, handle);
    let receiver = signature.receiver().map(|receiver| {
        let this = receiver.self_token;
        quote!(#this,)
    });
    let names = model.function.arguments.iter().map(|argument| &argument.name);
    let call = quote!(#path(#receiver #(#names),*));
    let call = match signature.safety {
        Safety::Unsafe(_) => quote!(unsafe { #call }),
        _ => call,
    };
    match model.function.kind {
        Kind::Sync => quote_spanned!(Span::mixed_site()=> move || #call),
        Kind::Async | Kind::Boxed => call,
    }
}
