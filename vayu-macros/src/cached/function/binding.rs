//! The names that the pattern of an argument binds.

use syn::visit::{self, Visit};
use syn::{Ident, Pat, PatIdent, Type};

use crate::cached::types::peel;

/// A name that a pattern binds.
pub(crate) struct Binding {
    pub(crate) name: Ident,
    /// The names before an `@` whose value contains this one.
    pub(crate) wholes: Vec<Ident>,
    /// True if the name is bound to a reference, by `ref` or by match ergonomics.
    pub(crate) is_reference: bool,
    /// The `ref` or `ref mut` before the name.
    pub(crate) modifier: Option<Modifier>,
}

pub(crate) struct Modifier {
    /// True if the argument must be mutable.
    pub(crate) needs_mut: bool,
    /// True if the name can be bound by value instead.
    pub(crate) is_removable: bool,
}

/// Returns the names of a pattern for an argument of this type, each once.
pub(crate) fn bindings(pattern: &Pat, ty: &Type) -> Vec<Binding> {
    let mut walk = BindingWalk::default();
    walk.pattern(pattern, Some(ty), false);
    walk.found
}

/// Returns the binding of an argument without a pattern.
pub(crate) fn binding(name: Ident) -> Binding {
    Binding { name, wholes: Vec::new(), is_reference: false, modifier: None }
}

#[derive(Default)]
struct BindingWalk {
    found: Vec<Binding>,
    wholes: Vec<Ident>,
    is_below_reference: bool,
    at_signs: usize,
}

impl BindingWalk {
    /// Collects the bindings of a pattern. `ty` is the type of the value, if known. `is_reference` means that
    /// the default binding mode is by reference (match ergonomics).
    fn pattern(&mut self, pattern: &Pat, ty: Option<&Type>, mut is_reference: bool) {
        let mut ty = ty.map(peel);
        if !matches!(pattern, Pat::Ident(_) | Pat::Reference(_) | Pat::Paren(_) | Pat::Or(_)) {
            while let Some(Type::Reference(reference)) = ty {
                is_reference = true;
                ty = Some(peel(&reference.elem));
            }
        }
        match pattern {
            Pat::Ident(binding) => self.binding(binding, ty, is_reference),
            Pat::Paren(paren) => self.pattern(&paren.pat, ty, is_reference),
            Pat::Or(or) => or.cases.iter().for_each(|case| self.pattern(case, ty, is_reference)),
            Pat::Reference(reference) => {
                let ty = match ty {
                    Some(Type::Reference(outer)) => Some(&*outer.elem),
                    _ => None,
                };
                let was_below = std::mem::replace(&mut self.is_below_reference, true);
                self.pattern(&reference.pat, ty, false);
                self.is_below_reference = was_below;
            }
            Pat::Tuple(tuple) => {
                let types = match ty {
                    Some(Type::Tuple(types)) => types.elems.iter().collect(),
                    _ => Vec::new(),
                };
                let rest = tuple.elems.iter().position(|part| matches!(part, Pat::Rest(_)));
                for (index, part) in tuple.elems.iter().enumerate() {
                    let index = match rest {
                        Some(rest) if index > rest => {
                            (types.len() + index).checked_sub(tuple.elems.len())
                        }
                        _ => Some(index),
                    };
                    let ty = index.and_then(|index| types.get(index).copied());
                    self.pattern(part, ty, is_reference);
                }
            }
            Pat::Slice(slice) => {
                let ty = match ty {
                    Some(Type::Array(array)) => Some(&*array.elem),
                    Some(Type::Slice(slice)) => Some(&*slice.elem),
                    _ => None,
                };
                slice.elems.iter().for_each(|part| self.pattern(part, ty, is_reference));
            }
            Pat::TupleStruct(parts) => {
                parts.elems.iter().for_each(|part| self.pattern(part, None, is_reference));
            }
            Pat::Struct(parts) => {
                parts.fields.iter().for_each(|part| self.pattern(&part.pat, None, is_reference));
            }
            _ => {}
        }
    }

    fn binding(&mut self, binding: &PatIdent, ty: Option<&Type>, is_reference: bool) {
        let is_at = binding.subpat.is_some();
        let is_removable = !self.is_below_reference && self.at_signs == 0 && !is_at;
        let needs_mut = binding.mutability.is_some() && !self.is_below_reference;
        let modifier = binding.by_ref.map(|_| Modifier { needs_mut, is_removable });
        if !self.found.iter().any(|found| found.name == binding.ident) {
            self.found.push(Binding {
                name: binding.ident.clone(),
                wholes: self.wholes.clone(),
                is_reference: is_reference || modifier.is_some(),
                modifier,
            });
        }
        if let Some((_, part)) = &binding.subpat {
            self.wholes.push(binding.ident.clone());
            self.at_signs += 1;
            self.pattern(part, ty, is_reference);
            self.at_signs -= 1;
            self.wholes.pop();
        }
    }
}

/// Returns whether a pattern may bind names inside of a macro, where they are unknown.
pub(crate) fn hides_names(pattern: &Pat) -> bool {
    any(pattern, |pattern| matches!(pattern, Pat::Macro(_) | Pat::Verbatim(_)))
}

/// Returns whether a pattern contains `ref`, `mut` or `&`. Such a pattern cannot use match ergonomics.
pub(crate) fn has_modifiers(pattern: &Pat) -> bool {
    any(pattern, |pattern| match pattern {
        Pat::Ident(binding) => binding.by_ref.is_some() || binding.mutability.is_some(),
        other => matches!(other, Pat::Reference(_)),
    })
}

fn any(pattern: &Pat, predicate: impl Fn(&Pat) -> bool) -> bool {
    struct Any<F>(F, bool);
    impl<F: Fn(&Pat) -> bool> Visit<'_> for Any<F> {
        fn visit_pat(&mut self, pattern: &Pat) {
            self.1 |= (self.0)(pattern);
            visit::visit_pat(self, pattern);
        }
    }
    let mut any = Any(predicate, false);
    any.visit_pat(pattern);
    any.1
}

/// Returns whether a name says that its value is not used. One that starts with `__` says nothing.
pub(crate) fn is_underscored(name: &Ident) -> bool {
    let name = name.to_string();
    name.starts_with('_') && !name.starts_with("__")
}

/// Returns whether a name may be a unit struct or a constant, which look like a name in a pattern.
pub(crate) fn may_be_a_path(name: &Ident) -> bool {
    let name = name.to_string();
    name.trim_start_matches("r#").starts_with(char::is_uppercase)
}
