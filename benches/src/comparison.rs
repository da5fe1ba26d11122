//! Contenders that run batches in turn.

use std::time::{Duration, Instant};

use crate::quick;

/// An implementation of the work of a comparison.
pub(crate) struct Contender<'a> {
    name: &'static str,
    role: Role,
    note: &'static str,
    run: Box<dyn FnMut(u64) + 'a>,
}

/// The role of a result in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Vayu,
    /// Another crate that does the same work, with a maximum number of entries, as vayu has.
    Bounded,
    /// Another crate that does the same work and never evicts.
    Unbounded,
    /// Another crate that does less: no ttl, or one thread only.
    Partial,
    /// The work without a cache crate: a lower bound.
    Baseline,
}

impl Role {
    /// Returns the name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vayu => "vayu",
            Self::Bounded => "bounded",
            Self::Unbounded => "unbounded",
            Self::Partial => "does less",
            Self::Baseline => "lower bound",
        }
    }

    /// Returns whether it is another crate that does the same work.
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Bounded | Self::Unbounded)
    }
}

impl<'a> Contender<'a> {
    /// Creates a contender. `run` does the work the given number of times.
    pub(crate) fn new(name: &'static str, role: Role, run: impl FnMut(u64) + 'a) -> Self {
        Self { name, role, note: "", run: Box::new(run) }
    }

    /// Adds a note, for example on what it does not do.
    pub(crate) fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }
}

/// The measurements of one contender.
#[derive(Debug, Clone)]
pub(crate) struct Measurement {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) note: &'static str,
    /// Nanoseconds per operation of each batch, sorted.
    pub(crate) times: Vec<f64>,
    /// Allocations per operation, on the thread that started it.
    pub(crate) allocations: f64,
}

impl Measurement {
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.times, 0.5)
    }

    pub(crate) fn quartiles(&self) -> (f64, f64) {
        (quantile(&self.times, 0.25), quantile(&self.times, 0.75))
    }
}

/// Number and duration of the batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) batches: usize,
    /// The duration of a batch of one contender.
    pub(crate) batch: Duration,
    /// The number of operations of each contender before the measurement.
    pub(crate) warm: u64,
}

impl Schedule {
    pub(crate) const SHORT: Self = Self { batches: 61, batch: Duration::from_millis(2), warm: 0 };
    /// For work on threads, whose start takes time.
    pub(crate) const LONG: Self = Self { batches: 41, batch: Duration::from_millis(10), warm: 0 };

    /// Sets the number of operations before the measurement.
    pub(crate) fn warm(mut self, times: u64) -> Self {
        self.warm = times;
        self
    }

    fn quick(self) -> Self {
        Self { batches: 3, batch: Duration::from_micros(50), warm: self.warm.min(1 << 10) }
    }
}

/// Runs a batch of each contender in turn, repeatedly.
pub(crate) fn compare(schedule: Schedule, contenders: Vec<Contender<'_>>) -> Vec<Measurement> {
    run(if quick::is_on() { schedule.quick() } else { schedule }, contenders)
}

fn run(schedule: Schedule, mut contenders: Vec<Contender<'_>>) -> Vec<Measurement> {
    contenders.iter_mut().for_each(|one| (one.run)(schedule.warm));
    let sizes: Vec<_> = contenders.iter_mut().map(|one| size(schedule, &mut one.run)).collect();
    let mut measurements: Vec<_> = contenders
        .iter_mut()
        .map(|one| {
            let counted = quick::or(64, 4);
            let info = allocation_counter::measure(|| (one.run)(counted));
            Measurement {
                name: one.name,
                role: one.role,
                note: one.note,
                times: Vec::with_capacity(schedule.batches),
                allocations: info.count_total as f64 / counted as f64,
            }
        })
        .collect();
    for _ in 0..schedule.batches {
        for ((contender, measurement), &size) in
            contenders.iter_mut().zip(&mut measurements).zip(&sizes)
        {
            let began = Instant::now();
            (contender.run)(size);
            measurement.times.push(began.elapsed().as_secs_f64() * 1e9 / size as f64);
        }
    }
    for measurement in &mut measurements {
        measurement.times.sort_by(f64::total_cmp);
    }
    measurements
}

/// Returns the number of operations that fit into a batch. Finding it also warms up.
fn size(schedule: Schedule, run: &mut dyn FnMut(u64)) -> u64 {
    let mut size = 1_u64;
    let mut time = |size| {
        let began = Instant::now();
        run(size);
        began.elapsed()
    };
    loop {
        // The first run takes longer, and any may be interrupted: the shortest is the work.
        let took = (0..3).map(|_| time(size)).min().expect("three times");
        if took >= schedule.batch / 2 || size > 1 << 40 {
            let batches = took.as_secs_f64() / schedule.batch.as_secs_f64();
            return ((size as f64 / batches) as u64).max(1);
        }
        size *= 2;
    }
}

/// Returns a quantile of sorted numbers.
pub(crate) fn quantile(sorted: &[f64], at: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * at).round() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_the_nearest_number() {
        let numbers = [1.0, 2.0, 3.0, 4.0, 5.0];
        let found = [0.0, 0.25, 0.5, 1.0].map(|at| quantile(&numbers, at).to_string());
        assert_eq!(found, ["1", "2", "3", "5"]);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn slow_first_run_does_not_reduce_the_batch_size() {
        let schedule = Schedule { batches: 1, batch: Duration::from_millis(1), warm: 0 };
        let mut is_first = true;
        let size = size(schedule, &mut |times| {
            if std::mem::take(&mut is_first) {
                let began = Instant::now();
                while began.elapsed() < Duration::from_millis(5) {}
            }
            (0..times).for_each(|n| drop(std::hint::black_box(n)));
        });
        assert!(size > 1000, "{size}");
    }

    #[test]
    fn all_contenders_run_equally_often() {
        let schedule = Schedule { batches: 5, batch: Duration::from_micros(50), warm: 0 };
        let spin = |n: u64| (0..n).for_each(|n| drop(std::hint::black_box(n)));
        let boxes = |n: u64| (0..n).for_each(|n| drop(std::hint::black_box(Box::new(n))));
        let measurements = run(
            schedule,
            vec![
                Contender::new("spin", Role::Vayu, spin),
                Contender::new("box", Role::Bounded, boxes).note("allocates"),
            ],
        );
        assert!(
            measurements
                .iter()
                .all(|measurement| measurement.times.len() == 5 && measurement.median() > 0.0)
        );
        assert_eq!((measurements[0].allocations, measurements[1].allocations), (0.0, 1.0));
    }
}
