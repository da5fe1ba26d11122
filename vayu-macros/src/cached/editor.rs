//! Completion and documentation of the names of arguments in an editor.
//!
//! rust-analyzer expands an attribute while it is being written, and completes a name of the user where the expansion
//! has it. So its expansions import the name of each argument from a module that has an item for each. Those of
//! the compiler do not.

use std::env;

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::quote;
use syn::Ident;

use crate::cached::args::KEYWORDS;
use crate::paths::{Root, own_ident};

/// Generates a module for the name of each argument, with its documentation.
pub(crate) fn modules() -> TokenStream {
    let documented = KEYWORDS.iter().filter(|keyword| !keyword.documentation.is_empty());
    let modules = documented.map(|keyword| {
        let (name, lines) = (own_ident(keyword.name, Span::call_site()), keyword.documentation);
        quote!(#(#[doc = #lines])* pub mod #name {})
    });
    quote!(#(#modules)*)
}

/// Returns statements that refer to the names of arguments, known or not, if rust-analyzer expands the attribute.
pub(crate) fn references(names: &[Ident], root: &Root) -> TokenStream {
    if !is_rust_analyzer() {
        return TokenStream::new();
    }
    let arguments = root.private("arguments");
    quote! {
        const _: () = {
            mod arguments {
                use #arguments::*;
                use self::{#(#names as _,)*};
            }
        };
    }
}

/// Returns whether this process is the macro server of rust-analyzer, which refuses to run without this variable.
fn is_rust_analyzer() -> bool {
    env::var_os("RUST_ANALYZER_INTERNALS_DO_NOT_USE").is_some()
}

/// Inserts statements at the start of the body of a function, unless it has inner attributes.
pub(crate) fn insert(statements: TokenStream, function: TokenStream) -> TokenStream {
    let mut tokens: Vec<TokenTree> = function.into_iter().collect();
    if let Some(TokenTree::Group(body)) = tokens.last_mut()
        && !statements.is_empty()
    {
        let mut start = body.stream().into_iter().map(|token| token.to_string());
        if (start.next().as_deref(), start.next().as_deref()) != (Some("#"), Some("!")) {
            let mut inside = statements;
            inside.extend(body.stream());
            let span = body.span();
            *body = Group::new(body.delimiter(), inside);
            body.set_span(span);
        }
    }
    tokens.into_iter().collect()
}
