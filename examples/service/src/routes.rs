//! The routes and their handlers.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use crate::catalogue::{Catalogue, Product, Report};
use crate::headers::cache_headers;
use crate::problem::Problem;
use crate::prometheus;
use crate::stats::{Health, Overview};

type SharedCatalogue = State<Arc<Catalogue>>;

/// Creates the router of the service.
pub fn routes(catalogue: Arc<Catalogue>) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/products", get(products))
        .route("/products/{id}", get(product))
        .route("/reports/{year}", get(report))
        .route_layer(from_fn(watch))
        .route("/products/{id}/price", post(set_price))
        .route("/reports/{year}/age", get(report_age))
        .route("/reports/{year}/refresh", post(refresh_report))
        .route("/stats.json", get(stats))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(catalogue)
}

/// Adds headers by what became of the cached calls of a request.
async fn watch(request: Request, next: Next) -> Response {
    let (mut response, calls) = vayu::watch(next.run(request)).await;
    if response.status().is_success() {
        response.headers_mut().extend(cache_headers(&calls));
    }
    response
}

async fn products(State(catalogue): SharedCatalogue) -> Result<Json<Vec<Product>>, Problem> {
    Ok(Json(catalogue.products().await?))
}

async fn product(
    State(catalogue): SharedCatalogue,
    Path(id): Path<i64>,
) -> Result<Json<Product>, Problem> {
    Ok(Json(catalogue.product(id).await?))
}

#[derive(Deserialize)]
struct Price {
    cents: i64,
}

async fn set_price(
    State(catalogue): SharedCatalogue,
    Path(id): Path<i64>,
    Json(price): Json<Price>,
) -> Result<(), Problem> {
    catalogue.set_price(id, price.cents).await
}

async fn report(
    State(catalogue): SharedCatalogue,
    Path(year): Path<i64>,
) -> Result<Json<Report>, Problem> {
    Ok(Json(catalogue.report(year).await?))
}

async fn report_age(
    State(catalogue): SharedCatalogue,
    Path(year): Path<i64>,
) -> Result<String, Problem> {
    Ok(format!("{} s\n", catalogue.report_age(year).await?.as_secs()))
}

async fn refresh_report(
    State(catalogue): SharedCatalogue,
    Path(year): Path<i64>,
) -> Result<Json<Report>, Problem> {
    Ok(Json(catalogue.refresh_report(year).await?))
}

async fn stats(State(catalogue): SharedCatalogue) -> Json<Overview> {
    Json(Overview::of(&catalogue))
}

async fn metrics(State(catalogue): SharedCatalogue) -> impl IntoResponse {
    let functions = catalogue.function_stats().functions();
    let text = prometheus::text(&functions, &vayu::caches());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Lists the caches of the process.
async fn health() -> Json<Vec<Health>> {
    Json(vayu::caches().into_iter().map(Health::from).collect())
}
