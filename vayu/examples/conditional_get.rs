//! A conditional request (`ETag`, 304): past its ttl a page is transferred again only if it has changed.

use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vayu::{FileCache, cached};

#[derive(Serialize, Deserialize)]
struct Page {
    etag: String,
    body: String,
}

#[cached(cache = cache, ttl = "10ms", stale = "1d", skip(cache), revalidate)]
fn page(cache: &FileCache, server: SocketAddr, path: &str) -> Result<Page> {
    let old = vayu::previous::<Page>();
    let mut stream = TcpStream::connect(server)?;
    let etag = old.as_ref().map_or("none", |old| &old.etag);
    write!(stream, "GET {path} HTTP/1.0\r\nIf-None-Match: {etag}\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    println!("GET {path}: {} bytes", response.len());
    match (response.split_once("\r\n\r\n"), old) {
        (Some((head, _)), Some(old)) if head.contains(" 304 ") => Ok(old.unchanged()),
        (Some((head, body)), _) => {
            let etag = head.lines().find_map(|line| line.strip_prefix("ETag: "));
            Ok(Page { etag: etag.unwrap_or_default().to_owned(), body: body.to_owned() })
        }
        (None, _) => Err(Error::other("not a response")),
    }
}

/// Responds with a page of 1 MiB, or with 304 to a client that has it.
fn serve(listener: &TcpListener) -> Result<()> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let mut is_known = false;
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            is_known |= line == "If-None-Match: \"v1\"";
        }
        if is_known {
            write!(stream, "HTTP/1.0 304 Not Modified\r\n\r\n")?;
        } else {
            write!(stream, "HTTP/1.0 200 OK\r\nETag: \"v1\"\r\n\r\n{}", "x".repeat(1 << 20))?;
        }
    }
    Ok(())
}

fn main() -> vayu::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = listener.local_addr().expect("an address");
    thread::spawn(move || serve(&listener));
    let place = std::env::temp_dir().join(format!("vayu-conditional-get-{}", std::process::id()));
    let cache = FileCache::open(&place)?;
    for _ in 0..3 {
        let page = page(&cache, server, "/").expect("a response");
        println!("{} bytes, {}", page.body.len(), page.etag);
        thread::sleep(Duration::from_millis(20));
    }
    println!("renewed: {}", cache.stats().refreshes);
    std::fs::remove_dir_all(&place).expect("it can be removed");
    Ok(())
}
