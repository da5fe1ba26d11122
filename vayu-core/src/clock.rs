//! Clocks.

mod cache_clock;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) mod host;
#[cfg(all(target_family = "wasm", target_os = "unknown", feature = "js"))]
mod js_timer;
#[cfg(not(all(target_family = "wasm", target_os = "unknown", feature = "js")))]
mod polled_timer;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod timer;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(crate) use self::cache_clock::CacheClock;

/// A point in time: microseconds since the origin of the [`Clock`] that gave it.
///
/// Arithmetic saturates. The last representable instant is [`Timestamp::NEVER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant that is never reached: the expiry of entries without expiry.
    pub const NEVER: Self = Self(i64::MAX);

    /// Creates the instant this many microseconds after the clock's origin.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Creates the instant of a time of the operating system.
    #[cfg(target_os = "linux")]
    #[inline(always)]
    fn of(time: rustix::time::Timespec) -> Self {
        // Less than a second, in nanoseconds: a division of 32 bits is one multiplication.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "less than 10^9"
        )]
        let nanos = time.tv_nsec as u32;
        Self(time.tv_sec * 1_000_000 + i64::from(nanos / 1_000))
    }

    /// Returns the microseconds since the clock's origin.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Adds `time`, rounded up to a microsecond.
    ///
    /// The result is [`Timestamp::NEVER`] on overflow.
    #[must_use]
    #[inline]
    pub const fn saturating_add(self, time: Duration) -> Self {
        self.saturating_add_micros(Self::micros_of(time))
    }

    /// Adds microseconds, as [`saturating_add`](Self::saturating_add) does.
    #[must_use]
    #[inline]
    pub(crate) const fn saturating_add_micros(self, micros: u64) -> Self {
        match self.0.checked_add_unsigned(micros) {
            Some(sum) => Self(sum),
            None => Self::NEVER,
        }
    }

    /// Returns whole microseconds, rounded up.
    #[inline]
    pub(crate) const fn micros_of(time: Duration) -> u64 {
        // `Duration::as_micros` divides 128 bits, which takes a measurable part of a hit.
        let whole = time.as_secs().saturating_mul(1_000_000);
        whole.saturating_add(time.subsec_nanos().div_ceil(1000) as u64)
    }

    /// Returns the microseconds from `earlier` to this instant, zero if `earlier` is later.
    #[inline]
    pub(crate) fn micros_since(self, earlier: Self) -> u64 {
        if self < earlier { 0 } else { self.0.wrapping_sub(earlier.0).cast_unsigned() }
    }

    /// Returns the microseconds from `earlier` to this instant, negative if `earlier` is later, unless there are too many.
    #[inline]
    pub(crate) fn checked_micros_since(self, earlier: Self) -> Option<i64> {
        self.0.checked_sub(earlier.0)
    }

    /// Returns whether this instant is less than `time` after `start`.
    ///
    /// It is not if `start` is later: the clock was set back.
    #[inline]
    pub fn is_within(self, start: Self, time: Duration) -> bool {
        self >= start && self.saturating_since(start) < time
    }

    /// Returns whether this instant is `time` or more after `start`.
    ///
    /// It is also if it is so long before: the clock was set back. Another thread may have read `start` a moment later than
    /// this instant.
    #[inline]
    pub(crate) fn is_far_from(self, start: Self, time: Duration) -> bool {
        self.saturating_since(start).max(start.saturating_since(self)) >= time
    }

    /// Returns whether this instant is before `end`, and by at most `time`.
    ///
    /// It is not if it is further before: the clock was set back.
    #[inline]
    pub fn is_within_before(self, end: Self, time: Duration) -> bool {
        self < end && end.saturating_since(self) <= time
    }

    /// Returns the time from `earlier` to this instant, zero if `earlier` is later.
    #[inline]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let micros = if self < earlier { 0 } else { self.0.saturating_sub(earlier.0) };
        Duration::from_micros(micros.cast_unsigned())
    }
}

/// The future of [`Clock::sleep`].
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A source of time.
///
/// A backend chooses the clock of its entries ([`Backend::clock`](crate::Backend::clock)):
/// [`SystemClock`] where entries outlive the process, [`MonotonicClock`] where they do not. Tests
/// use [`ManualClock`](crate::testing::ManualClock) (feature `testing`).
pub trait Clock: Any + Send + Sync + fmt::Debug {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Returns a future that is ready once `time` has passed.
    ///
    /// It must work on any executor and without one. The default waits in real time on a timer
    /// thread that is started by the first such wait of the process; if no thread can be started,
    /// it does not wait. On WebAssembly it waits by `setTimeout` (feature `js`), or else it makes the
    /// executor poll again and again until the time is over.
    fn sleep(&self, time: Duration) -> Sleep {
        sleep_in_real_time(time)
    }
}

