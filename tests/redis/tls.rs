//! TLS.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vayu::testing::watchdog;
use vayu::{Key, RedisOptions};

use crate::HANG;
use crate::server::{Server, shared};

const MINUTE: Duration = Duration::from_secs(60);

fn openssl(place: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(place).output();
    let output = output.expect("these tests need the program openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a certificate of it for `localhost` that is valid for so many days.
fn certificates(place: &Path, days: &str) {
    openssl(
        place,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key -out ca.crt -subj /CN=authority",
    );
    openssl(
        place,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
    );
    std::fs::write(place.join("names"), "subjectAltName=DNS:localhost").unwrap();
    openssl(
        place,
        &format!(
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial {days} -out server.crt -extfile names"
        ),
    );
}

struct Secure {
    _server: Server,
    port: u16,
    authority: Vec<u8>,
}

fn secure(days: &str) -> Secure {
    let place = tempfile::tempdir().unwrap().keep();
    certificates(&place, days);
    let file = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &file("server.crt"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.crt"),
    ]);
    let authority = std::fs::read(place.join("ca.crt")).unwrap();
    std::fs::remove_dir_all(place).unwrap();
    Secure { _server: server, port, authority }
}

fn options() -> RedisOptions {
    // A handshake in a debug build on a busy machine takes its time.
    RedisOptions::new().timeout(Duration::from_secs(10))
}

#[test]
fn server_with_a_known_certificate_is_used_and_others_are_not() {
    watchdog(HANG, || {
        let server = secure("-days 30");
        let url = |host: &str| format!("rediss://{host}:{}/", server.port);
        let known = || options().root_certificates(server.authority.clone());
        let cache = known().connect_eagerly().connect(url("localhost")).unwrap();
        let key = Key::from_text("n", "1");
        cache.set(&key, &1, MINUTE).unwrap();
        assert_eq!(cache.get::<i32>(&key).unwrap(), Some(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(cache.get_async::<i32>(&key)).unwrap(), Some(1));

        options().connect_eagerly().connect(url("localhost")).expect_err("nobody knows it");
        known().connect_eagerly().connect(url("127.0.0.1")).expect_err("it has another name");
        let to_plain = format!("rediss://localhost:{}/", shared().port);
        known().connect_eagerly().connect(to_plain).expect_err("it speaks no TLS");
        let from_plain = format!("redis://localhost:{}/", server.port);
        options().connect_eagerly().connect(from_plain).expect_err("it speaks nothing else");
        // The calls go on in any case, in both forms.
        let unknown = options().connect(url("localhost")).unwrap();
        assert_eq!(unknown.get_or_insert_with(&key, MINUTE, || 2), 2);
        let compute = unknown.get_or_insert_with_async(&key, MINUTE, async { 3 });
        assert_eq!(runtime.block_on(compute), 3);
        // To leave certificates unchecked is not possible by a word in the address.
        let insecure = format!("{}#insecure", url("localhost"));
        let opened = options().connect_eagerly().connect(insecure);
        opened.expect_err("certificates are always checked");
    });
}

#[test]
fn certificate_that_has_expired_is_none() {
    watchdog(HANG, || {
        let server = secure("-days -1");
        let url = format!("rediss://localhost:{}/", server.port);
        let known = options().root_certificates(server.authority.clone());
        known.connect_eagerly().connect(url).expect_err("it has expired");
    });
}
