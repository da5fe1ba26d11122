//! The function under the attribute, and the checks that it can be cached.

use proc_macro2::{Span, TokenStream};
use syn::visit::{self, Visit};
use syn::{
    Block, Expr, FnArg, GenericArgument, Ident, ItemFn, Lifetime, ParenthesizedGenericArguments,
    Pat, PatIdent, PatType, PathArguments, ReturnType, Stmt, TraitItemFn, Type, TypeFnPtr,
    TypeImplTrait, TypeParamBound, TypeReference, parse_quote,
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
    check_signature(&item, diagnostics);
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
    let output = if kind == Kind::Boxed { boxed } else { written };
    if let Some(output) = &output {
        check_output(output, diagnostics);
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

fn check_output(output: &Type, diagnostics: &mut Diagnostics) {
    struct Refuse<'a>(&'a mut Diagnostics);
    const BORROWED: &str = "a borrowed value cannot be cached; return an owned one, or an `Arc`";
    impl Visit<'_> for Refuse<'_> {
        fn visit_type_impl_trait(&mut self, ty: &TypeImplTrait) {
            self.0.add(ty, "the cache must be able to name the type of its values; write the type");
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

        // References in the signature of a function pointer or closure are not borrowed by the value.
        fn visit_type_fn_ptr(&mut self, _: &TypeFnPtr) {}
        fn visit_parenthesized_generic_arguments(&mut self, _: &ParenthesizedGenericArguments) {}
    }
    if let Type::Never(never) = output {
        diagnostics.add(never, "a function that never returns has nothing to cache");
    }
    // Only the `Ok` type of a `Result` is cached.
    Refuse(diagnostics).visit_type(only_argument(output, "Result").unwrap_or(output));
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

/// Returns the `T` of `name<T>`.
fn only_argument<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let Type::Path(path) = peel(ty) else { return None };
    let segment = path.path.segments.last().filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// Replaces the pattern of an argument with a plain name.
fn name_argument(index: usize, typed: &mut PatType) -> Argument {
    let ty = peel(&typed.ty).clone();
    let conditions = typed.attrs.iter().filter(|a| a.path().is_ident("cfg")).cloned().collect();
    if let Pat::Ident(PatIdent { by_ref: None, subpat: None, ident, .. }) = &*typed.pat {
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
