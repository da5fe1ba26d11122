//! The function under the attribute, and whether it can be cached at all.

use proc_macro2::{Span, TokenStream};
use syn::visit::{self, Visit};
use syn::{
    FnArg, GenericArgument, Ident, ItemFn, Lifetime, ParenthesizedGenericArguments, Pat, PatIdent,
    PatType, PathArguments, ReturnType, TraitItemFn, Type, TypeFnPtr, TypeImplTrait,
    TypeParamBound, TypeReference,
};

use crate::cached::Attribute;
use crate::diagnostics::Mistakes;

pub(crate) struct Function {
    /// With a plain name for each argument.
    pub(crate) item: ItemFn,
    /// Without the receiver.
    pub(crate) arguments: Vec<Argument>,
    pub(crate) kind: Kind,
    /// What the body answers in the end; nothing for `()`.
    pub(crate) answer: Option<Type>,
}

pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    /// The names that the user gave to it, or to its parts.
    pub(crate) bindings: Vec<Ident>,
    /// What the body takes it apart with, where it is more than a name.
    pub(crate) pattern: Option<Pat>,
    /// The `#[cfg(..)]` on it.
    pub(crate) conditions: Vec<syn::Attribute>,
}

impl Argument {
    /// Whether the body can see it.
    pub(crate) fn is_visible(&self) -> bool {
        !self.bindings.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sync,
    Async,
    /// A function that answers a boxed future, as `#[async_trait]` makes it.
    Boxed,
}

/// The function, unless the item is none.
pub(crate) fn parse(
    attribute: Attribute,
    item: &TokenStream,
    mistakes: &mut Mistakes,
) -> Option<Function> {
    let mut item: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            mistakes.push(no_function(attribute, item));
            return None;
        }
    };
    refuse_signature(&item, mistakes);
    let written = match &item.sig.output {
        ReturnType::Default => None,
        ReturnType::Type(_, ty) => Some((**ty).clone()),
    };
    let boxed = written.as_ref().and_then(output_of_boxed_future);
    let kind = match (&boxed, item.sig.asyncness) {
        (Some(_), None) => Kind::Boxed,
        (_, Some(_)) => Kind::Async,
        (None, None) => Kind::Sync,
    };
    let answer = if kind == Kind::Boxed { boxed } else { written };
    if let Some(answer) = &answer {
        refuse_answer(answer, mistakes);
    }
    let mut arguments = Vec::new();
    for argument in &mut item.sig.inputs {
        if let FnArg::Typed(typed) = argument {
            arguments.push(name_argument(arguments.len(), typed));
        }
    }
    Some(Function { item, arguments, kind, answer })
}

fn no_function(attribute: Attribute, item: &TokenStream) -> syn::Error {
    let name = attribute.name();
    match syn::parse2::<TraitItemFn>(item.clone()) {
        Ok(declaration) => syn::Error::new_spanned(
            declaration.sig,
            format!(
                "a function without a body has nothing to remember; put `#[{name}]` on the \
                     implementations"
            ),
        ),
        Err(_) => {
            let message = format!("`#[{name}]` goes on a function or a method");
            let first = item.clone().into_iter().next();
            syn::Error::new(first.map_or_else(Span::call_site, |token| token.span()), message)
        }
    }
}

fn refuse_signature(item: &ItemFn, mistakes: &mut Mistakes) {
    let signature = &item.sig;
    if let Some(constness) = &signature.constness {
        mistakes.add(constness, "a `const fn` cannot use a cache; remove `const`");
    }
    if let Some(abi) = &signature.abi {
        let message = "an `extern` function cannot be cached; cache a Rust function that it calls";
        mistakes.add(abi, message);
    }
    if let Some(variadic) = &signature.variadic {
        mistakes.add(variadic, "variadic arguments cannot be part of a key");
    }
}

fn refuse_answer(answer: &Type, mistakes: &mut Mistakes) {
    struct Refuse<'a>(&'a mut Mistakes);
    const BORROWED: &str =
        "a borrowed value cannot be remembered; return an owned one, or an `Arc`";
    impl Visit<'_> for Refuse<'_> {
        fn visit_type_impl_trait(&mut self, ty: &TypeImplTrait) {
            self.0.add(ty, "the cache must be able to name what it remembers; write the type");
        }

        fn visit_type_reference(&mut self, ty: &TypeReference) {
            match &ty.lifetime {
                Some(lifetime) if lifetime.ident == "static" => {
                    visit::visit_type_reference(self, ty);
                }
                _ => self.0.add(ty, BORROWED),
            }
        }

        fn visit_lifetime(&mut self, lifetime: &Lifetime) {
            if lifetime.ident != "static" {
                self.0.add(lifetime, BORROWED);
            }
        }

        // What a function pointer or closure borrows is its own affair.
        fn visit_type_fn_ptr(&mut self, _: &TypeFnPtr) {}
        fn visit_parenthesized_generic_arguments(&mut self, _: &ParenthesizedGenericArguments) {}
    }
    if let Type::Never(never) = answer {
        mistakes.add(never, "a function that never returns has nothing to remember");
    }
    // Of a `Result` only the first argument is remembered.
    Refuse(mistakes).visit_type(only_argument(answer, "Result").unwrap_or(answer));
}

/// A type without the parentheses, or the invisible group that a macro put around it.
pub(crate) fn peel(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            _ => return ty,
        };
    }
}

/// The `R` of `Pin<Box<dyn Future<Output = R> + ..>>`.
fn output_of_boxed_future(ty: &Type) -> Option<Type> {
    let boxed = only_argument(ty, "Pin")?;
    let Type::TraitObject(future) = peel(only_argument(boxed, "Box")?) else { return None };
    future.bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else { return None };
        let segment = bound.path.segments.last().filter(|last| last.ident == "Future")?;
        let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(output) if output.ident == "Output" => {
                Some(output.ty.clone())
            }
            _ => None,
        })
    })
}

/// The `T` of `name<T>`.
fn only_argument<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let Type::Path(path) = peel(ty) else { return None };
    let segment = path.path.segments.last().filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// Gives an argument a plain name, where it has none.
fn name_argument(index: usize, typed: &mut PatType) -> Argument {
    let ty = peel(&typed.ty).clone();
    let conditions = typed.attrs.iter().filter(|a| a.path().is_ident("cfg")).cloned().collect();
    if let Pat::Ident(PatIdent { by_ref: None, subpat: None, ident, .. }) = &*typed.pat {
        let (name, bindings) = (ident.clone(), vec![ident.clone()]);
        return Argument { name, ty, bindings, pattern: None, conditions };
    }
    let name = Ident::new(&format!("_argument_{index}"), Span::mixed_site());
    let plain = PatIdent {
        attrs: Vec::new(),
        by_ref: None,
        mutability: None,
        ident: name.clone(),
        subpat: None,
    };
    let written = std::mem::replace(&mut *typed.pat, Pat::Ident(plain));
    let mut bindings = Bindings::default();
    bindings.visit_pat(&written);
    Argument { name, ty, bindings: bindings.0, pattern: Some(written), conditions }
}

#[derive(Default)]
struct Bindings(Vec<Ident>);

impl Visit<'_> for Bindings {
    fn visit_pat_ident(&mut self, binding: &PatIdent) {
        self.0.push(binding.ident.clone());
        visit::visit_pat_ident(self, binding);
    }
}
