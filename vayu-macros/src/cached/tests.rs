//! Messages and expansions, from tokens to tokens.

mod args;
mod expand;
mod function;
mod model;

use proc_macro2::TokenStream;
use quote::quote;

use crate::cached::Attribute;
use crate::cached::args::Arguments;
use crate::cached::function::Function;
use crate::cached::model::Model;
use crate::diagnostics::Diagnostics;

/// Returns the messages for an attribute on a function.
fn messages(arguments: TokenStream, item: &TokenStream) -> Vec<String> {
    messages_by(Attribute::Cached, arguments, item)
}

fn messages_by(attribute: Attribute, arguments: TokenStream, item: &TokenStream) -> Vec<String> {
    let mut diagnostics = Diagnostics::default();
    let arguments = Arguments::parse(attribute, arguments, &mut diagnostics);
    if let Some(function) = Function::parse(attribute, item, &mut diagnostics) {
        Model::new(arguments, function, &mut diagnostics);
    }
    diagnostics.messages()
}

/// Like `messages`, parsed from strings: `quote!` rejects literals with unknown suffixes.
fn messages_of(arguments: &str, item: &str) -> Vec<String> {
    messages(arguments.parse().unwrap(), &item.parse().unwrap())
}

fn function() -> TokenStream {
    quote! { fn call(a: u8, b: &str) -> u8 { a } }
}
