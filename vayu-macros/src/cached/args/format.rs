//! Strings with inline arguments, as in `format!`.

use quote::ToTokens;
use syn::{Error, Expr, ExprLit, Lit, Result};

/// Rejects a string with an expression in braces, or with none, where `format_args!` takes names only. `argument` returns
/// the argument with a call of `format!` as its value.
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
        if value.bytes().all(|byte| byte.is_ascii_digit()) && end < braces.len() {
            let example = argument(&format!("format!({written}, ..)"));
            let message = format!(
                "`{{{value}}}` in this string stands for no argument; write the name of one in the braces, or \
                 `{example}`"
            );
            return Err(Error::new_spanned(literal, message));
        }
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
