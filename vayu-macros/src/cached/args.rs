//! The arguments of the attribute, parsed but not yet checked against the function.

pub(super) mod values;

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Expr, ExprClosure, Ident, Lit, Path, Result, Token, UnOp};

use self::values::{
    check_format, parse_cache, parse_condition, parse_each, parse_err_ttl, parse_expires_at,
    parse_handle, parse_idle, parse_jitter, parse_key, parse_label, parse_limit, parse_log,
    parse_patience, parse_prefix, parse_stale, parse_ttl, parse_version,
};
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
    pub(crate) skip: Option<NameList>,
    pub(crate) own: Option<NameList>,
    pub(crate) serializer: Option<Expr>,
    pub(crate) handle: Option<Handle>,
    pub(crate) batch: BatchArguments,
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
    pub(crate) idle: Option<Time>,
    pub(crate) err_ttl: Option<ErrTtl>,
    pub(crate) spawn: Option<Expr>,
    /// With its name in the attribute.
    pub(crate) patience: Option<(Ident, Time)>,
    /// With its name in the attribute; without a value, the body asks for the old value itself.
    pub(crate) revalidate: Option<(Ident, Option<Expr>)>,
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

/// `each = name, at_most = 100`.
#[derive(Default)]
pub(crate) struct BatchArguments {
    /// The keyword, and the name.
    pub(crate) each: Option<(Ident, Ident)>,
    pub(crate) at_most: Option<(Ident, Expr)>,
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
        seen.push(name.clone());
        if let Some(message) = names::refused(self.attribute, &text) {
            return Err(Error::new(name.span(), message));
        }
        match text.as_str() {
            "ttl" | "expires_at" if self.ttl.is_some() => {
                let message =
                    "`ttl` and `expires_at` both say when a value expires; remove one of the two";
                return Err(Error::new(name.span(), message));
            }
            "ttl" => self.ttl = Some(parse_ttl(value(input, &name)?)?),
            "expires_at" => self.ttl = Some(parse_expires_at(value(input, &name)?, &name)?),
            "stale" => self.options.stale = Some(parse_stale(value(input, &name)?)?),
            "idle" => self.options.idle = Some(parse_idle(value(input, &name)?)?),
            "err_ttl" => self.options.err_ttl = Some(parse_err_ttl(value(input, &name)?)?),
            "spawn" => self.options.spawn = Some(not_literal(value(input, &name)?, &name)?),
            "patience" => {
                let patience = parse_patience(value(input, &name)?)?;
                self.options.patience = Some((name, patience));
            }
            "revalidate" => {
                let check = optional_value(input, &name)?;
                self.options.revalidate = Some((name, check));
            }
            "refresh_if" => {
                self.options.refresh_if = Some(parse_condition(value(input, &name)?, &name)?);
            }
            "bypass_if" => {
                self.options.bypass_if = Some(parse_condition(value(input, &name)?, &name)?);
            }
            "jitter" => self.options.jitter = Some(parse_jitter(&value(input, &name)?)?),
            "cache" => self.cache = Some(parse_cache(value(input, &name)?)?),
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
                self.skip = Some(NameList { keyword: name, names });
            }
            "own" => self.own = Some(owned_names(input, name)?),
            "tags" => {
                let tags = expressions(input, &name)?;
                for tag in &tags {
                    check_format(tag, |formatted| format!("tags({formatted})"))?;
                }
                self.options.tags = tags;
            }
            "label" => self.options.label = Some(parse_label(value(input, &name)?)?),
            "include" => self.options.include = expressions(input, &name)?,
            "serializer" => {
                self.serializer = Some(not_literal(value(input, &name)?, &name)?);
            }
            "log" => self.options.is_quiet = !parse_log(&value(input, &name)?)?,
            "cache_if" => self.options.cache_if = Some(not_literal(value(input, &name)?, &name)?),
            "version" => self.options.version = Some(parse_version(&value(input, &name)?)?),
            "each" => self.batch.each = Some((name.clone(), parse_each(value(input, &name)?)?)),
            "at_most" => {
                let at_most = parse_limit("at_most", value(input, &name)?)?;
                self.batch.at_most = Some((name, at_most));
            }
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

/// Parses `= expression`, unless the argument ends here.
fn optional_value(input: ParseStream<'_>, name: &Ident) -> Result<Option<Expr>> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(None);
    }
    not_literal(value(input, name)?, name).map(Some)
}

/// Parses the names of `own(..)`.
fn owned_names(input: ParseStream<'_>, keyword: Ident) -> Result<NameList> {
    let names = list(input, &keyword, owned_name)?;
    Ok(NameList { keyword, names })
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
