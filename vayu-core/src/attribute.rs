//! What the expansion of the attribute names. Not for use by hand.

use std::any::type_name;
use std::collections::HashSet;
use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::Serialize;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::call;
pub use crate::call::background_refresh::Refresh;
use crate::call::lookup::{Begun, RestOf, begin};
pub use crate::call::{
    Always, CacheIf, CallKey, Choice, FixedTtl, OfCache, OutputShape, Own, Policy, Predicate,
    ResultOutput, Ttl, TtlFn,
};
pub use crate::entry::Query;
use crate::entry::{Entry, Subject};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::Group;
use crate::key::{DirectEncode, Prefix};
pub use crate::key::{FunctionOf, KeyBuilder, KeyError, KeyText};
use crate::panic::catch_panic;
use crate::serializer::Serializer;

/// What the attribute takes as `cache`: a [`Cache`], or a reference or smart pointer to one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a cache",
    label = "expected a cache",
    note = "`cache` takes an expression that gives a `MemoryCache` or another `Cache<B, S>`, or a \
            reference, `Arc` or `LazyLock` of one"
)]
pub trait AsCache {
    /// The backend of the cache.
    type Backend: Backend;
    /// The serializer of the cache.
    type Serializer;

    /// The cache.
    fn as_cache(&self) -> &Cache<Self::Backend, Self::Serializer>;
}

impl<B: Backend, S> AsCache for Cache<B, S> {
    type Backend = B;
    type Serializer = S;

    #[inline]
    fn as_cache(&self) -> &Cache<B, S> {
        self
    }
}

macro_rules! pointer_is_as_cache {
    ($($pointer:ty),*) => {$(
        impl<C: AsCache + ?Sized> AsCache for $pointer {
            type Backend = C::Backend;
            type Serializer = C::Serializer;

            #[inline]
            fn as_cache(&self) -> &Cache<C::Backend, C::Serializer> {
                (**self).as_cache()
            }
        }
    )*};
}

pointer_is_as_cache!(&C, Box<C>, Rc<C>, Arc<C>);

impl<C: AsCache, F: FnOnce() -> C> AsCache for LazyLock<C, F> {
    type Backend = C::Backend;
    type Serializer = C::Serializer;

    #[inline]
    fn as_cache(&self) -> &Cache<C::Backend, C::Serializer> {
        (**self).as_cache()
    }
}

/// The cache that an expression stands for.
#[inline]
pub fn cache_of<C: AsCache + ?Sized>(cache: &C) -> &Cache<C::Backend, C::Serializer> {
    cache.as_cache()
}

/// Finds the shape of an answer by its type.
///
/// `vayu_shape` on a probe for a `Result` is the inherent method; on any other it is that of
/// [`PlainShape`].
#[derive(Debug)]
pub struct Probe<R>(PhantomData<fn() -> R>);

impl<R> Probe<R> {
    /// A probe for answers of this type.
    #[expect(clippy::new_without_default, reason = "named by expansions only")]
    #[inline]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T, E> Probe<Result<T, E>> {
    /// The shape of a `Result`.
    #[inline]
    pub fn vayu_shape(&self) -> ResultOutput {
        ResultOutput
    }
}

/// The shape of what is no `Result`.
pub trait PlainShape {
    /// The shape.
    fn vayu_shape(&self) -> PlainOutput;
}

impl<R> PlainShape for Probe<R> {
    #[inline]
    fn vayu_shape(&self) -> PlainOutput {
        PlainOutput
    }
}

/// The answer is the value, unless it turns out to be a `Result` after all.
#[derive(Debug, Clone, Copy)]
pub struct PlainOutput;

impl<T> OutputShape<T> for PlainOutput {
    type Value = T;

    #[inline]
    fn value(self, answer: &T) -> Option<&T> {
        Some(answer)
    }

    #[inline]
    fn wrap(self, value: T) -> T {
        value
    }

    /// A function that returns a type parameter may be used with a `Result` in its place. Where it
    /// was written, nobody could see that, and whether this one is an `Err` cannot be seen here.
    #[inline]
    fn unsupported(self) -> Option<Error> {
        type_name::<T>().starts_with("core::result::Result<").then(|| {
            Error::new(
                ErrorKind::Configuration,
                "a `Result` in the place of a type parameter cannot be remembered; \
                 write `Result` in the return type",
            )
        })
    }
}

/// A value on its way into a key.
#[derive(Debug)]
pub struct Part<'a, T: ?Sized>(pub &'a T);

impl<T: ?Sized> Clone for Part<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Part<'_, T> {}

/// A part that is encoded as it serializes itself.
#[derive(Debug, Clone, Copy)]
pub struct ValuePart;

/// A part that is a number, a text or the like.
#[derive(Debug, Clone, Copy)]
pub struct SimplePart;

