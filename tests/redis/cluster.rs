//! Caches on a cluster of three nodes.

use std::time::Duration;

use vayu::testing::watchdog;
use vayu::{Key, RedisOptions, SingleFlight, cached};

use crate::server::{Cluster, Server, shared_cluster};
use crate::{HANG, namespace, until};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn entries_are_spread_over_the_nodes_and_cleared_on_all() {
    watchdog(HANG, || {
        let cluster = shared_cluster();
        let namespace = namespace();
        let options = || RedisOptions::new().namespace(&namespace);
        let cache = options().connect_cluster(cluster.urls()).unwrap();
        let others = RedisOptions::new().namespace(crate::namespace());
        let others = others.connect_cluster(cluster.urls()).unwrap();
        for n in 0..100 {
            cache.set(&Key::from_text("n", n.to_string()), &n, MINUTE).unwrap();
        }
        others.set(&Key::from_text("n", "0"), &0, MINUTE).unwrap();
        let of_node = |node: &Server| {
            let start = format!("{namespace}:e:");
            node.names().iter().filter(|name| name.starts_with(&start)).count()
        };
        let counts: Vec<_> = cluster.0.iter().map(of_node).collect();
        assert!(counts.iter().all(|&count| count > 10), "{counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 100);
        cache.clear().unwrap();
        assert_eq!(cluster.0.iter().map(of_node).sum::<usize>(), 0);
        assert_eq!(others.get::<i32>(&Key::from_text("n", "0")).unwrap(), Some(0));
    });
}

#[cached(cache = cache, ttl = "1m", prefix = "double", skip(cache), log = false)]
fn double(cache: &vayu::RedisCache, n: u64) -> u64 {
    2 * n
}

#[cached(cache = cache, ttl = "1m", prefix = "double", skip(cache), log = false)]
async fn double_async(cache: &vayu::RedisCache, n: u64) -> u64 {
    2 * n
}

#[test]
fn failed_node_does_not_fail_calls() {
    watchdog(HANG, || {
        let mut cluster = Cluster::start();
        let cache = RedisOptions::new()
            .single_flight(SingleFlight::Everywhere)
            .connect_cluster(cluster.urls())
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let call = || {
            for n in 0..100 {
                assert_eq!(double(&cache, n), 2 * n);
                assert_eq!(runtime.block_on(double_async(&cache, n)), 2 * n);
            }
        };
        call();
        assert_eq!(cache.stats().hits, 100);
        cluster.0[1].kill();
        call();
        cluster.0[1].revive();
        until("all is found again", || {
            let before = cache.stats().hits;
            call();
            cache.stats().hits == before + 200
        });
    });
}