/// Sets the clock of the program, on `wasm32-unknown-unknown`. Returns `false`, and changes nothing, if there is one. Other
/// systems have one always.
///
/// [`SystemClock`] and [`MonotonicClock`] return its time: microseconds since the Unix epoch, which should not step
/// back. Without the feature `js`, all caches are paused until it is set: calls run their function. With `js`, it replaces
/// the clock of JavaScript, so it must be set before the first call.
///
/// The default of [`Clock::sleep`] makes an executor poll again and again until the time is over. A clock of a host that
/// has timers should implement it.
#[cfg(feature = "host-clock")]
pub fn set_host_clock(clock: impl Clock) -> bool {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    let is_set = host::set_clock(clock);
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    let is_set = {
        drop(clock);
        false
    };
    is_set
}

fn sleep_in_real_time(time: Duration) -> Sleep {
    #[cfg(all(target_family = "wasm", target_os = "unknown", feature = "js"))]
    return Box::pin(js_timer::JsTimer::new(time));
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    if crate::platform::HAS_THREADS {
        return Box::pin(timer::TimerFuture::new(time));
    }
    #[cfg(not(all(target_family = "wasm", target_os = "unknown", feature = "js")))]
    Box::pin(polled_timer::PolledTimer::new(time))
}

/// Returns the time of day, exactly.
pub(crate) fn time_of_day() -> SystemTime {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    {
        let since_epoch = SystemClock.now().saturating_since(Timestamp::default());
        SystemTime::UNIX_EPOCH + since_epoch
    }
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    SystemTime::now()
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn sleep(&self, time: Duration) -> Sleep {
        (**self).sleep(time)
    }
}

/// The time of day of the operating system, in microseconds since the Unix epoch.
///
/// It may step in either direction when the machine's clock is set. On Linux this is
/// `CLOCK_REALTIME_COARSE`, which moves in the same steps as [`MonotonicClock`] and costs as
/// little.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[cfg(target_os = "linux")]
    #[inline]
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Timestamp::of(time)
    }

    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    fn now(&self) -> Timestamp {
        host::system_now()
    }

    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    fn sleep(&self, time: Duration) -> Sleep {
        host::sleep(time)
    }

    #[cfg(not(any(target_os = "linux", all(target_family = "wasm", target_os = "unknown"))))]
    fn now(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
        };
        Timestamp(micros)
    }
}

/// A clock that never steps, for entries that live no longer than the process.
///
/// On Linux this is `CLOCK_MONOTONIC_COARSE`: a read costs a few nanoseconds and the time moves in
/// the steps of the kernel's tick (1 to 10 ms, usually 4). It stands still while the machine is
/// suspended. Elsewhere it is [`std::time::Instant`].
#[derive(Debug, Clone, Copy, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    #[cfg(target_os = "linux")]
    #[inline]
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        Timestamp::of(time)
    }

    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    fn now(&self) -> Timestamp {
        host::monotonic_now()
    }

    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    fn sleep(&self, time: Duration) -> Sleep {
        host::sleep(time)
    }

    #[cfg(not(any(target_os = "linux", all(target_family = "wasm", target_os = "unknown"))))]
    fn now(&self) -> Timestamp {
        use std::sync::LazyLock;
        use std::time::Instant;
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        Timestamp::default().saturating_add(ORIGIN.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_saturates_at_never() {
        let now = SystemClock.now();
        assert_eq!(now.saturating_add(Duration::MAX), Timestamp::NEVER);
        assert_eq!(Timestamp::NEVER.saturating_add(Duration::from_secs(1)), Timestamp::NEVER);
    }

    #[test]
    fn less_than_a_microsecond_rounds_up() {
        let start = Timestamp::from_micros(7);
        assert_eq!(start.saturating_add(Duration::from_nanos(1)), Timestamp::from_micros(8));
        assert_eq!(start.saturating_add(Duration::ZERO), start);
    }

    #[test]
    fn time_since_a_later_instant_is_zero() {
        let early = Timestamp::from_micros(i64::MIN);
        assert_eq!(early.saturating_since(Timestamp::NEVER), Duration::ZERO);
        assert_eq!(
            Timestamp::NEVER.saturating_since(early),
            Duration::from_micros(i64::MAX as u64)
        );
    }

    #[test]
    fn clock_set_back_does_not_extend_a_period() {
        let length = Duration::from_secs(1);
        let start = Timestamp::from_micros(5_000_000);
        let end = start.saturating_add(length);
        for (now, expected) in
            [(4_999_999, false), (5_000_000, true), (5_999_999, true), (6_000_000, false)]
        {
            let now = Timestamp::from_micros(now);
            assert_eq!(now.is_within_before(end, length), expected, "{now:?}");
            assert_eq!(now.is_within(start, length), expected, "{now:?}");
        }
    }

    #[test]
    fn monotonic_clock_does_not_go_back() {
        let first = MonotonicClock.now();
        assert!(MonotonicClock.now() >= first);
    }
}
