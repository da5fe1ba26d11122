//! The paths that expansions name.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Ident, Path};

/// An identifier of ours. Those of the user are cloned, and never made of text: `r#match` is not a text of
/// which an identifier can be made.
#[expect(clippy::disallowed_methods, reason = "the one place: its texts are ours")]
pub(crate) fn ours(name: &str, span: Span) -> Ident {
    Ident::new(name, span)
}

/// The path of the crate `vayu` where the attribute is used.
#[derive(Debug)]
pub(crate) struct Root(TokenStream);

impl Root {
    pub(crate) fn new(renamed: Option<&Path>) -> Self {
        Self(renamed.map_or_else(|| quote!(::vayu), ToTokens::to_token_stream))
    }

    pub(crate) fn item(&self, name: &str) -> TokenStream {
        let (root, name) = (&self.0, ours(name, Span::call_site()));
        quote!(#root::#name)
    }

    /// What only expansions name.
    pub(crate) fn private(&self, name: &str) -> TokenStream {
        self.private_at(name, Span::call_site())
    }

    /// The same; what is wrong with it is told at `span`.
    pub(crate) fn private_at(&self, name: &str, span: Span) -> TokenStream {
        let name = ours(name, span);
        let root = self.0.clone().into_iter().map(|mut token| {
            token.set_span(token.span().located_at(span));
            token
        });
        let root: TokenStream = root.collect();
        quote_spanned!(span=> #root::__private::#name)
    }
}
