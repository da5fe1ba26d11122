//! The arguments of the attribute, parsed but not yet checked against the function.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Expr, ExprClosure, ExprLit, Ident, Lit, LitBool, Path, Result, Token, UnOp};

use crate::cached::Attribute;
use crate::cached::names::{self, form, is_known};
use crate::diagnostics::Diagnostics;
use crate::duration;

/// All arguments.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) attribute: Attribute,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) cache: Option<Expr>,
    pub(crate) limits: Limits,
    pub(crate) key: Option<KeySource>,
    pub(crate) skip: Option<Skip>,
    pub(crate) serializer: Option<Expr>,
    pub(crate) handle: Option<Handle>,
    pub(crate) root: Option<Path>,
    pub(crate) options: Options,
    /// True if every argument was understood. If not, what seems to be missing is not reported.
    pub(crate) is_complete: bool,
    /// The arguments as they are written.
    pub(crate) text: String,
    /// Their names, including unknown ones.
    pub(crate) names: Vec<Ident>,
}

/// The arguments that code is generated from as they are. The others are first combined with the function.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) stale: Option<Time>,
    pub(crate) spawn: Option<Expr>,
    pub(crate) refresh_if: Option<Expr>,
    pub(crate) bypass_if: Option<Expr>,
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

/// The limits of a memory cache of the function's own, each with its name in the attribute.
#[derive(Default)]
pub(crate) struct Limits {
    pub(crate) max_entries: Option<(Ident, Expr)>,
    pub(crate) max_weight: Option<(Ident, Expr)>,
    pub(crate) weigh: Option<(Ident, Expr)>,
}

/// The value of `ttl`.
pub(crate) enum Ttl {
    Fixed(Time),
    ByValue(ExprClosure),
    /// The value of `expires_at`.
    ExpiresAt(Box<Expr>),
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
        let mut arguments =
            Self { attribute, is_complete: true, text: tokens.to_string(), ..Self::default() };
        if attribute == Attribute::SingleFlight {
            // The output is shared however long the computation took.
            arguments.ttl = Some(Ttl::Fixed(Time::Fixed(Duration::MAX)));
        }
        let mut seen: Vec<Ident> = Vec::new();
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                let parsed = arguments.parse_one(input, &mut seen);
                if let Err(error) = parsed.and_then(|()| comma(input, seen.last())) {
                    arguments.is_complete = false;
                    diagnostics.push(error);
                    skip_argument(input)?;
                }
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            arguments.is_complete = false;
            diagnostics.push(error);
        }
        if arguments.is_complete && arguments.ttl.is_none() {
            let message = format!(
                "`ttl` is missing: say how long a result is cached; write \
                 `#[{}(ttl = \"5m\")]`",
                attribute.name()
            );
            diagnostics.push(Error::new(Span::call_site(), message));
        }
        arguments
    }

    fn parse_one(&mut self, input: ParseStream<'_>, seen: &mut Vec<Ident>) -> Result<()> {
        let attribute = self.attribute;
        let name = name(input)?;
        let text = name.to_string();
        self.names.push(name.clone());
        if seen.contains(&name) {
            return Err(Error::new(name.span(), format!("`{text}` is given twice; remove one")));
        }
        if !is_known(&text) {
            let is_alone = input.is_empty() || input.peek(Token![,]);
            let message = if is_alone && text.len() > 1 && text == text.to_uppercase() {
                format!("each argument has a name; write `cache = {text}`")
            } else {
                names::unknown(&text, literal_after(input).as_ref())
            };
            return Err(Error::new(name.span(), message));
        }
        if !attribute.takes(&text) {
            let message = format!(
                "`single_flight` stores nothing, so it does not take `{text}`; remove it, or write \
                 `#[cached(..)]` for results that are stored"
            );
            return Err(Error::new(name.span(), message));
        }
        seen.push(name.clone());
        match text.as_str() {
            "ttl" | "expires_at" if self.ttl.is_some() => {
                let message =
                    "`ttl` and `expires_at` both say when a value expires; remove one of the two";
                return Err(Error::new(name.span(), message));
            }
            "ttl" => self.ttl = Some(parse_ttl(value(input, &name)?)?),
            "expires_at" => self.ttl = Some(parse_expires_at(value(input, &name)?, &name)?),
            "stale" => self.options.stale = Some(parse_stale(value(input, &name)?)?),
            "spawn" => self.options.spawn = Some(not_literal(value(input, &name)?, &name)?),
            "refresh_if" => {
                self.options.refresh_if = Some(parse_condition(value(input, &name)?, &name)?);
            }
            "bypass_if" => {
                self.options.bypass_if = Some(parse_condition(value(input, &name)?, &name)?);
            }
            "jitter" => self.options.jitter = Some(parse_jitter(&value(input, &name)?)?),
            "cache" if attribute == Attribute::MemCached => {
                let message = "`mem_cached` always uses `vayu::mem_cache()`; write \
                               `#[cached(cache = ..)]`";
                return Err(Error::new(name.span(), message));
            }
            "cache" => self.cache = Some(parse_cache(value(input, &name)?)?),
            "max_entries" | "max_weight" | "weigh" if attribute == Attribute::MemCached => {
                let message = format!(
                    "`mem_cached` always uses `vayu::mem_cache()`; write `#[cached({})]`",
                    form(&text)
                );
                return Err(Error::new(name.span(), message));
            }
            "max_entries" => {
                let max = parse_limit("max_entries", value(input, &name)?)?;
                self.limits.max_entries = Some((name, max));
            }
            "max_weight" => {
                let max = parse_limit("max_weight", value(input, &name)?)?;
                self.limits.max_weight = Some((name, max));
            }
            "weigh" => {
                let weigh = not_literal(value(input, &name)?, &name)?;
                self.limits.weigh = Some((name, weigh));
            }
            "prefix" => self.options.prefix = Some(parse_prefix(value(input, &name)?)?),
            "key" => self.key = Some(parse_key(value(input, &name)?)?),
            "skip" => {
                let names = list(input, &name, skipped_name)?;
                self.skip = Some(Skip { keyword: name, names });
            }
            "tags" => {
                let tags = expressions(input, &name)?;
                for tag in &tags {
                    check_format(tag, |formatted| format!("tags({formatted})"))?;
                }
                self.options.tags = tags;
            }
            "label" if attribute == Attribute::MemCached => {
                let message = "a label is stored in files and on servers only; `mem_cached` keeps \
                               its entries in memory";
                return Err(Error::new(name.span(), message));
            }
            "label" => self.options.label = Some(parse_label(value(input, &name)?)?),
            "include" => self.options.include = expressions(input, &name)?,
            "serializer" => {
                self.serializer = Some(not_literal(value(input, &name)?, &name)?);
            }
            "log" => self.options.is_quiet = !parse_log(&value(input, &name)?)?,
            "cache_if" => self.options.cache_if = Some(not_literal(value(input, &name)?, &name)?),
            "version" => self.options.version = Some(parse_version(&value(input, &name)?)?),
            "handle" => {
                equals(input, &name)?;
                self.handle = Some(parse_handle(input)?);
            }
            _ => {
                equals(input, &name)?;
                let start = input.span();
                let path = input.call(Path::parse_mod_style);
                let message = "`crate` is the path of this crate; write `crate = renamed`";
                self.root = Some(path.map_err(|_| Error::new(start, message))?);
            }
        }
        Ok(())
    }
}

