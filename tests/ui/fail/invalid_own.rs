use vayu::cached;

#[cached(ttl = 60, own(url))]
fn without_spawn(url: &str) -> String {
    url.to_owned()
}

#[cached(ttl = 60, stale = 60, spawn = std::thread::spawn, own(n))]
fn owned_already(n: u8) -> u8 {
    n
}

#[cached(ttl = 60, stale = 60, spawn = std::thread::spawn, own(uri))]
fn unknown(n: u8) -> u8 {
    n
}

#[cached(ttl = 60, stale = 60, spawn = std::thread::spawn, own(url, url))]
fn twice(url: &str) -> String {
    url.to_owned()
}

#[cached(ttl = 60, stale = 60, spawn = std::thread::spawn, own(buffer), skip(buffer))]
fn exclusive(n: u8, buffer: &mut Vec<u8>) -> u8 {
    buffer.push(n);
    n
}

#[cached(ttl = 60, stale = 60, spawn = tokio::spawn, own(a))]
async fn part((a, b): &(u8, u8)) -> u8 {
    a + b
}

#[cached(ttl = 60, stale = 60, spawn = tokio::spawn, own(text))]
async fn without_a_name(text: &impl AsRef<str>) -> usize {
    text.as_ref().len()
}

#[cached(ttl = 60, stale = 60, spawn = tokio::spawn, own("url"))]
async fn literal(url: &str) -> usize {
    url.len()
}

#[cached(ttl = |_: &usize| std::time::Duration::from_secs(url.len() as u64), stale = 60, spawn = tokio::spawn, own(url))]
async fn closure(url: &str) -> usize {
    url.len()
}

#[derive(serde::Serialize)]
struct NotClone(u8);

#[cached(ttl = 60, stale = 60, spawn = std::thread::spawn, own(argument))]
fn not_clone(argument: &NotClone) -> u8 {
    argument.0
}

struct Shop;

impl Shop {
    #[cached(ttl = 60, stale = 60, skip(self), spawn = std::thread::spawn, own(self))]
    fn method_by_value(self, n: u8) -> u8 {
        n
    }
}

fn main() {}
