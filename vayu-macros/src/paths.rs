//! Paths, identifiers and spans of generated code.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, Path};

/// Creates an identifier of generated code. Identifiers of the user are cloned instead: `Ident::new` panics
/// on the string of a raw one, such as `r#match`.
#[expect(clippy::disallowed_methods, reason = "the only use; called with literals")]
pub(crate) fn own_ident(name: &str, span: Span) -> Ident {
    Ident::new(name, span)
}

/// Returns a span for generated code: errors are reported at `tokens`, and names stay hygienic.
pub(crate) fn span_of(tokens: impl ToTokens) -> Span {
    Span::mixed_site().located_at(tokens.span())
}

/// The path of the crate `vayu` where the attribute is used.
#[derive(Debug)]
pub(crate) struct Root {
    path: TokenStream,
    is_renamed: bool,
}

impl Root {
    pub(crate) fn new(renamed: Option<&Path>) -> Self {
        let path = renamed.map_or_else(|| quote!(::vayu), ToTokens::to_token_stream);
        Self { path, is_renamed: renamed.is_some() }
    }

    /// Returns the path of a public item.
    pub(crate) fn item(&self, name: &str) -> TokenStream {
        let (root, name) = (&self.path, own_ident(name, Span::call_site()));
        quote!(#root::#name)
    }

    /// Returns the path of an item that only generated code uses.
    pub(crate) fn private(&self, name: &str) -> TokenStream {
        self.private_at(name, Span::call_site())
    }

    /// Like `private`; type errors of the item are reported at `span`. If that of the whole path and that of
    /// an argument are the same, the compiler reports an error about both once.
    pub(crate) fn private_at(&self, name: &str, span: Span) -> TokenStream {
        let name = own_ident(name, span);
        let root = self.path.clone().into_iter().map(|mut token| {
            let is_own = !self.is_renamed;
            token.set_span(if is_own { span } else { token.span().located_at(span) });
            token
        });
        let root: TokenStream = root.collect();
        quote_spanned!(span=> #root::attribute::#name)
    }
}
