//! Literals in the values of arguments.

use quote::ToTokens;
use syn::{Error, Lit, Result};

/// A literal without a suffix.
pub(crate) enum Literal {
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
pub(crate) fn parse_literal(
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
pub(crate) fn alternatives(name: &str, values: &[String]) -> String {
    let assignments: Vec<String> =
        values.iter().map(|value| format!("`{name} = {value}`")).collect();
    assignments.join(" or ")
}

pub(crate) fn quoted(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| format!("\"{text}\"")).collect()
}
