//! An argument of the function: its name, its type, and the names of its pattern.

use proc_macro2::Span;
use syn::{Block, Expr, Ident, Pat, PatIdent, PatType, Stmt, Type, parse_quote};

use crate::cached::function::binding::{self, Binding};
use crate::cached::types::peel;
use crate::paths::own_ident;

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
        self.pattern.as_ref().is_some_and(binding::hides_names)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Ident> {
        self.bindings.iter().map(|binding| &binding.name)
    }

    /// Returns the first name that a body which owns the arguments cannot bind by value.
    pub(crate) fn borrowed_name(&self) -> Option<&Ident> {
        let is_borrowed = |binding: &&Binding| {
            binding.modifier.as_ref().is_some_and(|modifier| !modifier.is_removable)
        };
        let is_static = matches!(&self.ty, Type::Reference(_));
        self.bindings.iter().find(is_borrowed).filter(|_| !is_static).map(|binding| &binding.name)
    }
}

/// Replaces the pattern of an argument with a plain name.
pub(crate) fn name_argument(index: usize, typed: &mut PatType) -> Argument {
    let ty = peel(&typed.ty).clone();
    let conditions = typed.attrs.iter().filter(|a| a.path().is_ident("cfg")).cloned().collect();
    // A name that starts with `_` is bound like a pattern: lints object to its use in the key.
    if let Pat::Ident(PatIdent { by_ref: None, subpat: None, ident, .. }) = &*typed.pat
        && !binding::is_underscored(ident)
    {
        let (name, bindings) = (ident.clone(), vec![binding::binding(ident.clone())]);
        return Argument { name, ty, bindings, pattern: None, conditions };
    }
    let bindings = binding::bindings(&typed.pat, &ty);
    // Compiler messages may mention the name, so it is that of the first binding.
    let name = match bindings.iter().find(|binding| !binding::may_be_a_path(&binding.name)) {
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
pub(crate) fn name_boxed_argument(
    index: usize,
    typed: &mut PatType,
    block: &mut Block,
) -> Argument {
    let mut argument = name_argument(index, typed);
    if let (None, Some(statements)) = (&argument.pattern, statements_of_boxed(block))
        && let Some(index) = statements.iter().position(|s| destructures(s, &argument.name))
        && let Stmt::Local(local) = statements.remove(index)
        && let Pat::Ident(name) = &mut *typed.pat
    {
        name.mutability = None;
        let is_unused = matches!(&local.pat, Pat::Ident(pattern) if pattern.ident == argument.name);
        let pattern = if is_unused { parse_quote!(_) } else { local.pat };
        argument.bindings = binding::bindings(&pattern, &argument.ty);
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
