//! Starts the service. With `--demo` it calls itself for a while, so that its page shows activity.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use vayu_example_service::{Catalogue, Store, routes};

/// Rounds of 50 ms: ten minutes.
const ROUNDS: i64 = 12_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let directory = env::var_os("DATA")
        .map_or_else(|| env::temp_dir().join("vayu-example-service"), PathBuf::from);
    std::fs::create_dir_all(&directory)?;
    let store = Store::open(&directory.join("shop.sqlite"))?;
    let catalogue = Arc::new(Catalogue::open(Arc::clone(&store), &directory.join("reports"))?);
    if env::args().any(|argument| argument == "--demo") {
        tokio::spawn(demonstrate(Arc::clone(&catalogue), store));
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/", listener.local_addr()?);
    let until_stopped = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, routes(catalogue)).with_graceful_shutdown(until_stopped).await?;
    // Refreshes that are running store their values.
    if !vayu::finish_background_async(Duration::from_secs(5)).await {
        eprintln!("some values were still being refreshed");
    }
    Ok(())
}

/// Simulates customers, price changes, and a database that is down once a minute.
async fn demonstrate(catalogue: Arc<Catalogue>, store: Arc<Store>) {
    for round in 0..ROUNDS {
        let _ = catalogue.product(1 + round * 7 % 5).await;
        if round % 4 == 0 {
            let _ = catalogue.products().await;
        }
        if round % 10 == 0 {
            let _ = catalogue.report(2020 + round / 10 % 6).await;
        }
        if round % 50 == 49 {
            let _ = catalogue.set_price(1 + round % 5, 1_000 + round).await;
        }
        store.set_down(round % 1_200 > 1_000);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.set_down(false);
}
