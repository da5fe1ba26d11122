//! The values of the arguments of the attribute.

use std::time::Duration;

use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Error, Expr, ExprLit, Ident, Lit, LitBool, Result, Token, UnOp};

use crate::cached::args::{ErrTtl, Handle, KeySource, Time, Ttl, is_literal, not_literal};
use crate::cached::names::form;
use crate::duration;

pub(super) fn parse_cache(expression: Expr) -> Result<Expr> {
    if let Expr::Lit(literal) = &expression {
        let message = "`cache` is an expression for a cache, not its URL; write `cache = PAGES` with \
                       `static PAGES: LazyLock<AnyCache> = LazyLock::new(|| vayu::open(..).unwrap())`";
        return Err(Error::new_spanned(literal, message));
    }
    Ok(expression)
}

/// Parses an integer that is at least 1, or an expression.
pub(super) fn parse_limit(name: &str, expression: Expr) -> Result<Expr> {
    if let Expr::Lit(literal) = &expression
        && let Literal::Integer(number) =
            parse_literal(name, &literal.lit, |_| vec!["1_000".to_owned()])?
        && number.parse::<u64>().is_ok_and(|number| number > 0)
    {
        return Ok(expression);
    }
    if is_literal(&expression) || matches!(expression, Expr::Closure(_)) {
        let message = format!("`{name}` is an integer of at least 1; write `{}`", form(name));
        return Err(Error::new_spanned(expression, message));
    }
    Ok(expression)
}

pub(super) fn parse_key(expression: Expr) -> Result<KeySource> {
    match expression {
        Expr::Closure(closure) => Ok(KeySource::Closure(closure)),
        Expr::Lit(literal) if !matches!(literal.lit, Lit::Str(_)) => {
            let message = "a key is a string; write `key = format!(\"{id}\")`, or leave `key` out to \
                           use all the arguments";
            Err(Error::new_spanned(literal, message))
        }
        expression => Ok(KeySource::Expression(Box::new(expression))),
    }
}

pub(super) fn parse_ttl(expression: Expr) -> Result<Ttl> {
    match expression {
        Expr::Closure(closure) if closure.inputs.len() == 1 => Ok(Ttl::ByValue(closure)),
        Expr::Closure(closure) => {
            let message = "a `ttl` closure is called with a reference to the value; write \
                           `ttl = |value| ..`";
            Err(Error::new_spanned(closure, message))
        }
        expression => parse_time("ttl", expression).map(Ttl::Fixed),
    }
}

pub(super) fn parse_expires_at(expression: Expr, name: &Ident) -> Result<Ttl> {
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
    not_literal(expression, name).map(|expression| Ttl::ExpiresAt(Box::new(expression)))
}

pub(super) fn parse_stale(expression: Expr) -> Result<Time> {
    if let Expr::Closure(closure) = expression {
        let message = "`stale` is the same for all values; write `stale = \"30s\"`";
        return Err(Error::new_spanned(closure, message));
    }
    parse_time("stale", expression)
}

pub(super) fn parse_patience(expression: Expr) -> Result<Time> {
    if let Expr::Closure(closure) = expression {
        let message = "`patience` is the same for all values; write `patience = \"50ms\"`";
        return Err(Error::new_spanned(closure, message));
    }
    parse_time("patience", expression)
}

pub(super) fn parse_err_ttl(expression: Expr) -> Result<ErrTtl> {
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

pub(super) fn parse_idle(expression: Expr) -> Result<Time> {
    if let Expr::Closure(closure) = expression {
        let message = "`idle` is the same for all values; write `idle = \"10m\"`";
        return Err(Error::new_spanned(closure, message));
    }
    parse_time("idle", expression)
}

/// Parses a condition on the arguments of a call.
pub(super) fn parse_condition(expression: Expr, name: &Ident) -> Result<Expr> {
    if let Expr::Closure(closure) = expression {
        let form = form(&name.to_string());
        let message = format!("`{name}` is a `bool` that may use the arguments; write `{form}`");
        return Err(Error::new_spanned(closure, message));
    }
    not_literal(expression, name)
}

pub(super) fn parse_label(expression: Expr) -> Result<Expr> {
    if let Expr::Closure(closure) = expression {
        let message = "`label` may use the arguments as they are; write `label = \"{name}\"` or \
                       another expression that is `Display`";
        return Err(Error::new_spanned(closure, message));
    }
    check_format(&expression, |formatted| format!("label = {formatted}"))?;
    Ok(expression)
}

/// Rejects a string with an expression in braces, where `format_args!` takes names only. `argument` returns the
/// argument with a call of `format!` as its value.
pub(crate) fn check_format(expression: &Expr, argument: impl Fn(&str) -> String) -> Result<()> {
    let Expr::Lit(ExprLit { lit: Lit::Str(literal), .. }) = expression else { return Ok(()) };
    let written = literal.to_token_stream().to_string();
    let (mut format, mut values) = (String::new(), String::new());
    let mut rest = &written[..];
    while let Some(start) = rest.find('{') {
        let (before, braces) = rest.split_at(start);
        format.push_str(before);
        if let Some(after) = braces.strip_prefix("{{") {
            format.push_str("{{");
            rest = after;
            continue;
        }
        let end = braces.find([':', '}']).unwrap_or(braces.len());
        let value = &braces[1..end];
        format.push('{');
        if value.contains(['.', '(', '[']) {
            values.push_str(", ");
            values.push_str(value.trim());
        } else {
            format.push_str(value);
        }
        rest = &braces[end..];
    }
    format.push_str(rest);
    if values.is_empty() {
        return Ok(());
    }
    let argument = argument(&format!("format!({format}{values})"));
    let message = format!("braces in this string take names only; write `{argument}`");
    Err(Error::new_spanned(literal, message))
}

/// A literal without a suffix.
enum Literal {
    /// Decimal digits.
    Integer(String),
    /// A number with a decimal point or an exponent.
    Float(String),
    String(String),
    /// Neither a number nor a string.
    Other,
}

/// Parses a literal of the argument `name`. A suffix is an error, which proposes what `suggestions`
/// returns for the literal.
fn parse_literal(
    name: &str,
    literal: &Lit,
    suggestions: impl Fn(&str) -> Vec<String>,
) -> Result<Literal> {
    let (parsed, kind) = match literal {
        Lit::Int(number) => (Literal::Integer(number.base10_digits().to_owned()), "number"),
        Lit::Float(number) => (Literal::Float(number.base10_digits().to_owned()), "number"),
        Lit::Str(text) => (Literal::String(text.value()), "string"),
        _ => return Ok(Literal::Other),
    };
    let suffix = literal.suffix();
    if suffix.is_empty() {
        return Ok(parsed);
    }
    let written = literal.to_token_stream().to_string();
    let suggestions = if kind == "string" || NUMBER_TYPES.contains(&suffix) {
        let bare = written.strip_suffix(suffix).unwrap_or(&written);
        vec![bare.trim_end_matches('_').to_owned()]
    } else {
        suggestions(&written)
    };
    let message =
        format!("`{written}` is not a {kind}; write {}", alternatives(name, &suggestions));
    Err(Error::new_spanned(literal, message))
}

const NUMBER_TYPES: [&str; 14] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32",
    "f64",
];

