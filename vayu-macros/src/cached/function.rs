//! The function under the attribute, and the checks that it can be cached.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{
    Block, BoundLifetimes, Expr, FnArg, GenericArgument, GenericParam, Generics, Ident, ItemFn,
    Lifetime, ParenthesizedGenericArguments, Pat, PatIdent, PatType, Path, PathArguments,
    PathSegment, ReturnType, Stmt, TraitBound, TraitItemFn, Type, TypeFnPtr, TypeImplTrait,
    TypeParam, TypeParamBound, TypeReference, WherePredicate, parse_quote,
};

use crate::cached::Attribute;
use crate::cached::pattern::{self, Binding};
use crate::diagnostics::Diagnostics;
use crate::paths::own_ident;

/// A parsed function.
pub(crate) struct Function {
    /// The item, in which each argument has a plain name instead of a pattern.
    pub(crate) item: ItemFn,
    /// The arguments without the receiver.
    pub(crate) arguments: Vec<Argument>,
    pub(crate) kind: Kind,
    /// The output of the call, after `.await`; `None` for `()`.
    pub(crate) output: Option<Type>,
}

pub(crate) struct Argument {
    /// The name of the whole argument, hygienic if there is a pattern.
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    /// The names that the user gave to the argument or to parts of it.
    pub(crate) bindings: Vec<Binding>,
    /// The pattern, if it is more than a name.
    pub(crate) pattern: Option<Pat>,
    /// The `#[cfg(..)]` on it.
    pub(crate) conditions: Vec<syn::Attribute>,
}

impl Argument {
    /// Returns whether the body can access it.
    pub(crate) fn is_visible(&self) -> bool {
        !self.bindings.is_empty() || self.hides_names()
    }

