//! The first part of a key: the function.

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::ptr;
use std::sync::RwLock;

use crate::key::function::FunctionInfo;
use crate::key::hasher::{self, PrefixSeed, Seeds};
use crate::key::literal::{Literal, LiteralPrefix};
use crate::sync::IgnorePoison;

/// The function that a [`Key`](crate::Key) belongs to: its own identity, or a string given for it.
///
/// The automatic identity distinguishes crates (and versions of one crate), modules, types, trait
/// impls, functions and every generic instantiation. It never equals a string.
///
/// Outside of the process a function is identified by its path. Where two functions of a program have
/// one path (in two blocks of one function, or in two versions of one crate), the path identifies the
/// one that is called first in a process, and keys of the other one are valid in that process only.
/// Give such functions a string of their own where entries outlive the process.
#[derive(Clone)]
pub struct Prefix(Repr);

/// A prefix, by what there is to know of it.
#[derive(Clone)]
pub(super) enum Repr {
    Function(&'static FunctionInfo),
    /// A string that stands in an attribute.
    Literal(&'static Literal),
    /// Another string.
    Text(Cow<'static, str>),
}

pub(crate) const FUNCTION: u8 = 1;
const TEXT: u8 = 2;
const FUNCTION_OF_THIS_PROCESS: u8 = 3;

/// The identity of the function whose body is a closure or async block of type `F`.
#[derive(Debug)]
pub struct FunctionOf<F: ?Sized>(PhantomData<fn(&F)>);

impl<F: ?Sized> Clone for FunctionOf<F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: ?Sized> Copy for FunctionOf<F> {}

impl<F: ?Sized> FunctionOf<F> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<F: ?Sized> From<FunctionOf<F>> for Prefix {
    #[inline(always)]
    fn from(_: FunctionOf<F>) -> Self {
        Self(Repr::Function(FunctionInfo::of::<F>()))
    }
}

impl Prefix {
    /// Returns the prefix of the function whose body is a closure or async block of type `F`.
    #[cfg(test)]
    pub(crate) fn of_body<F: ?Sized>() -> Self {
        FunctionOf::<F>::new().into()
    }

    /// Returns the number of the function, which is in the upper half. `None` for a string.
    #[inline]
    pub(crate) fn function_number(&self) -> Option<u64> {
        match &self.0 {
            Repr::Function(function) => Some(function.number()),
            Repr::Literal(_) | Repr::Text(_) => None,
        }
    }

    /// Returns the prefix of the function with this number, which is in the upper half.
    pub(super) fn of_function_number(number: u64) -> Option<Self> {
        Some(Self(Repr::Function(FunctionInfo::of_number(number)?)))
    }

    /// Returns what the prefix is.
    #[inline(always)]
    pub(super) fn repr(&self) -> &Repr {
        &self.0
    }

    /// Returns whether the prefix has memory on the heap.
    #[inline(always)]
    pub(super) fn is_owned(&self) -> bool {
        matches!(&self.0, Repr::Text(Cow::Owned(_)))
    }

    /// Returns the seed of hashes of the prefix and a number.
    #[inline(always)]
    pub(crate) fn seed(&self) -> PrefixSeed {
        match &self.0 {
            Repr::Function(function) => PrefixSeed::of(function.seeds()),
            Repr::Literal(literal) => PrefixSeed::of(&literal.seeds),
            Repr::Text(text) => seed_of_text(text),
        }
    }

    pub(super) const EMPTY: Self = Self(Repr::Text(Cow::Borrowed("")));

    /// Returns the path of the function, or the string.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Function(function) => function_path(function.path()),
            Repr::Literal(literal) => literal.text,
            Repr::Text(text) => text,
        }
    }

    /// Appends an injective encoding that is the same in every process, except for functions whose path is
    /// ambiguous.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let text = self.as_str();
        match &self.0 {
            Repr::Function(function) if is_ambiguous(function.id(), text) => {
                out.push(FUNCTION_OF_THIS_PROCESS);
                out.extend_from_slice(&hasher::seeded().hash_one(function.id()).to_le_bytes());
            }
            Repr::Function(_) => out.push(FUNCTION),
            Repr::Literal(_) | Repr::Text(_) => out.push(TEXT),
        }
        out.extend_from_slice(&(text.len() as u64).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

#[cold]
#[inline(never)]
fn seed_of_text(text: &str) -> PrefixSeed {
    PrefixSeed::of(&Seeds::of(text))
}

/// Splits off an encoded prefix: returns its string, and the bytes that follow.
#[cfg(feature = "wire")]
pub(super) fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let rest = match *kind {
        FUNCTION | TEXT => rest,
        FUNCTION_OF_THIS_PROCESS => rest.get(8..)?,
        _ => return None,
    };
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// Returns the path of the function that contains a body with this type name.
///
/// The body is the closure itself, or an async block inside the closure that an `async fn` is.
fn function_path(mut path: &str) -> &str {
    while let Some(outer) = path.strip_suffix("::{{closure}}") {
        path = outer;
    }
    path
}

/// Returns whether the path may be that of another function, so that it identifies none outside of
/// this process.
///
/// All closures of a function have one name. And two functions can have one path: in two blocks of
/// one function, or in two versions of one crate. The first one that is encoded in a process owns the
/// path.
fn is_ambiguous(id: TypeId, path: &str) -> bool {
    path.contains("{{") || owner(path, id) != id
}

/// Returns the function that owns a path: `id` if the path has no owner yet.
fn owner(path: &str, id: TypeId) -> TypeId {
    static OWNERS: RwLock<BTreeMap<String, TypeId>> = RwLock::new(BTreeMap::new());
    let known = OWNERS.read().ignore_poison().get(path).copied();
    known.unwrap_or_else(|| {
        let mut owners = OWNERS.write().ignore_poison();
        *owners.entry(path.to_owned()).or_insert(id)
    })
}

impl PartialEq for Prefix {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Function(function), Repr::Function(other)) => ptr::eq(*function, *other),
            (Repr::Function(_), _) | (_, Repr::Function(_)) => false,
            _ => self.as_str() == other.as_str(),
        }
    }
}

