//! The values of the arguments, other than times.

use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Error, Expr, ExprClosure, Ident, Lit, LitBool, Path, Result, Token};

use crate::cached::args::format::check_format;
use crate::cached::args::literal::{Literal, parse_literal, quoted};
use crate::cached::args::written::{Written, is_literal};
use crate::duration;

/// The value of `key`.
pub(crate) enum KeySource {
    /// A string literal, or an expression.
    Expression(Box<Expr>),
    Closure(ExprClosure),
}

/// The companion function that returns the entry of a call.
pub(crate) struct Handle {
    pub(crate) name: Ident,
    /// True for `Self::name`.
    pub(crate) is_associated: bool,
}

/// `skip(name, ..)` or `own(name, ..)`.
pub(crate) struct NameList {
    pub(crate) keyword: Ident,
    pub(crate) names: Vec<Ident>,
}

pub(crate) fn parse_cache(written: &Written<'_>) -> Result<Expr> {
    let expression = written.value()?;
    if let Expr::Lit(literal) = &expression {
        let message = "`cache` is an expression for a cache, not its URL; write `cache = PAGES` with \
                       `static PAGES: LazyLock<AnyCache> = LazyLock::new(|| vayu::open(..).unwrap())`";
        return Err(Error::new_spanned(literal, message));
    }
    Ok(expression)
}

/// Parses an integer that is at least 1, or an expression.
pub(crate) fn parse_limit(written: &Written<'_>) -> Result<Expr> {
    let (name, expression) = (written.name.to_string(), written.value()?);
    if let Expr::Lit(literal) = &expression
        && let Literal::Integer(number) =
            parse_literal(&name, &literal.lit, |_| vec!["1_000".to_owned()])?
        && number.parse::<u64>().is_ok_and(|number| number > 0)
    {
        return Ok(expression);
    }
    if is_literal(&expression) || matches!(expression, Expr::Closure(_)) {
        let message = format!("`{name}` is an integer of at least 1; write `{}`", written.form);
        return Err(Error::new_spanned(expression, message));
    }
    Ok(expression)
}

pub(crate) fn parse_prefix(written: &Written<'_>) -> Result<Expr> {
    let expression = written.value()?;
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

pub(crate) fn parse_key(written: &Written<'_>) -> Result<KeySource> {
    match written.value()? {
        Expr::Closure(closure) => Ok(KeySource::Closure(closure)),
        Expr::Lit(literal) if !matches!(literal.lit, Lit::Str(_)) => {
            let message = "a key is a string; write `key = format!(\"{id}\")`, or leave `key` out to \
                           use all the arguments";
            Err(Error::new_spanned(literal, message))
        }
        expression => Ok(KeySource::Expression(Box::new(expression))),
    }
}

/// Parses the names of `skip(..)`.
pub(crate) fn parse_skip(written: &Written<'_>) -> Result<NameList> {
    Ok(NameList { keyword: written.name.clone(), names: written.list(skipped_name)? })
}

/// Parses one name of `skip(..)`.
fn skipped_name(input: ParseStream<'_>) -> Result<Ident> {
    let message = "`skip` takes names of arguments; write `skip(client)`";
    let start = input.span();
    let name = input.call(Ident::parse_any).map_err(|_| Error::new(start, message))?;
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(name);
    }
    let message = format!(
        "`skip` takes names of arguments; write `skip({name})`, and `include(..)` for a part of it \
         that is to be in the key"
    );
    Err(Error::new(name.span(), message))
}

/// Parses the names of `own(..)`.
pub(crate) fn parse_own(written: &Written<'_>) -> Result<NameList> {
    Ok(NameList { keyword: written.name.clone(), names: written.list(owned_name)? })
}

/// Parses one name of `own(..)`.
fn owned_name(input: ParseStream<'_>) -> Result<Ident> {
    let message = "`own` takes names of borrowed arguments; write `own(url, self)`";
    let start = input.span();
    let name = input.call(Ident::parse_any).map_err(|_| Error::new(start, message))?;
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(name);
    }
    Err(Error::new(name.span(), message))
}

/// Parses a condition on the arguments of a call.
pub(crate) fn parse_condition(written: &Written<'_>) -> Result<Expr> {
    let expression = written.value()?;
    if let Expr::Closure(closure) = expression {
        let (name, form) = (&written.name, written.form);
        let message = format!("`{name}` is a `bool` that may use the arguments; write `{form}`");
        return Err(Error::new_spanned(closure, message));
    }
    written.reject_literal(expression)
}

/// Parses a percentage of the ttl, returned in thousandths.
pub(crate) fn parse_jitter(written: &Written<'_>) -> Result<u16> {
    let expression = written.value()?;
    if let Expr::Lit(literal) = &expression
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

/// Parses an integer or a string. A prefix keeps `1` and `"1"` distinct.
pub(crate) fn parse_version(written: &Written<'_>) -> Result<String> {
    let expression = written.value()?;
    if let Expr::Lit(literal) = &expression {
        match parse_literal("version", &literal.lit, |written| quoted(&[written.to_owned()]))? {
            Literal::Integer(number) => return Ok(format!("i{number}")),
            Literal::String(text) => return Ok(format!("s{text}")),
            Literal::Float(_) | Literal::Other => {}
        }
    }
    let message = "a version is an integer or a string; write `version = 2`";
    Err(Error::new_spanned(expression, message))
}

pub(crate) fn parse_tags(written: &Written<'_>) -> Result<Vec<Expr>> {
    let tags = written.expressions()?;
    for tag in &tags {
        check_format(tag, |formatted| format!("tags({formatted})"))?;
    }
    Ok(tags)
}

pub(crate) fn parse_label(written: &Written<'_>) -> Result<Expr> {
    let expression = written.value()?;
    if let Expr::Closure(closure) = expression {
        let message = "`label` may use the arguments as they are; write `label = \"{name}\"` or \
                       another expression that is `Display`";
        return Err(Error::new_spanned(closure, message));
    }
    check_format(&expression, |formatted| format!("label = {formatted}"))?;
    Ok(expression)
}

pub(crate) fn parse_log(written: &Written<'_>) -> Result<bool> {
    let expression = written.value()?;
    if let Expr::Lit(literal) = &expression
        && let Lit::Bool(LitBool { value, .. }) = &literal.lit
    {
        return Ok(*value);
    }
    Err(Error::new_spanned(expression, "write `log = true` or `log = false`"))
}

/// Parses `name` or `Self::name`.
pub(crate) fn parse_handle(written: &Written<'_>) -> Result<Handle> {
    written.equals()?;
    let input = written.rest;
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
        Some(name) if written.is_at_end() => {
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

/// Parses the name of an argument.
pub(crate) fn parse_each(written: &Written<'_>) -> Result<Ident> {
    let expression = written.value()?;
    if let Expr::Path(path) = &expression
        && let Some(name) = path.path.get_ident()
    {
        return Ok(name.clone());
    }
    let message = "`each` is the name of the argument with the elements; write `each = ids`";
    Err(Error::new_spanned(expression, message))
}

pub(crate) fn parse_crate(written: &Written<'_>) -> Result<Path> {
    written.equals()?;
    let start = written.rest.span();
    let path = written.rest.call(Path::parse_mod_style);
    let message = "`crate` is the path of this crate; write `crate = renamed`";
    path.map_err(|_| Error::new(start, message))
}
