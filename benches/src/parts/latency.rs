//! Latency of single hits, including the slow ones.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use serde_json::json;

use super::memory::contenders::{Maps, number};
use crate::comparison::quantile;
use crate::keys::{Cycle, uniform};
use crate::report::Report;
use crate::units::time;
use crate::{plot, quick};

/// The numbers of calls of which the slowest is reported.
const OF: [f64; 5] = [2.0, 10.0, 100.0, 1000.0, 10_000.0];
const CALLS: usize = 1000;

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let rounds = quick::or(400, 2);
    let keys = uniform(1000, 1 << 14, 4);
    let maps = Maps::of(1000);
    let calls: [(&str, &dyn Fn(u64)); 4] = [
        ("vayu", &|key| drop(black_box(number::vayu(key)))),
        ("cached, concurrent, ttl", &|key| drop(black_box(number::cached_concurrent(key)))),
        ("moka, ttl, get", &|key| drop(black_box(maps.moka.get(&key)))),
        ("quick_cache, deadline", &|key| drop(black_box(maps.quick(key)))),
    ];
    let mut cycles = calls.map(|_| Cycle::new(&keys));
    let mut times = calls.map(|_| Vec::with_capacity(rounds * CALLS));
    // The first round fills the caches.
    for round in 0..=rounds {
        for (((_, call), cycle), times) in calls.iter().zip(&mut cycles).zip(&mut times) {
            for _ in 0..CALLS {
                let key = black_box(cycle.next());
                let began = Instant::now();
                call(key);
                let took = began.elapsed().as_secs_f64() * 1e9;
                if round > 0 {
                    times.push(took);
                }
            }
        }
    }
    let mut text =
        "\nEach call is timed by itself, with one read of the clock, on one thread. A column has \
                    the slowest of that many calls.\n\n| | 2 | 10 | 100 | 1,000 | 10,000 |\n\
                    |---|--:|--:|--:|--:|--:|\n"
            .to_owned();
    let mut series = Vec::new();
    for ((name, _), times) in calls.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let points = OF.map(|of| (of, quantile(times, 1.0 - 1.0 / of)));
        let row = points.map(|(_, slowest)| time(slowest)).join(" | ");
        text += &format!("| {name} | {row} |\n");
        series.push((*name, points.to_vec()));
    }
    report.write(&text);
    report.data(json!({ "slowest_of": series }));
    let title = "Slowest of N hits, u64 -> u64, 1,000 keys";
    report.plot("latency", plot::lines(title, "ns", &series));
    Ok(())
}
