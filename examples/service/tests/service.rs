//! Tests of the service over loopback.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use vayu::testing::ManualClock;
use vayu::{FileOptions, MemoryOptions};
use vayu_example_service::{Catalogue, Store, routes};

/// A test that takes longer is taken to hang.
const HANG: Duration = Duration::from_secs(60);

/// A running service, which stops on drop.
struct Service {
    store: Arc<Store>,
    clock: ManualClock,
    client: reqwest::Client,
    root: String,
    server: JoinHandle<()>,
}

impl Service {
    async fn start(directory: &Path, clock: &ManualClock) -> Self {
        let store = Store::open(&directory.join("shop.sqlite")).expect("a store");
        let catalogue = Catalogue::with_options(
            Arc::clone(&store),
            &directory.join("reports"),
            MemoryOptions::new().clock(clock.clone()),
            FileOptions::new().clock(clock.clone()),
        );
        let app = routes(Arc::new(catalogue.expect("a catalogue")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let root = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("it serves");
        });
        let client = reqwest::Client::builder().timeout(HANG).no_proxy().build();
        let client = client.expect("a client");
        Self { store, clock: clock.clone(), client, root, server }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = self.client.get(format!("{}{path}", self.root));
        let response = request.send().await.expect("a response");
        (response.status(), response.text().await.expect("a body"))
    }

    async fn json(&self, path: &str) -> Value {
        let (status, text) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    async fn post(&self, path: &str, body: Value) -> StatusCode {
        let request = self.client.post(format!("{}{path}", self.root)).json(&body);
        request.send().await.expect("a response").status()
    }

    fn queries(&self) -> u64 {
        self.store.queries()
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Runs a test with a service over a directory of its own.
fn with_service<F: Future<Output = ()>>(test: impl FnOnce(Service, PathBuf) -> F) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let service = Service::start(directory.path(), &ManualClock::new()).await;
        tokio::time::timeout(HANG, test(service, directory.path().to_owned()))
            .await
            .expect("it ends");
    });
}

#[test]
fn product_is_read_once_while_it_is_fresh() {
    with_service(|service, _directory| async move {
        for _ in 0..3 {
            assert_eq!(service.json("/products/2").await["name"], "kettle");
        }
        assert_eq!(service.queries(), 1);
        service.pass(5);
        service.json("/products/2").await;
        assert_eq!(service.queries(), 2);
        assert_eq!(service.get("/products/99").await.0, StatusCode::NOT_FOUND);
        assert_eq!(service.get("/products/99").await.0, StatusCode::NOT_FOUND);
        assert_eq!(service.queries(), 4, "a product that does not exist is not cached");
    });
}

#[test]
fn headers_say_where_a_response_comes_from_and_for_how_long_it_is_fresh() {
    with_service(|service, _directory| async move {
        let headers = async |path: &str| {
            let request = service.client.get(format!("{}{path}", service.root));
            let response = request.send().await.expect("a response");
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
            let [cache, age, control] = ["x-cache", "age", "cache-control"].map(header);
            [cache, age, control].map(|header| header.map(str::to_owned))
        };
        let some = |values: [&str; 3]| values.map(|value| Some(value.to_owned()));
        let path = "/products/2";
        assert_eq!(headers(path).await, some(["MISS", "0", "private, max-age=5"]));
        service.pass(3);
        assert_eq!(headers(path).await, some(["HIT", "3", "private, max-age=5"]));
        service.pass(3);
        service.store.set_down(true);
        assert_eq!(headers(path).await, some(["STALE", "6", "no-cache"]));
        assert_eq!(headers("/products/1").await, [None, None, None], "an error");
        service.store.set_down(false);
        assert_eq!(headers("/health").await, [None, None, None], "nothing is cached");
        assert_eq!(headers("/reports/2024").await, some(["MISS", "0", "private, max-age=3600"]));
        service.pass(60);
        assert_eq!(headers("/reports/2024").await, some(["HIT", "60", "private, max-age=3600"]));
    });
}

#[test]
fn hundred_concurrent_requests_run_one_query() {
    with_service(|service, _directory| async move {
        let service = Arc::new(service);
        let requests: Vec<_> = (0..100)
            .map(|_| {
                let service = Arc::clone(&service);
                tokio::spawn(async move { service.json("/products").await })
            })
            .collect();
        for request in requests {
            let products = request.await.expect("no panic");
            assert_eq!(products.as_array().map(Vec::len), Some(5));
        }
        assert_eq!(service.queries(), 1);
    });
}

#[test]
fn new_price_is_returned_once_it_is_set() {
    with_service(|service, _directory| async move {
        assert_eq!(service.json("/products/1").await["cents"], 1_000);
        assert_eq!(service.json("/products").await[0]["cents"], 1_000);
        service.json("/products/2").await;
        let before = service.queries();
        let price = serde_json::json!({ "cents": 1_250 });
        assert_eq!(service.post("/products/1/price", price.clone()).await, StatusCode::OK);
        assert_eq!(service.json("/products/1").await["cents"], 1_250);
        assert_eq!(service.json("/products").await[0]["cents"], 1_250);
        service.json("/products/2").await;
        assert_eq!(service.queries(), before + 3, "the other product is still cached");
        assert_eq!(service.post("/products/99/price", price).await, StatusCode::NOT_FOUND);
    });
}