impl<T: DirectEncode + ?Sized> Part<'_, T> {
    /// The kind of what is simple.
    #[inline]
    pub fn vayu_kind(&self) -> SimplePart {
        SimplePart
    }
}

/// A part whose elements have no order.
#[derive(Debug, Clone, Copy)]
pub struct SetPart;

impl<T, H> Part<'_, HashSet<T, H>> {
    /// The kind of a set.
    #[inline]
    pub fn vayu_kind(&self) -> SetPart {
        SetPart
    }
}

impl<T, H> Part<'_, &HashSet<T, H>> {
    /// The kind of a set.
    #[inline]
    pub fn vayu_kind(&self) -> SetPart {
        SetPart
    }
}

/// A part that may change during the call.
#[derive(Debug, Clone, Copy)]
pub struct ExclusivePart;

/// The kind of an exclusive reference. It is asked before all others, as it takes the part itself.
pub trait ExclusiveKind {
    /// The kind.
    fn vayu_kind(self) -> ExclusivePart;
}

impl<T: ?Sized> ExclusiveKind for Part<'_, &mut T> {
    #[inline]
    fn vayu_kind(self) -> ExclusivePart {
        ExclusivePart
    }
}

/// What an exclusive reference is not.
#[diagnostic::on_unimplemented(
    message = "what `{Self}` refers to may change during the call, so it cannot be part of the key",
    note = "leave the argument out with `skip(..)`, or say what the key is with `key = ..`"
)]
pub trait Unchanging {}

impl ExclusivePart {
    /// Never appends anything: there is no such value.
    pub fn add<T: Unchanging>(self, _part: &Part<'_, T>, _key: &mut KeyBuilder) {}
}

/// The kind of any other part.
pub trait AnyPart {
    /// The kind.
    fn vayu_kind(&self) -> ValuePart;
}

impl<T: ?Sized> AnyPart for Part<'_, T> {
    #[inline]
    fn vayu_kind(&self) -> ValuePart {
        ValuePart
    }
}

/// What may be an argument of a cached function: whatever is [`Serialize`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "does not implement `serde::Serialize`",
    note = "derive `serde::Serialize` for it, leave the argument out with `skip(..)`, or say what \
            the key is with `key = ..`"
)]
pub trait KeyPart: Serialize {}

impl<T: Serialize + ?Sized> KeyPart for T {}

impl SimplePart {
    /// Appends a number, a text or the like to a key.
    #[inline(always)]
    pub fn add<T: DirectEncode + ?Sized>(self, part: &Part<'_, T>, key: &mut KeyBuilder) {
        key.encode_direct(part.0);
    }
}

impl ValuePart {
    /// Appends a value to a key.
    #[inline]
    pub fn add<T: KeyPart + ?Sized>(self, part: &Part<'_, T>, key: &mut KeyBuilder) {
        key.encode(part.0);
    }
}

impl SetPart {
    /// Appends a set to a key.
    pub fn add<'a, T, C>(self, part: &Part<'a, C>, key: &mut KeyBuilder)
    where
        T: KeyPart + 'a,
        &'a C: Elements<'a, T>,
    {
        key.encode_set(part.0.elements());
    }
}

/// The elements of a set or of a reference to one.
pub trait Elements<'a, T: 'a> {
    /// The elements.
    fn elements(self) -> impl Iterator<Item = &'a T>;
}

impl<'a, T, H> Elements<'a, T> for &'a HashSet<T, H> {
    fn elements(self) -> impl Iterator<Item = &'a T> {
        self.iter()
    }
}

impl<'a, T, H> Elements<'a, T> for &'a &HashSet<T, H> {
    fn elements(self) -> impl Iterator<Item = &'a T> {
        self.iter()
    }
}

/// A name that a pattern binds, by reference, in a handle: the argument stays whole there, for the
/// call.
#[derive(Debug)]
pub struct Bound<'a, T: ?Sized>(pub &'a T);

impl<T: Copy> Bound<'_, T> {
    /// Returns the value, as it is bound in the function.
    #[inline]
    pub fn vayu_bound(self) -> T {
        *self.0
    }
}

/// What is bound to a name whose value cannot be copied.
pub trait BoundByReference<'a, T: ?Sized> {
    /// Returns the reference.
    fn vayu_bound(self) -> &'a T;
}

impl<'a, T: ?Sized> BoundByReference<'a, T> for Bound<'a, T> {
    #[inline]
    fn vayu_bound(self) -> &'a T {
        self.0
    }
}

/// The identity of the function that holds this body.
#[inline]
pub fn function_prefix<F: ?Sized>(_body: &F) -> FunctionOf<F> {
    FunctionOf::new()
}

/// The identity of the async function that holds this body.
#[inline]
pub fn async_function_prefix<F: ?Sized>(_body: &Pin<&mut F>) -> FunctionOf<F> {
    FunctionOf::new()
}

