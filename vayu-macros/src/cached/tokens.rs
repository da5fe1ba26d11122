//! Searches for names in tokens, and the renaming of `self`.

use std::mem;

use proc_macro2::{Delimiter, Group, Literal, Span, TokenStream, TokenTree};
use syn::Ident;
use syn::ext::IdentExt;

use crate::paths::own_ident;

pub(crate) fn mentions(tokens: TokenStream, predicate: &dyn Fn(&Ident) -> bool) -> bool {
    find(tokens, predicate).is_some()
}

/// Returns the first identifier that a predicate accepts.
pub(crate) fn find(tokens: TokenStream, predicate: &dyn Fn(&Ident) -> bool) -> Option<Ident> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(name) => predicate(&name).then_some(name),
        TokenTree::Group(group) => find(group.stream(), predicate),
        _ => None,
    })
}

/// Returns whether tokens contain a name, other than that of a field or method, or a string has it as an inline
/// argument.
pub(crate) fn names_value(tokens: TokenStream, name: &Ident) -> bool {
    find_value(tokens, name).is_some()
}

/// Returns the first use of a name as [`names_value`] finds it: the name, or the string.
pub(crate) fn find_value(tokens: TokenStream, name: &Ident) -> Option<TokenTree> {
    let mut dots = 0;
    tokens.into_iter().find_map(|token| {
        let is_dot = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '.');
        // Two dots are a range.
        let is_member = dots == 1;
        dots = if is_dot { dots + 1 } else { 0 };
        match token {
            TokenTree::Ident(other) => (!is_member && other == *name).then(|| other.into()),
            TokenTree::Group(group) => find_value(group.stream(), name),
            TokenTree::Literal(literal) => {
                names_inline(&literal, &name.unraw().to_string()).then(|| literal.into())
            }
            TokenTree::Punct(_) => None,
        }
    })
}

/// Returns whether a string literal contains a name as an inline argument of `format!`.
pub(crate) fn names_inline(literal: &Literal, name: &str) -> bool {
    // Two braces are one that is printed.
    let literal = literal.to_string().replace("{{", "");
    [format!("{{{name}}}"), format!("{{{name}:")].iter().any(|part| literal.contains(part))
}

pub(crate) fn this(span: Span) -> Ident {
    own_ident("vayu_this", span)
}

/// Renames `self` where it is a value: not in a path, an import, a visibility, or an `impl` in the body. Sets `inline` to the
/// first string in a macro that has it as an inline argument, which stays as it is.
pub(crate) fn rename_self(tokens: TokenStream, inline: &mut Option<Literal>) -> TokenStream {
    rename_self_in(tokens, false, inline)
}

fn rename_self_in(
    tokens: TokenStream,
    is_in_macro: bool,
    inline: &mut Option<Literal>,
) -> TokenStream {
    let mut is_macro = false;
    let mut renamed = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    // The delimiter or punctuation up to which tokens stay as they are.
    let mut kept: Option<End> = None;
    while let Some(token) = tokens.next() {
        if let Some(end) = &kept {
            if end.is(&token) {
                kept = None;
            }
            renamed.push(token);
            continue;
        }
        let is_after_macro = mem::replace(
            &mut is_macro,
            matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '!'),
        );
        match token {
            TokenTree::Ident(name) if name == "self" => {
                let is_path = matches!(tokens.peek(), Some(TokenTree::Punct(colon)) if colon.as_char() == ':');
                renamed.push(TokenTree::Ident(if is_path {
                    name
                } else {
                    this(Span::mixed_site().located_at(name.span()))
                }));
            }
            TokenTree::Ident(name) => {
                kept = match name.to_string().as_str() {
                    "impl" | "trait" => Some(End::Group(Delimiter::Brace)),
                    "pub" => matches!(tokens.peek(), Some(TokenTree::Group(_)))
                        .then_some(End::Group(Delimiter::Parenthesis)),
                    "use" => Some(End::Semicolon),
                    _ => None,
                };
                renamed.push(name.into());
            }
            TokenTree::Group(group) => {
                let stream = rename_self_in(group.stream(), is_in_macro || is_after_macro, inline);
                let mut inner = Group::new(group.delimiter(), stream);
                inner.set_span(group.span());
                renamed.push(inner.into());
            }
            TokenTree::Literal(literal) => {
                if is_in_macro && names_inline(&literal, "self") {
                    inline.get_or_insert_with(|| literal.clone());
                }
                renamed.push(literal.into());
            }
            punct @ TokenTree::Punct(_) => renamed.push(punct),
        }
    }
    renamed.into_iter().collect()
}

enum End {
    Group(Delimiter),
    Semicolon,
}

impl End {
    fn is(&self, token: &TokenTree) -> bool {
        match (self, token) {
            (Self::Group(delimiter), TokenTree::Group(group)) => group.delimiter() == *delimiter,
            (Self::Semicolon, TokenTree::Punct(punct)) => punct.as_char() == ';',
            _ => false,
        }
    }
}
