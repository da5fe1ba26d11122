use vayu::cached;

#[cached(ttl = "1m", cache_if = Result::is_ok)]
fn by_path(n: u32) -> Result<u32, String> {
    Ok(n)
}

#[cached(ttl = "1m", cache_if = |value: &Result<u32, String>| value.is_ok())]
fn by_type(n: u32) -> Result<u32, String> {
    Ok(n)
}

#[cached(ttl = "1m", cache_if = |value| value.is_ok())]
async fn by_method(n: u32) -> Result<u32, String> {
    Ok(n)
}

type Answer<T> = Result<T, String>;

#[cached(ttl = "1m", cache_if = Result::is_ok)]
fn by_alias(n: u32) -> Answer<u32> {
    Ok(n)
}

#[cached(ttl = "1m", cache_if = Option::is_some)]
fn of_another_type(n: u32) -> u32 {
    n
}

fn main() {}
