//! Traces of cached calls with OpenTelemetry, which this program writes to standard output.
//!
//! ```text
//! cargo run -p vayu-example-opentelemetry
//! ```
//!
//! The first request is a miss: its span has a child, `vayu.run`, for the run of the function. The second one is a hit,
//! with the age of the value and without a child. To send the spans to a collector, replace the exporter by that of
//! `opentelemetry-otlp`.

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::field::Empty;
use tracing::{Level, Subscriber, instrument};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use vayu::cached;

/// Returns the title of an article, from a slow source.
#[cached(ttl = "5m")]
async fn title(id: u32) -> String {
    tokio::task::yield_now().await;
    format!("article {id}")
}

/// Handles a request. The outcome of the cached call and the age of its value are recorded in the fields of the span, because
/// it has them.
#[instrument(fields(vayu.outcome = Empty, vayu.age = Empty))]
async fn request(id: u32) -> String {
    title(id).await
}

/// Creates a subscriber that makes spans of OpenTelemetry. The spans of vayu are at debug level.
fn subscriber(provider: &SdkTracerProvider) -> impl Subscriber + Send + Sync {
    let levels = Targets::new().with_default(Level::INFO).with_target("vayu", Level::DEBUG);
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
    tracing_subscriber::registry().with(levels).with(layer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let exporter = opentelemetry_stdout::SpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter).build();
    tracing::subscriber::set_global_default(subscriber(&provider))?;
    request(7).await;
    request(7).await;
    provider.shutdown()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};

    use super::*;

    /// Returns the value of an attribute of a span.
    fn attribute(span: &SpanData, name: &str) -> Option<String> {
        let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
        found.map(|attribute| attribute.value.to_string())
    }

    #[test]
    fn spans_have_the_outcomes_of_cached_calls_and_a_child_for_each_run() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        tracing::subscriber::with_default(subscriber(&provider), || {
            runtime.block_on(request(1));
            runtime.block_on(request(1));
        });
        let spans = exporter.get_finished_spans().expect("spans");
        let [run, miss, hit] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((&*run.name, &*miss.name, &*hit.name), ("vayu.run", "request", "request"));
        assert_eq!(run.parent_span_id, miss.span_context.span_id());
        assert_eq!(attribute(run, "reason").as_deref(), Some("miss"));
        assert!(attribute(run, "function").is_some_and(|name| name.ends_with("::title")));
        assert_eq!(attribute(miss, "vayu.outcome").as_deref(), Some("miss"));
        assert_eq!(attribute(hit, "vayu.outcome").as_deref(), Some("hit"));
        assert!(attribute(hit, "vayu.age").is_some());
    }
}