#[test]
fn old_product_is_served_while_the_database_is_down() {
    with_service(|service, _directory| async move {
        service.json("/products/3").await;
        service.store.set_down(true);
        service.pass(60);
        let before = service.queries();
        for _ in 0..10 {
            assert_eq!(service.json("/products/3").await["name"], "cup");
        }
        assert_eq!(service.queries(), before + 1, "one request tries the database again");
        assert_eq!(service.get("/products/4").await.0, StatusCode::SERVICE_UNAVAILABLE);
        service.pass(600);
        assert_eq!(service.get("/products/3").await.0, StatusCode::SERVICE_UNAVAILABLE, "too old");
        service.store.set_down(false);
        assert_eq!(service.json("/products/3").await["name"], "cup");
    });
}

#[test]
fn report_outlives_the_service() {
    with_service(|service, directory| async move {
        let clock = service.clock.clone();
        assert_eq!(service.get("/reports/2024/age").await.0, StatusCode::NOT_FOUND);
        let report = service.json("/reports/2024").await;
        assert_eq!(report["revenue"].as_array().map(Vec::len), Some(5));
        drop(service);

        clock.advance(Duration::from_secs(600));
        let service = Service::start(&directory, &clock).await;
        assert_eq!(service.json("/reports/2024").await, report);
        assert_eq!(service.queries(), 0);
        assert_eq!(service.get("/reports/2024/age").await.1, "600 s\n");
        service.json("/reports/2024").await;
        assert_eq!(service.json("/stats.json").await["report_hits"], serde_json::json!([1, 1]));
        assert_eq!(service.post("/reports/2024/refresh", Value::Null).await, StatusCode::OK);
        assert_eq!(service.queries(), 1);
        assert_eq!(service.get("/reports/2024/age").await.1, "0 s\n");
        service.store.set_down(true);
        let refused = service.post("/reports/2024/refresh", Value::Null).await;
        assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(service.json("/reports/2024").await, report, "the cached report is kept");
    });
}

#[test]
fn statistics_are_served_in_both_formats() {
    with_service(|service, _directory| async move {
        for _ in 0..4 {
            service.json("/products/1").await;
        }
        service.json("/reports/2025").await;
        let overview = service.json("/stats.json").await;
        let stats = &overview["functions"];
        let product = &stats[0];
        assert_eq!((&product["function"], &product["hits"]), (&"product".into(), &3.into()));
        assert_eq!(product["hit_ratio"], 0.75);
        assert_eq!(stats[1]["function"], "report");
        assert_eq!(product["ended"]["invalidated"], 0);
        let caches = service.json("/health").await;
        let reports =
            caches.as_array().expect("a list").iter().find(|cache| cache["name"] == "reports");
        assert!(reports.expect("the cache of the reports")["off"].is_null());
        let (code, text) = service.get("/metrics").await;
        assert_eq!(code, StatusCode::OK);
        for line in [
            "vayu_call_count_total{vayu_function=\"product\",vayu_outcome=\"hit\"} 3",
            "vayu_call_count_total{vayu_function=\"product\",vayu_outcome=\"miss\"} 1",
            "vayu_call_count_total{vayu_function=\"report\",vayu_outcome=\"miss\"} 1",
            "vayu_insert_count_total{vayu_function=\"product\"} 1",
            "vayu_end_count_total{vayu_function=\"product\",vayu_cause=\"evicted\"} 0",
            "vayu_error_count_total{vayu_function=\"report\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    });
}

#[test]
fn dashboard_shows_only_metrics_that_are_there() {
    with_service(|service, _directory| async move {
        service.json("/products/1").await;
        service.json("/reports/2025").await;
        let (_, text) = service.get("/metrics").await;
        let dashboard: Value = serde_json::from_str(include_str!("../grafana.json")).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        let queries: Vec<&str> = panels
            .iter()
            .flat_map(|panel| panel["targets"].as_array().expect("targets"))
            .map(|target| target["expr"].as_str().expect("a query"))
            .collect();
        assert!(queries.len() >= panels.len());
        for query in queries {
            let words = query.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
            let metrics: Vec<&str> = words
                .filter(|word| word.starts_with("vayu_"))
                .filter(|word| {
                    !["vayu_function", "vayu_outcome", "vayu_cause", "vayu_cache"].contains(word)
                })
                .collect();
            assert!(!metrics.is_empty(), "{query}");
            for metric in metrics {
                let sample = format!("{metric}{{");
                assert!(text.lines().any(|line| line.starts_with(&sample)), "{metric}: {text}");
            }
        }
    });
}

#[test]
fn page_is_served_and_loads_nothing_from_other_hosts() {
    with_service(|service, _directory| async move {
        let (status, page) = service.get("/").await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("stats.json"));
        service.json("/products/1").await;
        let overview = service.json("/stats.json").await;
        let fields = page.split(|it: char| !it.is_ascii_alphabetic() && !"_.".contains(it));
        for field in fields {
            let mut names = field.split('.');
            let shown = match (names.next(), names.next()) {
                (Some("f"), Some(name)) => overview["functions"][0].get(name),
                (Some("c"), Some(name)) => overview["caches"][0].get(name),
                (Some("overview"), Some(name)) => overview.get(name),
                _ => continue,
            };
            assert!(shown.is_some(), "the page shows `{field}`");
        }
        let foreign = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign.contains("http://") && !foreign.contains("https://"));
    });
}
