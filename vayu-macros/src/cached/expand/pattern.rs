//! Code that binds the names of patterns.
//!
//! A call destructures the argument by value, before the first expression of the attribute that may use one
//! of its names. A handle needs the whole argument for the call itself, and a closure for `key` receives it,
//! so there the names are bound by reference, and values that are `Copy` are copied.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Ident, Pat, PatIdent, PatReference, parse_quote};

use crate::cached::function::Argument;
use crate::cached::function::binding::{Binding, has_modifiers, is_underscored, may_be_a_path};
use crate::paths::{Root, own_ident};

/// Generates the statements that destructure an argument by value.
pub(crate) fn by_value(argument: &Argument) -> Option<TokenStream> {
    let (pattern, name) = (argument.pattern.as_ref()?, &argument.name);
    let conditions = &argument.conditions;
    let needs_mut = |binding: &Binding| binding.modifier.as_ref().is_some_and(|m| m.needs_mut);
    let mutable = argument
        .bindings
        .iter()
        .any(needs_mut)
        .then(|| quote!(#(#conditions)* let mut #name = #name;));
    let binding = assign(pattern, name);
    Some(quote!(#mutable #(#conditions)* #binding))
}

/// Generates a statement that destructures a value. A lone name is bound in a tuple: a lint asks to remove
/// `let _name = value;`.
fn assign(pattern: &Pat, name: &Ident) -> TokenStream {
    match pattern {
        Pat::Ident(PatIdent { subpat: None, .. }) => quote!(let (#pattern,) = (#name,);),
        _ => quote!(let #pattern = #name;),
    }
}

/// Like [`by_value`] for a body that owns the arguments: the first statements bind by value, and the
/// second, which belong at the start of the body, create the references.
pub(crate) fn owned(argument: &Argument) -> Option<(TokenStream, TokenStream)> {
    let (mut pattern, name) = (argument.pattern.clone()?, &argument.name);
    let conditions = &argument.conditions;
    remove_modifiers(&mut pattern);
    let references = argument.bindings.iter().filter_map(|binding| {
        let (name, modifier) = (&binding.name, binding.modifier.as_ref()?);
        let mutability = modifier.needs_mut.then(|| quote!(mut));
        let reference = quote! {
            #(#conditions)* let #mutability #name = #name;
            #(#conditions)* let ref #mutability #name = #name;
        };
        modifier.is_removable.then_some(reference)
    });
    let binding = assign(&pattern, name);
    Some((quote!(#(#conditions)* #binding), quote!(#(#references)*)))
}

/// Generates the statements that bind the names of an argument by reference, without moving it. `is_used` says
/// whether the attribute may use a name that starts with `_`, which is not to be used without need.
pub(crate) fn by_reference(
    argument: &Argument,
    is_used: impl Fn(&Ident) -> bool,
    root: &Root,
) -> Option<TokenStream> {
    let (pattern, name) = (&without_macros(argument.pattern.as_ref()?), &argument.name);
    let conditions = &argument.conditions;
    let is_lone = matches!(pattern, Pat::Ident(PatIdent { subpat: None, .. }));
    if is_lone && argument.names().any(|name| is_underscored(name) && !is_used(name)) {
        return None;
    }
    let mut rewrite = ExplicitRefs::default();
    let taken = if is_lone {
        let names = argument.names();
        quote!(#(#conditions)* let (#(#names),*,) = (&#name,);)
    } else if has_modifiers(pattern) {
        let pattern = rewrite.explicit(pattern, true);
        quote!(#(#conditions)* let #pattern = #name;)
    } else {
        quote!(#(#conditions)* let #pattern = &#name;)
    };
    let parts =
        rewrite.parts.iter().map(|(name, pattern)| quote!(#(#conditions)* let #pattern = #name;));
    let (bound, trait_name) = (root.private("Bound"), root.private("BoundByReference"));
    let names = argument
        .bindings
        .iter()
        .filter(|binding| !may_be_a_path(&binding.name))
        .filter(|binding| !is_underscored(&binding.name) || is_used(&binding.name));
    let copies = names.map(|binding| {
        let name = &binding.name;
        let copy = (!binding.is_reference).then(|| {
            quote_spanned! {Span::mixed_site()=>
                #(#conditions)*
                let #name = {
                    use #trait_name as _;
                    #bound(#name).vayu_bound()
                };
            }
        });
        // The attribute may use the name or not.
        quote!(#copy #(#conditions)* let _ = &#name;)
    });
    Some(quote!(#taken #(#parts)* #(#copies)*))
}

/// Replaces each macro in a pattern with `_`: the names that it binds are unknown, so nothing uses them.
fn without_macros(pattern: &Pat) -> Pat {
    fn remove(pattern: &mut Pat) {
        if matches!(pattern, Pat::Macro(_)) {
            *pattern = parse_quote!(_);
        }
        parts(pattern).into_iter().for_each(remove);
    }
    let mut pattern = pattern.clone();
    remove(&mut pattern);
    pattern
}

/// Returns the patterns that a pattern consists of.
fn parts(pattern: &mut Pat) -> Vec<&mut Pat> {
    match pattern {
        Pat::Ident(binding) => {
            binding.subpat.as_mut().map(|(_, part)| &mut **part).into_iter().collect()
        }
        Pat::Paren(paren) => vec![&mut paren.pat],
        Pat::Reference(reference) => vec![&mut reference.pat],
        Pat::Or(or) => or.cases.iter_mut().collect(),
        Pat::Tuple(tuple) => tuple.elems.iter_mut().collect(),
        Pat::TupleStruct(tuple) => tuple.elems.iter_mut().collect(),
        Pat::Slice(slice) => slice.elems.iter_mut().collect(),
        Pat::Struct(fields) => fields.fields.iter_mut().map(|field| &mut *field.pat).collect(),
        _ => Vec::new(),
    }
}

/// Rewrites a pattern so that all of its names are bound with `ref`.
#[derive(Default)]
struct ExplicitRefs {
    /// Parts that are bound as a whole, to be destructured by a later statement.
    parts: Vec<(Ident, Pat)>,
}

impl ExplicitRefs {
    /// Rewrites a pattern. `may_split` is false in the cases of an `|` pattern, which must bind the same
    /// names.
    fn explicit(&mut self, pattern: &Pat, may_split: bool) -> TokenStream {
        match pattern {
            Pat::Ident(binding) => self.name(binding, may_split),
            Pat::Wild(_)
            | Pat::Rest(_)
            | Pat::Lit(_)
            | Pat::Path(_)
            | Pat::Range(_)
            | Pat::Const(_) => pattern.to_token_stream(),
            _ if may_split && !has_modifiers(pattern) => {
                let name =
                    own_ident(&format!("vayu_part_{}", self.parts.len()), Span::mixed_site());
                self.parts.push((name.clone(), pattern.clone()));
                quote!(ref #name)
            }
            Pat::Paren(paren) => {
                let inner = self.explicit(&paren.pat, may_split);
                quote!((#inner))
            }
            Pat::Or(or) => {
                let cases: Vec<_> =
                    or.cases.iter().map(|case| self.explicit(case, false)).collect();
                quote!(#(#cases)|*)
            }
            Pat::Reference(PatReference { and_token, mutability, pat, .. }) => {
                let inner = self.explicit(pat, may_split);
                quote!(#and_token #mutability #inner)
            }
            Pat::Tuple(tuple) => {
                let parts: Vec<_> =
                    tuple.elems.iter().map(|part| self.explicit(part, may_split)).collect();
                quote!((#(#parts,)*))
            }
            Pat::TupleStruct(tuple) => {
                let path = &tuple.path;
                let parts = tuple.elems.iter().map(|part| self.explicit(part, may_split));
                let parts: Vec<_> = parts.collect();
                quote!(#path(#(#parts),*))
            }
            Pat::Slice(slice) => {
                let parts = slice.elems.iter().map(|part| self.explicit(part, may_split));
                let parts: Vec<_> = parts.collect();
                quote!([#(#parts),*])
            }
            Pat::Struct(fields) => {
                let (path, rest) = (&fields.path, &fields.rest);
                let parts = fields.fields.iter().map(|field| {
                    let attributes = &field.attrs;
                    let member = field.colon_token.map(|colon| {
                        let member = &field.member;
                        quote!(#member #colon)
                    });
                    let part = self.explicit(&field.pat, may_split);
                    quote!(#(#attributes)* #member #part)
                });
                let parts: Vec<_> = parts.collect();
                quote!(#path { #(#parts,)* #rest })
            }
            other => other.to_token_stream(),
        }
    }

    fn name(&mut self, binding: &PatIdent, may_split: bool) -> TokenStream {
        let name = &binding.ident;
        if may_be_a_path(name)
            && binding.by_ref.is_none()
            && binding.mutability.is_none()
            && binding.subpat.is_none()
        {
            return name.to_token_stream();
        }
        let part = binding.subpat.as_ref().map(|(at, part)| {
            let part = self.explicit(part, may_split);
            quote!(#at #part)
        });
        quote!(ref #name #part)
    }
}

/// Removes each `ref` that the walk over its bindings found removable.
fn remove_modifiers(pattern: &mut Pat) {
    match pattern {
        Pat::Ident(binding) if binding.subpat.is_none() && binding.by_ref.is_some() => {
            (binding.by_ref, binding.mutability) = (None, None);
        }
        Pat::Ident(_) | Pat::Reference(_) => {}
        pattern => parts(pattern).into_iter().for_each(remove_modifiers),
    }
}