/// Parses the name of an argument.
fn name(input: ParseStream<'_>) -> Result<Ident> {
    let is_name = |input: ParseStream<'_>| {
        let is_path = input.peek2(Token![::]) || input.peek2(Token![!]) || input.peek2(Token![.]);
        input.peek(Ident::peek_any) && !is_path
    };
    if is_name(input) {
        return input.call(Ident::parse_any);
    }
    let example = match input.fork().parse::<Lit>() {
        Ok(Lit::Str(text)) if duration::parse(&text.value()).is_ok() => {
            format!("ttl = \"{}\"", text.value())
        }
        Ok(Lit::Int(number)) if number.suffix().is_empty() => format!("ttl = {number}"),
        _ => form("ttl").to_owned(),
    };
    let first = input.fork().parse::<TokenTree>()?;
    Err(Error::new_spanned(first, format!("each argument has a name; write `{example}`")))
}

/// Returns the literal of `= literal`.
fn literal_after(input: ParseStream<'_>) -> Option<Lit> {
    let ahead = input.fork();
    ahead.parse::<Token![=]>().ok()?;
    ahead.parse().ok()
}

/// Parses the comma between two arguments. `last` is the name of the one before.
fn comma(input: ParseStream<'_>, last: Option<&Ident>) -> Result<()> {
    if input.is_empty() || input.parse::<Token![,]>().is_ok() {
        return Ok(());
    }
    let next = input.fork().parse::<TokenTree>()?;
    let message = match &next {
        TokenTree::Ident(name) if is_known(&name.to_string()) => {
            format!("write a comma before `{name}`")
        }
        _ => {
            let form = last.map_or_else(|| form("ttl"), |name| form(&name.to_string()));
            format!("an argument ends with a comma; write `{form}`")
        }
    };
    Err(Error::new_spanned(next, message))
}

/// Skips the rest of an argument that failed to parse, up to one that looks like an argument again.
fn skip_argument(input: ParseStream<'_>) -> Result<()> {
    while !input.is_empty() {
        let is_comma = input.peek(Token![,]);
        input.parse::<TokenTree>()?;
        if is_comma && is_argument(input) {
            break;
        }
    }
    Ok(())
}

fn is_argument(input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    let is_name = !ahead.peek(Token![_]) && ahead.call(Ident::parse_any).is_ok();
    is_name
        && (ahead.is_empty()
            || ahead.peek(Token![=])
            || ahead.peek(Token![,])
            || ahead.peek(Token![:])
            || ahead.peek(syn::token::Paren))
}

