//! What a type says, as it is written.

use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{
    GenericArgument, Generics, Ident, Lifetime, ParenthesizedGenericArguments, Path, PathArguments,
    Type, TypeFnPtr, TypeImplTrait, TypeParam, TypeParamBound, TypeReference, WherePredicate,
};

/// Removes parentheses, and the invisible group that a macro put around a type.
pub(crate) fn peel(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            _ => return ty,
        };
    }
}

/// Returns tokens as they would be formatted, for messages.
pub(crate) fn readable(tokens: impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (spaced, tight) in [
        (" < ", "<"),
        (" <", "<"),
        (" >", ">"),
        ("< ", "<"),
        (" ,", ","),
        (" :: ", "::"),
        ("& ", "&"),
        (" ;", ";"),
    ] {
        text = text.replace(spaced, tight);
    }
    text
}

pub(crate) fn is_named(ty: &Type, name: &str) -> bool {
    matches!(peel(ty), Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

pub(crate) fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// Returns the type that a reference refers to.
pub(crate) fn pointee(ty: &Type) -> Option<&Type> {
    match peel(ty) {
        Type::Reference(reference) => Some(&reference.elem),
        _ => None,
    }
}

pub(crate) fn is_shared_reference(ty: &Type) -> bool {
    matches!(peel(ty), Type::Reference(reference) if reference.mutability.is_none())
}

/// Returns the `T` of `name<T>`.
pub(crate) fn only_argument<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    argument(ty, name, 0)
}

/// Returns a type in the angle brackets of `name<..>`.
fn argument<'a>(ty: &'a Type, name: &str, index: usize) -> Option<&'a Type> {
    let Type::Path(path) = peel(ty) else { return None };
    let segment = path.path.segments.last().filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    let mut types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    types.nth(index)
}

/// Returns whether a type contains an `impl Trait`, which cannot be written where a variable has it.
pub(crate) fn contains_impl(ty: &Type) -> bool {
    struct Search(bool);
    impl Visit<'_> for Search {
        fn visit_type_impl_trait(&mut self, _: &TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut search = Search(false);
    search.visit_type(ty);
    search.0
}

/// Returns whether a value holds a reference to something static.
pub(crate) fn is_static(output: &Type) -> bool {
    #[derive(Default)]
    struct Static(bool);
    impl Visit<'_> for Static {
        fn visit_type_reference(&mut self, reference: &TypeReference) {
            self.0 |=
                reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static");
        }
        fn visit_type_fn_ptr(&mut self, _: &TypeFnPtr) {}
        fn visit_parenthesized_generic_arguments(&mut self, _: &ParenthesizedGenericArguments) {}
    }
    let mut found = Static::default();
    found.visit_type(only_argument(output, "Result").unwrap_or(output));
    found.0
}

/// Returns whether the error of an output lives as long as the process, as far as its type is written: it has no
/// lifetime and no type parameter that may have one. The whole output is searched if it does not show its error.
///
/// The parameters of an `impl` or a trait are not known here: a name of one capital letter may be one.
pub(crate) fn is_error_static(output: &Type, generics: &Generics) -> bool {
    struct Borrowed<'a> {
        generics: &'a Generics,
        found: bool,
    }
    impl Borrowed<'_> {
        fn may_be_borrowed(&self, name: &Ident) -> bool {
            match self.generics.type_params().find(|parameter| parameter.ident == *name) {
                Some(parameter) => !is_bound_static(parameter, self.generics),
                None => is_capital_letter(name),
            }
        }
    }
    impl Visit<'_> for Borrowed<'_> {
        fn visit_type_reference(&mut self, reference: &TypeReference) {
            self.found |= reference.lifetime.is_none();
            visit::visit_type_reference(self, reference);
        }
        fn visit_lifetime(&mut self, lifetime: &Lifetime) {
            self.found |= lifetime.ident != "static";
        }
        fn visit_path(&mut self, path: &Path) {
            let first = path.segments.first().map(|segment| &segment.ident);
            self.found |= first.is_some_and(|first| self.may_be_borrowed(first));
            visit::visit_path(self, path);
        }
    }
    let mut borrowed = Borrowed { generics, found: false };
    borrowed.visit_type(argument(output, "Result", 1).unwrap_or(output));
    !borrowed.found
}

fn is_capital_letter(name: &Ident) -> bool {
    let name = name.to_string();
    name.len() == 1 && name.chars().all(char::is_uppercase)
}

/// Returns whether a type parameter has the bound `'static`.
fn is_bound_static(parameter: &TypeParam, generics: &Generics) -> bool {
    let is_static = |bound: &TypeParamBound| matches!(bound, TypeParamBound::Lifetime(lifetime) if lifetime.ident == "static");
    let of_parameter = |predicate: &WherePredicate| match predicate {
        WherePredicate::Type(predicate) => {
            is_named(&predicate.bounded_ty, &parameter.ident.to_string())
                && predicate.bounds.iter().any(is_static)
        }
        _ => false,
    };
    parameter.bounds.iter().any(is_static)
        || generics.where_clause.iter().flat_map(|it| &it.predicates).any(of_parameter)
}

/// Returns whether a type is spelt as a future that cannot be cached. Whether a name is that of a future, only the
/// compiler knows; a `BoxFuture` that borrows cannot be cached in any case.
pub(crate) fn is_future(ty: &Type) -> bool {
    const NAMES: [&str; 3] = ["Future", "IntoFuture", "TryFuture"];
    let is_bound = |bound: &TypeParamBound| match bound {
        TypeParamBound::Trait(bound) => bound
            .path
            .segments
            .last()
            .is_some_and(|last| NAMES.iter().any(|name| last.ident == name)),
        _ => false,
    };
    match peel(ty) {
        Type::ImplTrait(ty) => ty.bounds.iter().any(is_bound),
        Type::TraitObject(ty) => ty.bounds.iter().any(is_bound),
        Type::Reference(reference) => is_future(&reference.elem),
        ty => {
            let pointee =
                ["Pin", "Box", "Arc", "Rc"].iter().find_map(|name| only_argument(ty, name));
            pointee.is_some_and(is_future)
                || ["BoxFuture", "LocalBoxFuture"].iter().any(|name| borrows(ty, name))
        }
    }
}

/// Returns whether a type is `name<'a, ..>` with a lifetime other than `'static`.
fn borrows(ty: &Type, name: &str) -> bool {
    let Type::Path(path) = peel(ty) else { return false };
    let Some(segment) = path.path.segments.last().filter(|last| last.ident == name) else {
        return false;
    };
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return false };
    arguments.args.iter().any(|argument| {
        matches!(argument, GenericArgument::Lifetime(lifetime) if lifetime.ident != "static")
    })
}

/// Returns the `R` of `Pin<Box<dyn Future<Output = R> + ..>>`.
pub(crate) fn output_of_boxed_future(ty: &Type) -> Option<Type> {
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
