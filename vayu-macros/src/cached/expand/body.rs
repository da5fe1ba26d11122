//! The body of the function, as a closure or a future.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ReturnType;

use crate::cached::expand::shape::output_type;
use crate::cached::expand::{own, pattern};
use crate::cached::function::Kind;
use crate::cached::model::Model;
use crate::paths::{Root, span_of};

/// Generates the body as a closure or a future.
pub(crate) fn body(model: &Model) -> TokenStream {
    let function = &model.function;
    let output = output_type(model);
    // With `spawn` the body owns the arguments, so a `ref` of a pattern moves into it.
    let references = function.arguments.iter().filter_map(|argument| match model.options.spawn {
        Some(_) => pattern::owned(argument).map(|(_, references)| references),
        None => None,
    });
    let boxed_references = quote!(#(#references)*);
    let check = revalidation(model);
    let references = quote!(#boxed_references #check);
    let (parameters, statements) = (own::parameters(model), own::statements(model));
    match function.kind {
        Kind::Sync => {
            let capture = model.options.spawn.as_ref().map(|_| quote!(move));
            quote_spanned! {Span::mixed_site()=>
                let vayu_body = #capture |#parameters| -> #output {
                    #references
                    #statements
                };
            }
        }
        Kind::Async if !model.own.is_empty() => quote_spanned! {Span::mixed_site()=>
            let vayu_body = async move |#parameters| -> #output {
                #references
                #statements
            };
        },
        Kind::Async => {
            let body = async_body(model, &references);
            if model.options.spawn.is_some() {
                quote_spanned!(Span::mixed_site()=> let vayu_body = #body;)
            } else {
                quote_spanned!(Span::mixed_site()=> let vayu_body = ::core::pin::pin!(#body);)
            }
        }
        Kind::Boxed => {
            let boxed = match &function.item.sig.output {
                ReturnType::Type(_, boxed) => boxed.to_token_stream(),
                ReturnType::Default => quote!(()),
            };
            quote_spanned! {Span::mixed_site()=>
                let vayu_body = ::core::pin::pin!(async move {
                    #check
                    let vayu_future: #boxed = {
                        #boxed_references
                        #statements
                    };
                    vayu_future.await
                });
            }
        }
    }
}

/// Generates the future of an async body, with `first` at its start.
pub(crate) fn async_body(model: &Model, first: &TokenStream) -> TokenStream {
    let statements = own::statements(model);
    typed_async_block(&output_type(model), &model.root, first, &statements)
}

/// Generates an async block with this output, with `first` at its start. The `None` fixes the output type for `return`
/// and `?`. A body that ends with `return` would make what follows it unreachable, which is a warning in the code of the
/// user; after an `if` it is not.
pub(crate) fn typed_async_block(
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

/// Generates the start of a body that does not run if a function says that the old value is unchanged.
fn revalidation(model: &Model) -> Option<TokenStream> {
    let (_, check) = model.options.revalidate.as_ref()?;
    let check = own::in_body(model, check.to_token_stream());
    if check.is_empty() {
        return None;
    }
    let span = span_of(&check);
    let previous_of = model.root.private_at("previous_of", span);
    let unchanged = model.root.private_at("unchanged", span);
    let names = model.function.arguments.iter().map(|argument| &argument.name);
    let wait = (model.function.kind != Kind::Sync).then(|| quote!(.await));
    Some(quote_spanned! {span=>
        if let ::core::option::Option::Some(vayu_old) = #previous_of(vayu_shape) {
            if (#check)(&*vayu_old, #(&#names),*) #wait {
                return #unchanged(vayu_shape, vayu_old);
            }
        }
    })
}