/// Returns the error of an argument without a value, or in another form.
fn malformed(name: &Ident) -> Error {
    Error::new(name.span(), format!("write `{}`", form(&name.to_string())))
}

/// Parses the `=` before a value.
fn equals(input: ParseStream<'_>, name: &Ident) -> Result<()> {
    let is_other = input.peek(Token![==]) || input.peek(Token![=>]);
    if is_other || input.parse::<Token![=]>().is_err() {
        return Err(malformed(name));
    }
    if input.is_empty() || input.peek(Token![,]) { Err(malformed(name)) } else { Ok(()) }
}

/// Parses `= expression` and removes the invisible group that a macro may have put around it.
fn value(input: ParseStream<'_>, name: &Ident) -> Result<Expr> {
    equals(input, name)?;
    let expression = input.parse::<Expr>().map_err(|error| not_an_expression(&error, name));
    Ok(without_groups(expression?))
}

fn not_an_expression(error: &Error, name: &Ident) -> Error {
    let message = format!("this is not an expression; write `{}`", form(&name.to_string()));
    Error::new(error.span(), message)
}

fn without_groups(mut expression: Expr) -> Expr {
    while let Expr::Group(group) = expression {
        expression = *group.expr;
    }
    expression
}

fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(_) => true,
        Expr::Unary(unary) => matches!(unary.op, UnOp::Neg(_)) && is_literal(&unary.expr),
        _ => false,
    }
}

/// Rejects a literal where it cannot be a value.
fn not_literal(expression: Expr, name: &Ident) -> Result<Expr> {
    if is_literal(&expression) {
        let form = form(&name.to_string());
        let message = format!("`{name}` does not take a literal; write `{form}`");
        return Err(Error::new_spanned(expression, message));
    }
    Ok(expression)
}

/// Parses `(item, ..)` with at least one item.
fn list<T>(
    input: ParseStream<'_>,
    name: &Ident,
    item: impl Fn(ParseStream<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let content;
    if !input.peek(syn::token::Paren) {
        let message = format!("write `{}`, with parentheses", form(&name.to_string()));
        return Err(Error::new(name.span(), message));
    }
    syn::parenthesized!(content in input);
    let mut items = Vec::new();
    while !content.is_empty() {
        match item(&content).and_then(|item| list_comma(&content, name).map(|()| item)) {
            Ok(item) => items.push(item),
            Err(error) => {
                // What is left over would be another error.
                content.parse::<TokenStream>()?;
                return Err(error);
            }
        }
    }
    if items.is_empty() {
        return Err(Error::new(name.span(), format!("`{name}()` names nothing; remove it")));
    }
    Ok(items)
}

fn list_comma(content: ParseStream<'_>, name: &Ident) -> Result<()> {
    if content.is_empty() || content.parse::<Token![,]>().is_ok() {
        return Ok(());
    }
    let next = content.fork().parse::<TokenTree>()?;
    let message = format!("write a comma before this, as in `{name}(a, b)`");
    Err(Error::new_spanned(next, message))
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

/// Parses `(expression, ..)`.
fn expressions(input: ParseStream<'_>, name: &Ident) -> Result<Vec<Expr>> {
    list(input, name, |input| input.parse().map_err(|error: Error| not_an_expression(&error, name)))
}

fn parse_cache(expression: Expr) -> Result<Expr> {
    if let Expr::Lit(literal) = &expression {
        let message = "`cache` is an expression for a cache, not its URL; write `cache = PAGES` with \
                       `static PAGES: LazyLock<AnyCache> = LazyLock::new(|| vayu::open(..).unwrap())`";
        return Err(Error::new_spanned(literal, message));
    }
    Ok(expression)
}

/// Parses an integer that is at least 1, or an expression.
fn parse_limit(name: &str, expression: Expr) -> Result<Expr> {
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

fn parse_key(expression: Expr) -> Result<KeySource> {
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

fn parse_expires_at(expression: Expr, name: &Ident) -> Result<Ttl> {
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

fn parse_stale(expression: Expr) -> Result<Time> {
    if let Expr::Closure(closure) = expression {
        let message = "`stale` is the same for all values; write `stale = \"30s\"`";
        return Err(Error::new_spanned(closure, message));
    }
    parse_time("stale", expression)
}

/// Parses a condition on the arguments of a call.
fn parse_condition(expression: Expr, name: &Ident) -> Result<Expr> {
    if let Expr::Closure(closure) = expression {
        let form = form(&name.to_string());
        let message = format!("`{name}` is a `bool` that may use the arguments; write `{form}`");
        return Err(Error::new_spanned(closure, message));
    }
    not_literal(expression, name)
}

fn parse_label(expression: Expr) -> Result<Expr> {
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
fn check_format(expression: &Expr, argument: impl Fn(&str) -> String) -> Result<()> {
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

/// Parses `name` or `Self::name`.
fn parse_handle(input: ParseStream<'_>) -> Result<Handle> {
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
