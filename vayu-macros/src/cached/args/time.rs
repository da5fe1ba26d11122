//! Times: of `ttl` and its like, and the values that are made of them.

use std::time::Duration;

use quote::ToTokens;
use syn::{Error, Expr, ExprClosure, Lit, Result, UnOp};

use crate::cached::args::literal::{Literal, alternatives, parse_literal, quoted};
use crate::cached::args::written::Written;
use crate::duration;

/// The value of `ttl`.
pub(crate) enum Ttl {
    Fixed(Time),
    ByValue(ExprClosure),
    /// The value of `expires_at`.
    ExpiresAt(Box<Expr>),
}

/// The value of `err_ttl`.
pub(crate) enum ErrTtl {
    Fixed(Time),
    ByError(ExprClosure),
}

/// A duration, as a literal or as an expression.
pub(crate) enum Time {
    Fixed(Duration),
    Expression(Box<Expr>),
}

pub(crate) fn parse_ttl(written: &Written<'_>) -> Result<Ttl> {
    match written.value()? {
        Expr::Closure(closure) if closure.inputs.len() == 1 => Ok(Ttl::ByValue(closure)),
        Expr::Closure(closure) => {
            let message = "a `ttl` closure is called with a reference to the value; write \
                           `ttl = |value| ..`";
            Err(Error::new_spanned(closure, message))
        }
        expression => parse_time("ttl", expression).map(Ttl::Fixed),
    }
}

pub(crate) fn parse_expires_at(written: &Written<'_>) -> Result<Ttl> {
    let expression = written.value()?;
    if let Expr::Closure(closure) = &expression
        && closure.inputs.len() != 1
    {
        let message = "an `expires_at` closure is called with a reference to the value; write \
                       `expires_at = |value| ..`";
        return Err(Error::new_spanned(closure, message));
    }
    if let Expr::Path(path) = &expression
        && path.path.is_ident("None")
    {
        return Err(endless("ttl", expression));
    }
    written.reject_literal(expression).map(|expression| Ttl::ExpiresAt(Box::new(expression)))
}

pub(crate) fn parse_err_ttl(written: &Written<'_>) -> Result<ErrTtl> {
    let expression = written.value()?;
    if let Expr::Closure(closure) = expression {
        if closure.inputs.len() != 1 {
            let message = "an `err_ttl` closure is called with a reference to the error; write \
                           `err_ttl = |error| ..`";
            return Err(Error::new_spanned(closure, message));
        }
        return Ok(ErrTtl::ByError(closure));
    }
    parse_time("err_ttl", expression).map(ErrTtl::Fixed)
}

/// Parses a time that is the same for all values. `example` is one in the message about a closure.
pub(crate) fn parse_time_of_all(written: &Written<'_>, example: &str) -> Result<Time> {
    let (name, expression) = (written.name.to_string(), written.value()?);
    if let Expr::Closure(closure) = expression {
        let message =
            format!("`{name}` is the same for all values; write `{name} = \"{example}\"`");
        return Err(Error::new_spanned(closure, message));
    }
    parse_time(&name, expression)
}

/// Parses a duration. A literal must be longer than zero; expressions are checked at run time.
fn parse_time(name: &str, expression: Expr) -> Result<Time> {
    let time = match &expression {
        Expr::Lit(literal) => parse_time_literal(name, &literal.lit)?,
        Expr::Unary(unary)
            if matches!(unary.op, UnOp::Neg(_)) && matches!(*unary.expr, Expr::Lit(_)) =>
        {
            return Err(not_positive(name, &expression));
        }
        Expr::Path(path) if path.path.is_ident("None") => return Err(endless(name, &expression)),
        expression if is_arithmetic(expression) => {
            let message = format!(
                "`{name}` is a time, not a number; write `{name} = \"5m\"`, or \
                 `{name} = Duration::from_secs({})`",
                expression.to_token_stream()
            );
            return Err(Error::new_spanned(expression, message));
        }
        _ => return Ok(Time::Expression(Box::new(expression))),
    };
    if time.is_zero() {
        return Err(not_positive(name, &expression));
    }
    Ok(Time::Fixed(time))
}

