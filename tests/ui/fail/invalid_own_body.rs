use std::sync::Arc;

use vayu::cached;

#[derive(Clone, serde::Serialize)]
struct Shop {
    url: String,
}

impl std::fmt::Display for Shop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

impl Shop {
    #[cached(ttl = 60, stale = 60, key = "k", spawn = std::thread::spawn, own(self))]
    fn inline(&self) -> String {
        format!("{self}")
    }

    #[cached(ttl = 60, stale = 60, key = "k", spawn = tokio::spawn, own(self))]
    async fn inline_with_options(&self) -> String {
        let width = vec![format!("{self:>9}")];
        width.concat()
    }

    #[cached(
        ttl = 60, stale = 60, key = "k", spawn = tokio::spawn, own(self),
        revalidate = async |old: &String, _| *old == format!("{self}")
    )]
    async fn inline_in_a_check(&self) -> String {
        self.url.clone()
    }

    #[cached(ttl = 60, stale = 60, key = "k", spawn = std::thread::spawn, own(self))]
    fn exclusive(self: &mut Self) -> String {
        self.url.clone()
    }

    #[cached(ttl = 60, stale = 60, key = "k", spawn = std::thread::spawn, own(self))]
    fn pointer(self: &Arc<Self>) -> String {
        self.url.clone()
    }

    #[cached(ttl = 60, stale = 60, key = "k", spawn = std::thread::spawn)]
    fn typed(self: &Self) -> String {
        self.url.clone()
    }

    #[cached(ttl = 60, stale = 60, key = "k", spawn = std::thread::spawn, own(self))]
    fn lifetime_of_self<'a>(&'a self) -> String {
        let url: &'a str = &self.url;
        url.to_owned()
    }
}

#[cached(ttl = 60, stale = 60, spawn = std::thread::spawn, own(url))]
fn lifetime<'a>(url: &'a str) -> String {
    let url: &'a str = url;
    url.to_owned()
}

#[cached(
    ttl = 60, stale = 60, spawn = tokio::spawn, own(url),
    cache_if = |text: &String| text != &format!("{url}")
)]
async fn inline_in_a_closure(url: &str) -> String {
    url.to_owned()
}

fn main() {}
