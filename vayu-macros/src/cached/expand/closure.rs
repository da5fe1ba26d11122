//! Closures on the value: `ttl = |value| ..`, `expires_at = ..` and `cache_if = |value| ..`, and on the error:
//! `err_ttl = |error| ..`.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::ext::IdentExt;
use syn::{ExprClosure, Ident, Token, Type};

use crate::cached::expand::purpose::Purpose;
use crate::cached::function::{Argument, Kind};
use crate::cached::model::Model;
use crate::cached::tokens::{names_inline, names_value};
use crate::cached::types::{only_argument, peel};
use crate::paths::span_of;

/// Generates a closure on the value. It gets clones of the arguments that it names and that are moved while it
/// exists: by the call of an entry, or by a body that is async or may move to another thread, which is created before
/// the closure is called. One that outlives the variables owns what it captures.
pub(crate) fn closure_on_value(
    model: &Model,
    closure: &ExprClosure,
    purpose: Purpose,
) -> TokenStream {
    let mut closure = closure.clone();
    let span = span_of(&closure);
    let clones = clones(model, &closure, purpose);
    if !matches!(purpose, Purpose::Call | Purpose::Batch) || !clones.is_empty() {
        closure.capture.get_or_insert(Token![move](span));
    }
    if clones.is_empty() {
        return closure.to_token_stream();
    }
    quote_spanned!(span=> { #(#clones)* #closure })
}

/// Generates clones of the arguments that a closure on the value names, if it needs them.
fn clones(model: &Model, closure: &ExprClosure, purpose: Purpose) -> Vec<TokenStream> {
    let function = &model.function;
    let body = closure.body.to_token_stream();
    let parameters = closure.inputs.to_token_stream();
    let is_captured =
        |name: &Ident| names_value(body.clone(), name) && !names_value(parameters.clone(), name);
    let captured = function.arguments.iter().flat_map(|argument| {
        argument.names().filter(|name| is_captured(name)).map(move |name| (argument, name))
    });
    if matches!(purpose, Purpose::Entry | Purpose::BatchTask) {
        let clone = |(argument, name): (&Argument, &Ident)| match argument.pattern {
            None => clone_of(argument, name),
            // The names of a pattern are references here, unless they are `Copy`.
            Some(_) => quote_spanned!(span_of(name)=> let #name = #name.clone();),
        };
        return captured.map(clone).collect();
    }
    if function.kind == Kind::Sync && purpose != Purpose::Task || purpose == Purpose::Batch {
        // The body of a batch borrows the arguments. A sync body takes only what it moves, which the compiler knows:
        // a clone might be one too many.
        return Vec::new();
    }
    let captured: Vec<(&Argument, &Ident)> = captured
        .filter(|(argument, _)| !matches!(peel(&argument.ty), Type::Reference(_)))
        .collect();
    let statements = function.item.block.to_token_stream();
    // Such a body moves the fields that it names, so it may use other fields than the closure. It moves a pointer
    // as a whole.
    let is_pointer =
        |ty: &Type| ["Arc", "Rc", "Box"].iter().any(|name| only_argument(ty, name).is_some());
    let is_moved = |(argument, name): &(&Argument, &Ident)| {
        let has_own_fields = !is_pointer(&argument.ty)
            && names_fields_only(&body, name)
            && names_fields_only(&statements, name);
        names_value(statements.clone(), name) && !has_own_fields
    };
    if !captured.iter().any(is_moved) {
        return Vec::new();
    }
    // The closure owns all that it captures, and what follows may use the other arguments.
    captured.into_iter().map(|(argument, name)| clone_of(argument, name)).collect()
}

fn clone_of(argument: &Argument, name: &Ident) -> TokenStream {
    let conditions = &argument.conditions;
    quote_spanned! {span_of(name)=>
        #(#conditions)*
        let #name = ::core::clone::Clone::clone(&#name);
    }
}

/// Returns whether tokens use a variable by its fields only.
fn names_fields_only(tokens: &TokenStream, name: &Ident) -> bool {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let is_dot = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == '.');
    tokens.iter().enumerate().all(|(index, token)| match token {
        TokenTree::Group(group) => names_fields_only(&group.stream(), name),
        TokenTree::Literal(literal) => !names_inline(literal, &name.unraw().to_string()),
        TokenTree::Ident(other) if other == name => {
            let follows = is_dot(tokens.get(index + 1));
            let is_call = match tokens.get(index + 3) {
                Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Parenthesis,
                Some(TokenTree::Punct(punct)) => punct.as_char() == ':',
                _ => false,
            };
            let is_field = match tokens.get(index + 2) {
                Some(TokenTree::Ident(field)) => field != "await" && !is_call,
                Some(TokenTree::Literal(_)) => true,
                _ => false,
            };
            follows && is_field
        }
        _ => true,
    })
}
