//! Raw identifiers in every position.
#![deny(warnings)]
#![allow(non_camel_case_types, non_upper_case_globals)]

use std::sync::Arc;

use serde::Serialize;
use vayu::{MemoryCache, cached};

#[derive(Clone, Serialize)]
struct r#struct {
    r#in: u8,
    r#for: String,
}

#[cached(ttl = "1m", handle = match_entry)]
fn r#match(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", handle = r#loop, skip(r#move), tags("{type}"), include(r#type))]
#[allow(clippy::needless_lifetimes)]
async fn r#async<'r#ref, r#T: Clone + Sync, const r#const: usize>(
    r#type: u8,
    r#fn: &'r#ref str,
    r#move: &'r#ref [r#T; r#const],
) -> u8 {
    let _ = (r#fn, r#move);
    r#type
}

#[cached(ttl = "1m", handle = r#if, skip(r#in), tags("{type}"))]
fn r#else(r#struct { r#in, r#for: r#type }: r#struct, (mut r#dyn, _): (u8, u8)) -> String {
    r#dyn += r#in;
    format!("{type}{dyn}")
}

struct r#impl(MemoryCache);

impl r#impl {
    #[cached(ttl = "1m", cache = self.0, handle = r#while)]
    fn r#pub(&self, r#mod: u8) -> u8 {
        r#mod
    }

    #[cached(ttl = "1m", cache = r#use.0, skip(r#use), handle = Self::r#trait)]
    async fn r#static(r#use: Arc<Self>, r#mod: u8) -> u8 {
        let _ = r#use;
        r#mod
    }
}

fn main() {
    assert_eq!(r#match(1), 1);
    assert_eq!(match_entry(1).peek().unwrap(), Some(1));
    let value = || r#struct { r#in: 1, r#for: "a".to_owned() };
    assert_eq!(r#else(value(), (1, 0)), "a2");
    assert_eq!(r#if(value(), (1, 0)).peek().unwrap().unwrap(), "a2");
    let this = r#impl(MemoryCache::new());
    assert_eq!(this.r#pub(1), 1);
    assert_eq!(this.r#while(1).peek().unwrap(), Some(1));
    let this = Arc::new(this);
    assert_eq!(smol::block_on(r#impl::r#static(Arc::clone(&this), 1)), 1);
    assert_eq!(r#impl::r#trait(this, 1).peek().unwrap(), Some(1));
}
