//! The arguments of the attribute, parsed but not yet checked against the function.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprClosure, Ident, Lit, LitBool, Path, Result, Token, UnOp};

use crate::cached::Attribute;
use crate::diagnostics::Diagnostics;
use crate::duration;

const KNOWN: &str = "`ttl`, `stale`, `spawn`, `jitter`, `cache`, `prefix`, `key`, `skip`, `include`, \
                     `serializer`, `log`, `cache_if`, `version`, `tags`, `label`, `handle` and `crate`";

/// All arguments.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) ttl: Option<Ttl>,
    pub(crate) cache: Option<Expr>,
    pub(crate) key: Option<KeySource>,
    pub(crate) skip: Option<Skip>,
    pub(crate) serializer: Option<Expr>,
    pub(crate) handle: Option<Handle>,
    pub(crate) root: Option<Path>,
    pub(crate) options: Options,
}

/// The arguments that code is generated from as they are. The others are first combined with the function.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) stale: Option<Time>,
    pub(crate) spawn: Option<Expr>,
    /// In thousandths.
    pub(crate) jitter: Option<u16>,
    pub(crate) prefix: Option<Expr>,
    pub(crate) include: Vec<Expr>,
    pub(crate) is_quiet: bool,
    pub(crate) cache_if: Option<Expr>,
    pub(crate) version: Option<String>,
    pub(crate) tags: Vec<Expr>,
    pub(crate) label: Option<Expr>,
}

/// The value of `ttl`.
pub(crate) enum Ttl {
    Fixed(Time),
    ByValue(ExprClosure),
}

/// A duration, as a literal or as an expression.
pub(crate) enum Time {
    Fixed(Duration),
    Expression(Box<Expr>),
}

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

/// `skip(name, ..)`.
pub(crate) struct Skip {
    pub(crate) keyword: Ident,
    pub(crate) names: Vec<Ident>,
}

impl Arguments {
    pub(crate) fn parse(
        attribute: Attribute,
        tokens: TokenStream,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut arguments = Self::default();
        let mut seen: Vec<Ident> = Vec::new();
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                if let Err(error) = arguments.parse_one(attribute, input, &mut seen) {
                    diagnostics.push(error);
                    skip_to_comma(input)?;
                }
                if input.is_empty() {
                    break;
                }
                if let Err(error) = input.parse::<Token![,]>() {
                    diagnostics.push(error);
                    skip_to_comma(input)?;
                    input.parse::<Option<Token![,]>>()?;
                }
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            diagnostics.push(error);
        }
        if !seen.iter().any(|name| name == "ttl") {
            let message = format!(
                "`ttl` is missing: say how long a result is cached; write \
                 `#[{}(ttl = \"5m\")]`",
                attribute.name()
            );
            diagnostics.push(Error::new(Span::call_site(), message));
        }
        arguments
    }

    fn parse_one(
        &mut self,
        attribute: Attribute,
        input: ParseStream<'_>,
        seen: &mut Vec<Ident>,
    ) -> Result<()> {
        let name = input.call(Ident::parse_any)?;
        let text = name.to_string();
        if seen.contains(&name) {
            return Err(Error::new(name.span(), format!("`{text}` is given twice; remove one")));
        }
        seen.push(name.clone());
        match text.as_str() {
            "ttl" => self.ttl = Some(parse_ttl(value(input)?)?),
            "stale" => self.options.stale = Some(parse_stale(value(input)?)?),
            "spawn" => self.options.spawn = Some(value(input)?),
            "jitter" => self.options.jitter = Some(parse_jitter(&value(input)?)?),
            "cache" if attribute == Attribute::MemCached => {
                let message = "`mem_cached` always uses `vayu::mem_cache()`; write \
                               `#[cached(cache = ..)]`";
                return Err(Error::new(name.span(), message));
            }
            "cache" => self.cache = Some(value(input)?),
            "prefix" => self.options.prefix = Some(parse_prefix(value(input)?)?),
            "key" => {
                self.key = Some(match value(input)? {
                    Expr::Closure(closure) => KeySource::Closure(closure),
                    expression => KeySource::Expression(Box::new(expression)),
                });
            }
            "skip" => {
                let names = list(input, &name, Ident::parse_any)?;
                self.skip = Some(Skip { keyword: name, names });
            }
            "tags" => self.options.tags = list(input, &name, Expr::parse)?,
            "label" if attribute == Attribute::MemCached => {
                let message = "a label is stored in files and on servers only; `mem_cached` keeps \
                               its entries in memory";
                return Err(Error::new(name.span(), message));
            }
            "label" => self.options.label = Some(parse_label(value(input)?)?),
            "include" => self.options.include = list(input, &name, Expr::parse)?,
            "serializer" => self.serializer = Some(value(input)?),
            "log" => self.options.is_quiet = !parse_log(&value(input)?)?,
            "cache_if" => self.options.cache_if = Some(value(input)?),
            "version" => self.options.version = Some(parse_version(&value(input)?)?),
            "handle" => {
                input.parse::<Token![=]>()?;
                self.handle = Some(parse_handle(input)?);
            }
            "crate" => {
                input.parse::<Token![=]>()?;
                self.root = Some(input.call(Path::parse_mod_style)?);
            }
            _ => {
                let message = format!("unknown argument `{text}`; the arguments are {KNOWN}");
                return Err(Error::new(name.span(), message));
            }
        }
        Ok(())
    }
}

