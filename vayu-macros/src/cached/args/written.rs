//! An argument as it is written: its name, and what follows.

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::ParseStream;
use syn::{Error, Expr, Ident, Result, Token, UnOp};

/// An argument of which the name is parsed.
pub(crate) struct Written<'a> {
    pub(crate) name: Ident,
    /// An example of the argument, for messages.
    pub(crate) form: &'static str,
    /// What follows the name.
    pub(crate) rest: ParseStream<'a>,
}

impl Written<'_> {
    /// Returns a value with the name of the argument, at which errors about both are reported.
    pub(crate) fn named<T>(&self, value: T) -> (Ident, T) {
        (self.name.clone(), value)
    }

    /// Parses the `=` before a value.
    pub(crate) fn equals(&self) -> Result<()> {
        let is_other = self.rest.peek(Token![==]) || self.rest.peek(Token![=>]);
        if is_other || self.rest.parse::<Token![=]>().is_err() || self.is_at_end() {
            return Err(Error::new(self.name.span(), format!("write `{}`", self.form)));
        }
        Ok(())
    }

    /// Returns whether the argument ends here.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty() || self.rest.peek(Token![,])
    }

    /// Parses `= expression` and removes the invisible group that a macro may have put around it.
    pub(crate) fn value(&self) -> Result<Expr> {
        self.equals()?;
        let expression = self.rest.parse::<Expr>().map_err(|error| self.not_an_expression(&error));
        Ok(without_groups(expression?))
    }

    /// Parses `= expression` for an expression that is not a literal.
    pub(crate) fn not_literal(&self) -> Result<Expr> {
        self.reject_literal(self.value()?)
    }

    /// Rejects a literal where it cannot be a value.
    pub(crate) fn reject_literal(&self, expression: Expr) -> Result<Expr> {
        if is_literal(&expression) {
            let message = format!("`{}` does not take a literal; write `{}`", self.name, self.form);
            return Err(Error::new_spanned(expression, message));
        }
        Ok(expression)
    }

    /// Parses `= expression`, unless the argument ends here.
    pub(crate) fn optional_value(&self) -> Result<Option<Expr>> {
        if self.is_at_end() { Ok(None) } else { self.not_literal().map(Some) }
    }

    /// Parses `(expression, ..)`.
    pub(crate) fn expressions(&self) -> Result<Vec<Expr>> {
        self.list(|input| input.parse().map_err(|error: Error| self.not_an_expression(&error)))
    }

    /// Parses `(item, ..)` with at least one item.
    pub(crate) fn list<T>(&self, item: impl Fn(ParseStream<'_>) -> Result<T>) -> Result<Vec<T>> {
        let content;
        if !self.rest.peek(syn::token::Paren) {
            let message = format!("write `{}`, with parentheses", self.form);
            return Err(Error::new(self.name.span(), message));
        }
        let input = self.rest;
        syn::parenthesized!(content in input);
        let mut items = Vec::new();
        while !content.is_empty() {
            match item(&content).and_then(|item| self.list_comma(&content).map(|()| item)) {
                Ok(item) => items.push(item),
                Err(error) => {
                    // What is left over would be another error.
                    content.parse::<TokenStream>()?;
                    return Err(error);
                }
            }
        }
        if items.is_empty() {
            let message = format!("`{}()` names nothing; remove it", self.name);
            return Err(Error::new(self.name.span(), message));
        }
        Ok(items)
    }

    fn list_comma(&self, content: ParseStream<'_>) -> Result<()> {
        if content.is_empty() || content.parse::<Token![,]>().is_ok() {
            return Ok(());
        }
        let next = content.fork().parse::<TokenTree>()?;
        let message = format!("write a comma before this, as in `{}(a, b)`", self.name);
        Err(Error::new_spanned(next, message))
    }

    fn not_an_expression(&self, error: &Error) -> Error {
        let message = format!("this is not an expression; write `{}`", self.form);
        Error::new(error.span(), message)
    }
}

fn without_groups(mut expression: Expr) -> Expr {
    while let Expr::Group(group) = expression {
        expression = *group.expr;
    }
    expression
}

pub(crate) fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(_) => true,
        Expr::Unary(unary) => matches!(unary.op, UnOp::Neg(_)) && is_literal(&unary.expr),
        _ => false,
    }
}
