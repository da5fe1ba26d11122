//! The copies of borrowed arguments for a run in the background.
//!
//! The body is a closure with these arguments as its parameters. A run in the caller lends it the arguments as they are, one in
//! the background lends it the copies. `self` is another name there.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{FnArg, Pat, Signature};

use crate::cached::model::Model;
use crate::cached::model::own::Owned;
use crate::cached::tokens::{rename_self, this};
use crate::paths::{own_ident, span_of};

/// Generates the parameters of the body.
pub(crate) fn parameters(model: &Model) -> TokenStream {
    let parameters = model.own.iter().map(|owned| match owned {
        Owned::This => {
            let this = this(Span::mixed_site());
            quote!(#this: &Self)
        }
        Owned::Argument { name, pointee, .. } => {
            let mutability = is_mutable(model, name).then(|| quote!(mut));
            quote_spanned!(span_of(pointee)=> #mutability #name: &#pointee)
        }
    });
    quote!(#(#parameters),*)
}

/// Returns the signature without `mut` on the parameters of the body, which has it there.
pub(crate) fn signature(model: &Model, mut signature: Signature) -> Signature {
    for input in &mut signature.inputs {
        if let FnArg::Typed(typed) = input
            && let Pat::Ident(pattern) = &mut *typed.pat
            && model.own.iter().any(|owned| owned.is(&pattern.ident))
        {
            pattern.mutability = None;
        }
    }
    signature
}

/// Returns whether the function binds an argument as `mut`.
fn is_mutable(model: &Model, name: &Ident) -> bool {
    model.function.item.sig.inputs.iter().any(|input| match input {
        FnArg::Typed(typed) => {
            matches!(&*typed.pat, Pat::Ident(pattern) if pattern.ident == *name && pattern.mutability.is_some())
        }
        FnArg::Receiver(_) => false,
    })
}

/// Generates the arguments of the body for a run in the caller.
pub(crate) fn borrowed(model: &Model) -> TokenStream {
    let receiver = model.function.item.sig.receiver().map(|receiver| receiver.self_token);
    let arguments = model.own.iter().map(|owned| match owned {
        Owned::This => receiver.to_token_stream(),
        Owned::Argument { name, .. } => name.to_token_stream(),
    });
    quote!(#(#arguments),*)
}

/// Generates the copies, and the arguments of the body for a run that has them.
pub(crate) fn copies(model: &Model) -> (TokenStream, TokenStream) {
    let receiver = model.function.item.sig.receiver().map(|receiver| receiver.self_token);
    let copies = model.own.iter().enumerate().map(|(index, owned)| {
        let (argument, pointee) = match owned {
            Owned::This => (receiver.to_token_stream(), quote!(Self)),
            Owned::Argument { name, pointee, .. } => {
                (name.to_token_stream(), pointee.to_token_stream())
            }
        };
        let span = match owned {
            Owned::This => receiver.map_or_else(Span::mixed_site, |receiver| receiver.span),
            Owned::Argument { pointee, .. } => span_of(pointee),
        };
        let copied = model.root.private_at("OwnedCopy", span);
        let copy = own_ident(&format!("vayu_copy_{index}"), Span::mixed_site());
        (
            quote_spanned!(span=> let #copy = <#pointee as #copied>::owned_copy(#argument);),
            quote_spanned!(span=> <#pointee as #copied>::lend(&#copy)),
        )
    });
    let (copies, lent): (Vec<_>, Vec<_>) = copies.unzip();
    (quote!(#(#copies)*), quote!(#(#lent),*))
}

/// Generates the copies for a body that may run several times.
///
/// Returns the statements that make them, those that make copies of them, and those that give the arguments their names.
pub(crate) fn of_batch(model: &Model) -> [TokenStream; 3] {
    let (copies, _) = copies(model);
    let parts = model.own.iter().enumerate().map(|(index, owned)| {
        let copy = own_ident(&format!("vayu_copy_{index}"), Span::mixed_site());
        let again =
            quote_spanned!(Span::mixed_site()=> let #copy = ::core::clone::Clone::clone(&#copy););
        let owned_copy = model.root.private("OwnedCopy");
        let bound = match owned {
            Owned::This => {
                let this = this(Span::mixed_site());
                quote_spanned!(Span::mixed_site()=> let #this = <Self as #owned_copy>::lend(&#copy);)
            }
            Owned::Argument { name, pointee, .. } => {
                let mutability = is_mutable(model, name).then(|| quote!(mut));
                quote_spanned! {span_of(pointee)=>
                    let #mutability #name = <#pointee as #owned_copy>::lend(&#copy);
                }
            }
        };
        (again, bound)
    });
    let (again, bound): (Vec<_>, Vec<_>) = parts.unzip();
    [copies, quote!(#(#again)*), quote!(#(#bound)*)]
}

/// Generates the statements of the body.
pub(crate) fn statements(model: &Model) -> TokenStream {
    let statements = &model.function.item.block.stmts;
    let statements = in_body(model, quote!(#(#statements)*));
    // The body may not use it.
    let this = renames_self(model).then(|| {
        let this = this(Span::mixed_site());
        quote!(let _ = #this;)
    });
    quote!(#this #statements)
}

/// Returns code of the user as it is in the body.
pub(crate) fn in_body(model: &Model, code: TokenStream) -> TokenStream {
    if renames_self(model) { rename_self(code, &mut None) } else { code }
}

fn renames_self(model: &Model) -> bool {
    model.own.iter().any(|owned| matches!(owned, Owned::This))
}