/// Skips the rest of an argument that failed to parse.
fn skip_to_comma(input: ParseStream<'_>) -> Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

/// Parses `= expression` and removes the invisible group that a macro may have put around it.
fn value(input: ParseStream<'_>) -> Result<Expr> {
    input.parse::<Token![=]>()?;
    let mut expression = input.parse()?;
    while let Expr::Group(group) = expression {
        expression = *group.expr;
    }
    Ok(expression)
}

/// Parses `(item, ..)` with at least one item.
fn list<T>(
    input: ParseStream<'_>,
    name: &Ident,
    item: fn(ParseStream<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let content;
    if !input.peek(syn::token::Paren) {
        return Err(Error::new(name.span(), format!("write `{name}(..)` with parentheses")));
    }
    syn::parenthesized!(content in input);
    let items = Punctuated::<T, Token![,]>::parse_terminated_with(&content, item)?;
    if items.is_empty() {
        return Err(Error::new(name.span(), format!("`{name}()` names nothing; remove it")));
    }
    Ok(items.into_iter().collect())
}

fn parse_ttl(expression: Expr) -> Result<Ttl> {
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

fn parse_stale(expression: Expr) -> Result<Time> {
    if let Expr::Closure(closure) = expression {
        let message = "`stale` is the same for all values; write `stale = \"30s\"`";
        return Err(Error::new_spanned(closure, message));
    }
    parse_time("stale", expression)
}

fn parse_label(expression: Expr) -> Result<Expr> {
    if let Expr::Closure(closure) = expression {
        let message = "`label` may use the arguments as they are; write `label = \"{name}\"` or \
                       another expression that is `Display`";
        return Err(Error::new_spanned(closure, message));
    }
    Ok(expression)
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
        _ => return Ok(Time::Expression(Box::new(expression))),
    };
    if time.is_zero() {
        return Err(not_positive(name, &expression));
    }
    Ok(Time::Fixed(time))
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
    duration::parse(text).map_err(|error| {
        let reason = &error.reason;
        let message = if error.suggestions.is_empty() {
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
fn parse_jitter(expression: &Expr) -> Result<u16> {
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

fn parse_prefix(expression: Expr) -> Result<Expr> {
    if let Expr::Lit(literal) = &expression
        && let Lit::Str(text) = &literal.lit
        && text.value().is_empty()
    {
        let message = "an empty `prefix` tells nothing apart; name the function";
        return Err(Error::new_spanned(text, message));
    }
    Ok(expression)
}

/// Parses `name` or `Self::name`.
fn parse_handle(input: ParseStream<'_>) -> Result<Handle> {
    let start = input.span();
    let path = input.parse::<Path>().ok();
    let names: Vec<&Ident> =
        path.iter().flat_map(|p| p.segments.iter().map(|s| &s.ident)).collect();
    match names[..] {
        [name] => Ok(Handle { name: name.clone(), is_associated: false }),
        [owner, name] if owner == "Self" => Ok(Handle { name: name.clone(), is_associated: true }),
        _ => {
            let message = "`handle` is the name of a function to add; write `handle = rates_entry`, \
                           or `handle = Self::rates_entry` beside an associated function";
            Err(Error::new(start, message))
        }
    }
}

fn parse_log(expression: &Expr) -> Result<bool> {
    if let Expr::Lit(literal) = expression
        && let Lit::Bool(LitBool { value, .. }) = &literal.lit
    {
        return Ok(*value);
    }
    Err(Error::new_spanned(expression, "write `log = true` or `log = false`"))
}

/// Parses an integer or a string. A prefix keeps `1` and `"1"` distinct.
fn parse_version(expression: &Expr) -> Result<String> {
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