    /// Returns whether the pattern may bind names inside of a macro.
    pub(crate) fn hides_names(&self) -> bool {
        self.pattern.as_ref().is_some_and(pattern::hides_names)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Ident> {
        self.bindings.iter().map(|binding| &binding.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sync,
    Async,
    /// A function that returns a boxed future, as `#[async_trait]` generates it.
    Boxed,
}

/// Parses the item. `None` if it is not a function with a body.
pub(crate) fn parse(
    attribute: Attribute,
    item: &TokenStream,
    diagnostics: &mut Diagnostics,
) -> Option<Function> {
    let mut item: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            diagnostics.push(not_a_function(attribute, item));
            return None;
        }
    };
    check_attributes(attribute, &item, diagnostics);
    check_signature(&item, diagnostics);
    let written = match &item.sig.output {
        ReturnType::Default => None,
        ReturnType::Type(_, ty) => Some((**ty).clone()),
    };
    let boxed = written.as_ref().and_then(output_of_boxed_future);
    let returns_unit = written.as_ref().is_some_and(|ty| is_unit(peel(ty)));
    let kind = match (&boxed, item.sig.asyncness) {
        (Some(_), None) => Kind::Boxed,
        (_, Some(_)) => Kind::Async,
        (None, None) => Kind::Sync,
    };
    let output = if kind == Kind::Boxed { boxed } else { written };
    match &output {
        Some(output) if kind == Kind::Sync && is_future(output) => {
            let message = format!(
                "`{}` returns a future; write `async fn {}(..)` and the type of its output",
                item.sig.ident, item.sig.ident
            );
            diagnostics.add(output, message);
        }
        Some(output) => check_output(attribute, output, diagnostics),
        None if attribute == Attribute::SingleFlight => {}
        None => {
            let name = &item.sig.ident;
            let message = format!(
                "`{name}` returns nothing to cache; remove the attribute, or write `-> ()` if it is to run \
                 once per ttl"
            );
            diagnostics.add(name, message);
        }
    }
    if returns_unit {
        // Lints would ask to remove the type that the attribute asks for.
        item.sig.output = ReturnType::Default;
    }
    let ItemFn { sig, block, .. } = &mut item;
    let typed = sig.inputs.iter_mut().filter_map(|argument| match argument {
        FnArg::Typed(typed) => Some(typed),
        FnArg::Receiver(_) => None,
    });
    let arguments = typed
        .enumerate()
        .map(|(index, typed)| match kind {
            Kind::Boxed => name_boxed_argument(index, typed, block),
            Kind::Sync | Kind::Async => name_argument(index, typed),
        })
        .collect();
    Some(Function { item, arguments, kind, output })
}

fn not_a_function(attribute: Attribute, item: &TokenStream) -> syn::Error {
    let name = attribute.name();
    match syn::parse2::<TraitItemFn>(item.clone()) {
        Ok(declaration) => syn::Error::new_spanned(
            declaration.sig,
            format!(
                "a function without a body has nothing to cache; put `#[{name}]` on the \
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

/// Rejects attributes that have no effect, or another one, on a function whose body runs in the cache.
fn check_attributes(attribute: Attribute, item: &ItemFn, diagnostics: &mut Diagnostics) {
    for other in &item.attrs {
        let path = other.path();
        let Some(last) = path.segments.last().map(|segment| &segment.ident) else { continue };
        let is_cached = last == "cached" || last == "mem_cached";
        if is_cached && attribute == Attribute::SingleFlight
            || last == "single_flight" && attribute != Attribute::SingleFlight
        {
            let message = format!(
                "`{}` is cached, so concurrent calls share one run already; remove `single_flight`",
                item.sig.ident
            );
            diagnostics.add(path, message);
        } else if is_cached || last == "single_flight" {
            let message = format!(
                "`{}` is {} already; remove one of the two",
                item.sig.ident,
                attribute.participle()
            );
            diagnostics.add(path, message);
        } else if last == "invalidates" && attribute != Attribute::SingleFlight {
            let message = format!(
                "`{}` is cached, so it does not run in each call; put `#[invalidates]` on the function that writes",
                item.sig.ident
            );
            diagnostics.add(path, message);
        } else if last == "track_caller" {
            // The body is a closure, which cannot have the attribute, and a cached value would hold the
            // location of the caller that computed it.
            let message = "a cached function cannot be `#[track_caller]`: its body runs inside of the \
                           cache; remove it, or take `location: &'static Location<'static>` with \
                           `skip(location)`";
            diagnostics.add(path, message);
        }
    }
}

fn check_signature(item: &ItemFn, diagnostics: &mut Diagnostics) {
    let signature = &item.sig;
    if let Some(constness) = &signature.constness {
        diagnostics.add(constness, "a `const fn` cannot use a cache; remove `const`");
    }
    if let Some(abi) = &signature.abi {
        let message = "an `extern` function cannot be cached; cache a Rust function that it calls";
        diagnostics.add(abi, message);
    }
    if let Some(variadic) = &signature.variadic {
        diagnostics.add(variadic, "variadic arguments cannot be part of a key");
    }
}

fn check_output(attribute: Attribute, output: &Type, diagnostics: &mut Diagnostics) {
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

fn is_named(ty: &Type, name: &str) -> bool {
    matches!(peel(ty), Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// Returns whether a type is spelt as a future that cannot be cached. Whether a name is that of a future, only the
/// compiler knows; a `BoxFuture` that borrows cannot be cached in any case.
pub(super) fn is_future(ty: &Type) -> bool {
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

/// Returns whether a type contains an `impl Trait`, which cannot be written where a variable has it.
pub(super) fn contains_impl(ty: &Type) -> bool {
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

/// Returns the `R` of `Pin<Box<dyn Future<Output = R> + ..>>`.
pub(super) fn output_of_boxed_future(ty: &Type) -> Option<Type> {
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

/// Replaces the pattern of an argument with a plain name.
fn name_argument(index: usize, typed: &mut PatType) -> Argument {
    let ty = peel(&typed.ty).clone();
    let conditions = typed.attrs.iter().filter(|a| a.path().is_ident("cfg")).cloned().collect();
    // A name that starts with `_` is bound like a pattern: lints object to its use in the key.
    if let Pat::Ident(PatIdent { by_ref: None, subpat: None, ident, .. }) = &*typed.pat
        && !pattern::is_underscored(ident)
    {
        let (name, bindings) = (ident.clone(), vec![pattern::binding(ident.clone())]);
        return Argument { name, ty, bindings, pattern: None, conditions };
    }
    let bindings = pattern::bindings(&typed.pat, &ty);
    // Compiler messages may mention the name, so it is that of the first binding.
    let name = match bindings.iter().find(|binding| !pattern::may_be_a_path(&binding.name)) {
        Some(first) => {
            let mut name = first.name.clone();
            name.set_span(Span::mixed_site().located_at(name.span()));
            name
        }
        None => own_ident(&format!("_argument_{index}"), Span::mixed_site()),
    };
    let plain = PatIdent {
        attrs: Vec::new(),
        by_ref: None,
        mutability: None,
        ident: name.clone(),
        subpat: None,
    };
    let written = std::mem::replace(&mut *typed.pat, Pat::Ident(plain));
    Argument { name, ty, bindings, pattern: Some(written), conditions }
}

/// Like [`name_argument`] for a function that `#[async_trait]` has rewritten: it has replaced the pattern and
/// starts the body with `let pattern = { let __arg1 = __arg1; __arg1 };`, or `let __arg1 = __arg1;` for `_`.
/// That statement is removed from the body.
fn name_boxed_argument(index: usize, typed: &mut PatType, block: &mut Block) -> Argument {
    let mut argument = name_argument(index, typed);
    if let (None, Some(statements)) = (&argument.pattern, statements_of_boxed(block))
        && let Some(index) = statements.iter().position(|s| destructures(s, &argument.name))
        && let Stmt::Local(local) = statements.remove(index)
        && let Pat::Ident(name) = &mut *typed.pat
    {
        name.mutability = None;
        let is_unused = matches!(&local.pat, Pat::Ident(pattern) if pattern.ident == argument.name);
        let pattern = if is_unused { parse_quote!(_) } else { local.pat };
        argument.bindings = pattern::bindings(&pattern, &argument.ty);
        argument.pattern = Some(pattern);
    }
    argument
}

/// Returns the statements of the block in `Box::pin(async move { .. })`.
fn statements_of_boxed(block: &mut Block) -> Option<&mut Vec<Stmt>> {
    let [Stmt::Expr(Expr::Call(call), None)] = &mut block.stmts[..] else { return None };
    match call.args.first_mut()? {
        Expr::Async(block) => Some(&mut block.block.stmts),
        _ => None,
    }
}

fn destructures(statement: &Stmt, argument: &Ident) -> bool {
    let Stmt::Local(local) = statement else { return false };
    let Some(value) = local.init.as_ref().map(|init| &*init.expr) else { return false };
    let is_argument =
        |value: &Expr| matches!(value, Expr::Path(path) if path.path.is_ident(argument));
    match (&local.pat, value) {
        (Pat::Ident(_), value) if is_argument(value) => argument.to_string().starts_with("__arg"),
        (_, Expr::Block(block)) => match &block.block.stmts[..] {
            [inner @ Stmt::Local(_), Stmt::Expr(value, None)] => {
                is_argument(value) && destructures(inner, argument)
            }
            _ => false,
        },
        _ => false,
    }
}