/// Returns whether a word stands for a time without an end.
fn is_endless(word: &str) -> bool {
    const WORDS: [&str; 17] = [
        "forever",
        "never",
        "none",
        "inf",
        "infinite",
        "infinity",
        "endless",
        "eternal",
        "always",
        "unlimited",
        "permanent",
        "unbounded",
        "max",
        "static",
        "no expiry",
        "no ttl",
        "∞",
    ];
    WORDS.contains(&word.trim().to_lowercase().replace(['-', '_'], " ").as_str())
}

fn endless(name: &str, tokens: impl ToTokens) -> Error {
    let message = if name == "stale" {
        "write `stale = Duration::MAX` to serve an old value without a limit, or remove `stale` to serve none"
            .to_owned()
    } else if name == "idle" {
        "remove `idle` for entries that expire by their ttl alone".to_owned()
    } else {
        format!("write `{name} = Duration::MAX` for entries that do not expire")
    };
    Error::new_spanned(tokens, message)
}

/// Returns whether an expression is a calculation with number literals only.
fn is_arithmetic(expression: &Expr) -> bool {
    fn is_number(expression: &Expr) -> bool {
        match expression {
            Expr::Lit(literal) => matches!(literal.lit, Lit::Int(_) | Lit::Float(_)),
            Expr::Paren(inner) => is_number(&inner.expr),
            Expr::Binary(binary) => is_number(&binary.left) && is_number(&binary.right),
            Expr::Cast(cast) => is_number(&cast.expr),
            _ => false,
        }
    }
    !matches!(expression, Expr::Lit(_)) && is_number(expression)
}

fn parse_time_literal(name: &str, literal: &Lit) -> Result<Duration> {
    let suggestions = |written: &str| match duration::parse(written) {
        Ok(_) => quoted(&[written.to_owned()]),
        Err(error) if !error.suggestions.is_empty() => quoted(&error.suggestions),
        Err(_) => vec!["\"30s\"".to_owned()],
    };
    match parse_literal(name, literal, suggestions)? {
        Literal::String(text) => parse_duration(name, literal, &text),
        Literal::Integer(number) | Literal::Float(number) => duration::parse_seconds(&number)
            .map_err(|error| {
                let message = format!(
                    "`{number}` is not a number of seconds ({}); write `{name} = \"30s\"`, or \
                     `{name} = Duration::MAX` for one that never ends",
                    error.reason
                );
                Error::new_spanned(literal, message)
            }),
        Literal::Other => {
            let message = format!("`{name}` is a time; write `{name} = \"30s\"`");
            Err(Error::new_spanned(literal, message))
        }
    }
}

fn parse_duration(name: &str, literal: &Lit, text: &str) -> Result<Duration> {
    if text.trim_start().starts_with('-') {
        return Err(not_positive(name, literal));
    }
    if is_endless(text) {
        return Err(endless(name, literal));
    }
    duration::parse(text).map_err(|error| {
        let reason = &error.reason;
        let message = if duration::parse_seconds(text).is_ok() {
            format!(
                "`{text}` has no unit; write `{name} = {text}` for seconds, or a unit, like \
                 `{name} = \"{text}m\"`"
            )
        } else if error.suggestions.is_empty() {
            format!(
                "`{text}` is not a time ({reason}); write a number and a unit, like \
                 `{name} = \"30s\"` or `{name} = \"1h 30m\"`"
            )
        } else {
            let suggestions = alternatives(name, &quoted(&error.suggestions));
            format!("`{text}` is not a time ({reason}); write {suggestions}")
        };
        Error::new_spanned(literal, message)
    })
}

fn not_positive(name: &str, tokens: impl ToTokens) -> Error {
    let message = format!("`{name}` must be longer than zero; write `{name} = \"30s\"`");
    Error::new_spanned(tokens, message)
}