/// Joins proposed values of an argument: `` `name = value` or `name = value` ``.
fn alternatives(name: &str, values: &[String]) -> String {
    let assignments: Vec<String> =
        values.iter().map(|value| format!("`{name} = {value}`")).collect();
    assignments.join(" or ")
}

fn quoted(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| format!("\"{text}\"")).collect()
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

/// Parses a percentage of the ttl, returned in thousandths.
pub(super) fn parse_jitter(expression: &Expr) -> Result<u16> {
    if let Expr::Lit(literal) = expression
        && let Literal::String(text) =
            parse_literal("jitter", &literal.lit, |_| vec!["\"10%\"".to_owned()])?
        && let Some(percent) = text.strip_suffix('%')
        && let Ok(thousandths) = duration::scaled(percent.trim(), 10)
        && let Ok(thousandths @ 1..=500) = u16::try_from(thousandths)
    {
        return Ok(thousandths);
    }
    let message = "`jitter` is a part of the ttl, of half of it at most; write `jitter = \"10%\"`";
    Err(Error::new_spanned(expression, message))
}

pub(super) fn parse_prefix(expression: Expr) -> Result<Expr> {
    if let Expr::Lit(literal) = &expression {
        let message = match &literal.lit {
            Lit::Str(text) if text.value().is_empty() => {
                "an empty `prefix` tells nothing apart; name the function"
            }
            Lit::Str(_) => return Ok(expression),
            _ => "a `prefix` is a string; write `prefix = \"users\"`",
        };
        return Err(Error::new_spanned(literal, message));
    }
    Ok(expression)
}

/// Parses the name of an argument.
pub(super) fn parse_each(expression: Expr) -> Result<Ident> {
    if let Expr::Path(path) = &expression
        && let Some(name) = path.path.get_ident()
    {
        return Ok(name.clone());
    }
    let message = "`each` is the name of the argument with the elements; write `each = ids`";
    Err(Error::new_spanned(expression, message))
}

/// Parses `name` or `Self::name`.
pub(super) fn parse_handle(input: ParseStream<'_>) -> Result<Handle> {
    let start = input.span();
    let first = input.call(Ident::parse_any).ok();
    let is_associated = first.as_ref().is_some_and(|name| name == "Self") && input.peek(Token![::]);
    let name = if is_associated {
        input.parse::<Token![::]>()?;
        input.call(Ident::parse_any).ok()
    } else {
        first
    };
    match name {
        Some(name) if input.is_empty() || input.peek(Token![,]) => {
            if syn::parse2::<Ident>(name.to_token_stream()).is_err() {
                let message = format!("`{name}` is not a name; write `handle = user_entry`");
                return Err(Error::new(name.span(), message));
            }
            Ok(Handle { name, is_associated })
        }
        _ => {
            let message = "`handle` is the name of a function to add; write `handle = rates_entry`, \
                           or `handle = Self::rates_entry` beside an associated function";
            Err(Error::new(start, message))
        }
    }
}

pub(super) fn parse_log(expression: &Expr) -> Result<bool> {
    if let Expr::Lit(literal) = expression
        && let Lit::Bool(LitBool { value, .. }) = &literal.lit
    {
        return Ok(*value);
    }
    Err(Error::new_spanned(expression, "write `log = true` or `log = false`"))
}

/// Parses an integer or a string. A prefix keeps `1` and `"1"` distinct.
pub(super) fn parse_version(expression: &Expr) -> Result<String> {
    if let Expr::Lit(literal) = expression {
        match parse_literal("version", &literal.lit, |written| quoted(&[written.to_owned()]))? {
            Literal::Integer(number) => return Ok(format!("i{number}")),
            Literal::String(text) => return Ok(format!("s{text}")),
            Literal::Float(_) | Literal::Other => {}
        }
    }
    let message = "a version is an integer or a string; write `version = 2`";
    Err(Error::new_spanned(expression, message))
}