impl Eq for Prefix {}

impl Hash for Prefix {
    #[inline(always)]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Repr::Function(function) => state.write_u64(function.number()),
            Repr::Literal(_) | Repr::Text(_) => self.as_str().hash(state),
        }
    }
}

impl From<&'static LiteralPrefix> for Prefix {
    #[inline(always)]
    fn from(literal: &'static LiteralPrefix) -> Self {
        Self(Repr::Literal(literal.literal()))
    }
}

impl From<&'static str> for Prefix {
    fn from(text: &'static str) -> Self {
        Self(Repr::Text(Cow::Borrowed(text)))
    }
}

impl From<String> for Prefix {
    fn from(text: String) -> Self {
        Self(Repr::Text(Cow::Owned(text)))
    }
}

impl AsRef<str> for Prefix {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closures_around_the_body_are_cut_and_no_others() {
        assert_eq!(function_path("a::f::{{closure}}"), "a::f");
        assert_eq!(function_path("a::f::{{closure}}::{{closure}}"), "a::f");
        assert_eq!(function_path("a::g::{{closure}}::f::{{closure}}"), "a::g::{{closure}}::f");
        assert_eq!(function_path("a::f<a::g::{{closure}}>"), "a::f<a::g::{{closure}}>");
    }

    #[test]
    fn path_that_holds_a_closure_is_encoded_for_this_process_alone() {
        fn of<B>(_: &B) -> Prefix {
            Prefix::of_body::<B>()
        }
        fn instance<F: Fn()>(_: F) -> Prefix {
            of(&|| ())
        }
        let (one, two) = (instance(|| ()), instance(|| ()));
        assert_eq!(one.as_str(), two.as_str(), "the two closures have one name");
        assert_ne!(one, two);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        one.encode(&mut first);
        two.encode(&mut second);
        assert_ne!(first, second);
    }
}
