//! The companion of a function: the same arguments, for the entry of the call.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Attribute, FnArg, Pat, ReturnType, Safety, Signature, parse_quote_spanned};

use crate::cached::function::Kind;
use crate::cached::model::{Handle, Model};
use crate::cached::setup::{Purpose, answer, finish_key, path, policy, setup};

pub(super) fn expand(model: &Model, handle: &Handle) -> TokenStream {
    let item = &model.function.item;
    let root = &model.root;
    let (attributes, visibility) = (attributes(model), &item.vis);
    let signature = signature(model, handle);
    let setup = setup(model, Purpose::Entry);
    let (key, policy, call) =
        (finish_key(model, Purpose::Entry), policy(model), call(model, handle));
    let entry = root.private_at("entry", handle.name.span());
    quote_spanned! {Span::mixed_site()=>
        #(#attributes)*
        #visibility #signature {
            #setup
            #key
            #entry(vayu_cache, #policy, &vayu_probe, #call)
        }
    }
}

/// Its documentation, and those of the function that decide whether it is there and what it is
/// warned of.
fn attributes(model: &Model) -> Vec<TokenStream> {
    let function = model.function.item.sig.ident.to_string();
    let documentation = format!(
        "The entry of the call of `{function}` with these arguments: what is remembered of it, and \
         ways to renew or forget that. Nothing runs until the entry is asked."
    );
    let shared = model.function.item.attrs.iter().filter_map(shared);
    // That the call uses an argument does not mean that the body does.
    let ours = quote! {
        #[doc = #documentation]
        #[allow(clippy::used_underscore_binding)]
    };
    std::iter::once(ours).chain(shared).collect()
}

fn shared(attribute: &Attribute) -> Option<TokenStream> {
    let is = |name: &&str| attribute.path().is_ident(name);
    if is(&"expect") {
        // What is expected of the function need not come true here.
        let lints = &attribute.meta.require_list().ok()?.tokens;
        return Some(quote!(#[allow(#lints)]));
    }
    let is_shared = ["cfg", "allow", "warn", "deny", "forbid", "deprecated"].iter().any(is);
    is_shared.then(|| attribute.to_token_stream())
}

/// That of the function, with another name and an entry for an answer.
fn signature(model: &Model, handle: &Handle) -> Signature {
    let root = &model.root;
    let (entry, query) = (root.item("Entry"), root.private("Query"));
    let signature = &model.function.item.sig;
    let answer = answer(model);
    let call = match (model.function.kind, &signature.output) {
        (Kind::Sync, _) => quote!(impl ::core::ops::FnOnce() -> #answer),
        // A box says itself who may be sent where.
        (Kind::Boxed, ReturnType::Type(_, boxed)) => boxed.to_token_stream(),
        _ => quote!(impl ::core::future::Future<Output = #answer>),
    };
    let mut inputs = signature.inputs.clone();
    for input in &mut inputs {
        if let FnArg::Typed(argument) = input
            && let Pat::Ident(name) = &mut *argument.pat
        {
            name.mutability = None;
        }
    }
    Signature {
        asyncness: None,
        ident: handle.name.clone(),
        inputs,
        output: parse_quote_spanned! {Span::mixed_site()=>
            -> #entry<impl #query<Answer = #answer>, #call>
        },
        ..signature.clone()
    }
}

/// The call itself, which runs when the entry says so.
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
