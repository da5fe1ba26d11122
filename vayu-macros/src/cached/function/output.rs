//! The check that an output can be cached.

use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{
    BoundLifetimes, GenericArgument, GenericParam, Lifetime, ParenthesizedGenericArguments,
    PathArguments, PathSegment, TraitBound, Type, TypeFnPtr, TypeImplTrait, TypeReference,
};

use crate::cached::attribute::Attribute;
use crate::cached::types::{is_named, only_argument, peel, readable};
use crate::diagnostics::Diagnostics;

pub(crate) fn check_output(attribute: Attribute, output: &Type, diagnostics: &mut Diagnostics) {
    if let Type::Never(never) = output {
        let message = match attribute {
            Attribute::SingleFlight => "a function that never returns has nothing to share",
            Attribute::Cached | Attribute::MemCached => {
                "a function that never returns has nothing to cache"
            }
        };
        diagnostics.add(never, message);
    }
    // Only the `Ok` type of a `Result` is cached.
    let value = only_argument(output, "Result").filter(|_| attribute != Attribute::SingleFlight);
    let value = value.unwrap_or(output);
    let mut walk = OutputWalk {
        attribute,
        diagnostics,
        bound: Vec::new(),
        is_in_signature: false,
        owned: None,
    };
    walk.visit_type(value);
    if let Type::Path(path) = peel(output)
        && let Some(PathSegment { ident, arguments: PathArguments::AngleBracketed(arguments) }) =
            path.path.segments.last()
        && ident == "Result"
        && let Some(GenericArgument::Type(error)) = arguments.args.get(1)
        && let Type::ImplTrait(opaque) = peel(error)
    {
        walk.visit_type_impl_trait(opaque);
    }
}

/// Rejects what a value cannot contain: borrowed data and `impl Trait`.
struct OutputWalk<'a> {
    attribute: Attribute,
    diagnostics: &'a mut Diagnostics,
    /// The lifetimes that a `for<..>` around the type binds.
    bound: Vec<Lifetime>,
    /// True in the signature of a function pointer or closure, where an elided lifetime is bound.
    is_in_signature: bool,
    /// The owned type to propose, of the type around a lifetime.
    owned: Option<&'static str>,
}

impl OutputWalk<'_> {
    fn borrowed(&mut self, tokens: impl ToTokens, owned: Option<String>) {
        let owned = owned.unwrap_or_else(|| "an owned one".to_owned());
        let participle = self.attribute.participle();
        let message =
            format!("a borrowed value cannot be {participle}; return {owned}, or an `Arc`");
        self.diagnostics.add(tokens, message);
    }

    fn is_unborrowed(&self, lifetime: &Lifetime) -> bool {
        lifetime.ident == "static"
            || self.bound.contains(lifetime)
            || self.is_in_signature && lifetime.ident == "_"
    }

    fn within(&mut self, bound: Option<&BoundLifetimes>, visit: impl FnOnce(&mut Self)) {
        let outside = self.bound.len();
        let names = bound.into_iter().flat_map(|bound| &bound.lifetimes);
        self.bound.extend(names.filter_map(|parameter| match parameter {
            GenericParam::Lifetime(parameter) => Some(parameter.lifetime.clone()),
            _ => None,
        }));
        visit(self);
        self.bound.truncate(outside);
    }

    fn in_signature(&mut self, visit: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.is_in_signature, true);
        visit(self);
        self.is_in_signature = outside;
    }
}

impl Visit<'_> for OutputWalk<'_> {
    fn visit_type_impl_trait(&mut self, ty: &TypeImplTrait) {
        if !self.is_in_signature {
            let message = "the cache must be able to name the type of its values; write the type";
            self.diagnostics.add(ty, message);
        }
    }

    fn visit_type_reference(&mut self, ty: &TypeReference) {
        match &ty.lifetime {
            Some(lifetime) if self.is_unborrowed(lifetime) => self.visit_type(&ty.elem),
            None if self.is_in_signature => self.visit_type(&ty.elem),
            _ => {
                let owned = owned_type(&ty.elem);
                self.borrowed(ty, Some(format!("`{owned}`")));
            }
        }
    }

    fn visit_path_segment(&mut self, segment: &PathSegment) {
        let owned = match &segment.arguments {
            PathArguments::AngleBracketed(arguments) if segment.ident == "Cow" => {
                let is_str = |argument: &GenericArgument| matches!(argument, GenericArgument::Type(ty) if is_named(ty, "str"));
                arguments.args.iter().any(is_str).then_some("`String`")
            }
            _ => None,
        };
        let outside = std::mem::replace(&mut self.owned, owned);
        visit::visit_path_segment(self, segment);
        self.owned = outside;
    }

    fn visit_lifetime(&mut self, lifetime: &Lifetime) {
        if !self.is_unborrowed(lifetime) {
            let owned = self.owned.map(ToOwned::to_owned);
            self.borrowed(lifetime, owned);
        }
    }

    fn visit_bound_lifetimes(&mut self, _: &BoundLifetimes) {}

    fn visit_trait_bound(&mut self, bound: &TraitBound) {
        self.within(bound.lifetimes.as_ref(), |walk| visit::visit_trait_bound(walk, bound));
    }

    fn visit_type_fn_ptr(&mut self, ty: &TypeFnPtr) {
        self.within(ty.lifetimes.as_ref(), |walk| {
            walk.in_signature(|walk| visit::visit_type_fn_ptr(walk, ty));
        });
    }

    fn visit_parenthesized_generic_arguments(&mut self, arguments: &ParenthesizedGenericArguments) {
        self.in_signature(|walk| visit::visit_parenthesized_generic_arguments(walk, arguments));
    }
}

/// Returns the owned type to return in place of a reference to this one.
fn owned_type(ty: &Type) -> String {
    match peel(ty) {
        ty if is_named(ty, "str") => "String".to_owned(),
        ty if is_named(ty, "Path") => "PathBuf".to_owned(),
        ty if is_named(ty, "OsStr") => "OsString".to_owned(),
        Type::Slice(slice) => format!("Vec<{}>", readable(&slice.elem)),
        Type::TraitObject(object) => format!("Box<{}>", readable(object)),
        ty => readable(ty),
    }
}
