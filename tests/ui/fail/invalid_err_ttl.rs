use vayu::{cached, single_flight};

#[cached(ttl = "1m", err_ttl = "2s")]
fn without_a_result(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", err_ttl = "2s")]
async fn error_without_clone(n: u8) -> std::io::Result<u8> {
    Ok(n)
}

#[cached(ttl = "1m", err_ttl = "2s")]
fn borrowed_error(text: &str) -> Result<u8, &str> {
    text.parse().map_err(|_| text)
}

#[cached(ttl = "1m", err_ttl = 0)]
fn zero(n: u8) -> Result<u8, String> {
    Ok(n)
}

#[cached(ttl = "1m", err_ttl = "soon")]
fn text(n: u8) -> Result<u8, String> {
    Ok(n)
}

#[cached(ttl = "1m", err_ttl = || std::time::Duration::ZERO)]
fn closure_without_a_parameter(n: u8) -> Result<u8, String> {
    Ok(n)
}

#[cached(ttl = "1m", err_ttl = |error| 60)]
fn closure_of_another_type(n: u8) -> Result<u8, String> {
    Ok(n)
}

#[single_flight(err_ttl = "2s")]
fn with_single_flight(n: u8) -> Result<u8, String> {
    Ok(n)
}

fn main() {}
