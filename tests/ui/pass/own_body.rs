//! Functions with `own` whose bodies and closures have names that look like those of what is copied.
#![deny(warnings)]

use std::time::Duration;

use vayu::cached;

#[derive(Clone, serde::Serialize)]
struct Page {
    url: String,
}

impl Page {
    fn url(&self) -> u64 {
        self.url.len() as u64
    }
}

#[derive(Clone, serde::Serialize)]
struct Shop {
    url: String,
}

impl Shop {
    #[allow(clippy::needless_arbitrary_self_type)]
    #[cached(ttl = 60, stale = 60, include(self.url), spawn = std::thread::spawn, own(self))]
    fn typed(self: &Self) -> String {
        struct Other;
        impl std::fmt::Display for Other {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "other")
            }
        }
        let this = self;
        let _ = ("{self}", format!("{{self}} {} {}", this.url, Other));
        self.url.clone()
    }
}

#[cached(
    ttl = |page: &Page| Duration::from_secs(page.url() + page.url.len() as u64), stale = 60,
    spawn = std::thread::spawn, own(url), cache_if = |url: &Page| !url.url.is_empty()
)]
fn fields(url: &str) -> Page {
    Page { url: url.to_owned() }
}

#[cached(ttl = 60, stale = 60, spawn = std::thread::spawn, own(url))]
fn lifetime<'a>(url: &'a str) -> String {
    #[allow(clippy::needless_lifetimes, reason = "it has the name of the outer one")]
    fn inner<'a>(url: &'a str) -> &'a str {
        url
    }
    inner(url).to_owned()
}

fn main() {
    let shop = Shop { url: "url".to_owned() };
    assert_eq!(shop.typed(), "url");
    assert_eq!(fields("url").url, lifetime("url"));
}