/// A ttl for every value.
#[inline]
pub fn fixed_ttl(ttl: Duration) -> FixedTtl {
    FixedTtl::new(ttl)
}

/// A ttl that depends on the value.
#[inline]
pub fn ttl_fn<H, R, F>(_shape: H, _probe: &Probe<R>, ttl: F) -> TtlFn<F>
where
    H: OutputShape<R>,
    F: Fn(&H::Value) -> Duration,
{
    TtlFn(ttl)
}

/// A predicate on the value.
#[inline]
pub fn cache_if<H, R, F>(_shape: H, _probe: &Probe<R>, predicate: F) -> Predicate<F>
where
    H: OutputShape<R>,
    F: Fn(&H::Value) -> bool,
{
    Predicate(predicate)
}

/// The groups of the tags of a call, made if they matter.
#[inline]
pub fn tags<B: Backend, S, const N: usize>(
    cache: &Cache<B, S>,
    make: impl FnOnce() -> [Group; N],
) -> [Group; N] {
    if cache.has_generations() { make() } else { [Group::ALL; N] }
}

/// The group of a tag.
pub fn tag(tag: impl Display) -> Group {
    Group::tag(tag)
}

/// A cached call of a sync function.
#[expect(clippy::needless_pass_by_value, reason = "the expansion has no other use for it")]
#[inline]
pub fn call<R, B, S, K, H, Z, L, P, G>(
    cache: &Cache<B, S>,
    policy: Policy<K, H, Z, L, P, G>,
    body: impl FnOnce() -> R,
) -> R
where
    B: Backend,
    K: CallKey,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
    G: AsRef<[Group]>,
{
    call::blocking::run(cache, &policy, body)
}

/// A cached call of an async function, if it can be answered at once: a future that is not made is
/// not paid for. What is left of it is for [`finish_async`].
#[inline]
pub fn begin_async<'a, R, B, S, K, H, Z, L, P, G>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
    _probe: &Probe<R>,
) -> Begun<'a, R, B, S, H, Z, L, P>
where
    B: Backend,
    K: CallKey,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    G: AsRef<[Group]>,
{
    begin(cache, policy)
}

/// The rest of a cached call of an async function. The body is pinned where it was made: a future
/// that is handed on by value takes its place twice.
pub fn finish_async<'a, R, B, S, K, H, Z, L, P, G>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
    rest: RestOf<'a, R, B, S, H, Z, L, P>,
    body: Pin<&mut impl Future<Output = R>>,
) -> impl Future<Output = R>
where
    B: Backend,
    K: CallKey,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
    G: AsRef<[Group]>,
{
    call::future::finish(cache, policy, rest, body)
}

/// [`finish_async`] for a call that leaves the refresh of a value past its ttl to a task. The body may
/// go to that task, so it is boxed where it was made, and only then moved.
pub fn finish_async_spawning<'a, R, B, S, K, H, Z, L, P, G, F>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
    rest: RestOf<'a, R, B, S, H, Z, L, P>,
    body: Pin<Box<F>>,
) -> impl Future<Output = (R, Option<Refresh<F>>)>
where
    B: Backend,
    K: CallKey,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
    G: AsRef<[Group]>,
    F: Future<Output = R>,
{
    call::background_refresh::finish(cache, policy, rest, body)
}

/// What a call left to a task: of which function it is, and the task.
pub fn task_of<R, B, S, K, H, Z, L, P, G, F>(
    cache: &Cache<B, S>,
    policy: Policy<K, H, Z, L, P, G>,
    refresh: Refresh<F>,
) -> (Prefix, impl Future<Output = ()> + use<R, B, S, K, H, Z, L, P, G, F>)
where
    B: Backend,
    S: Clone,
    K: CallKey,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
    F: Future<Output = R>,
{
    (refresh.function.clone(), call::background_refresh::refresh(cache.clone(), policy, refresh))
}

/// Hands a task over. A panic, as that of a runtime that is not there, is counted, and costs the call
/// nothing else.
pub fn spawn_refresh<B: Backend, S, T>(
    cache: &Cache<B, S>,
    function: &Prefix,
    spawn: impl FnOnce() -> T,
) {
    let result = catch_panic("spawn refresh", || {
        drop(spawn());
        Ok(())
    });
    if let Err(error) = result {
        cache.fault(function, &error, false);
    }
}

/// The entry of a call. `call` runs the function, through its cache.
pub fn entry<R, B, S, H, Z, L, G, F>(
    cache: &Cache<B, S>,
    policy: Policy<KeyBuilder, H, Z, L, Always, G>,
    _probe: &Probe<R>,
    call: F,
) -> Entry<impl Query<Answer = R> + use<R, B, S, H, Z, L, G, F>, F>
where
    B: Backend,
    S: Clone + Send + Sync,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    G: AsRef<[Group]>,
{
    Entry::new(Subject::new(cache.clone(), policy), call)
}
