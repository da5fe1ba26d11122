//! Connections with TLS.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vayu::testing::watchdog;
use vayu::{Key, RedisOptions};

use crate::HANG;
use crate::server::{Server, free_port, shared};

const MINUTE: Duration = Duration::from_secs(60);

fn openssl(place: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(place).output();
    let output = output.expect("these tests need the program openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Creates an authority and a certificate for `localhost` with this validity.
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

pub(crate) struct Secure {
    pub(crate) server: Server,
    pub(crate) port: u16,
    pub(crate) authority: Vec<u8>,
    /// A client certificate of the same authority, and its key.
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Starts a server with TLS that requires client certificates or does not (`yes`, `no`).
pub(crate) fn secure(days: &str, auth_clients: &str) -> Secure {
    let place = tempfile::tempdir().unwrap().keep();
    certificates(&place, days);
    let file = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let port = free_port();
    let server = Server::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-auth-clients",
        auth_clients,
        "--tls-cert-file",
        &file("server.crt"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.crt"),
    ]);
    let read = |name: &str| std::fs::read(place.join(name)).unwrap();
    let (authority, certificate, key) = (read("ca.crt"), read("server.crt"), read("server.key"));
    std::fs::remove_dir_all(place).unwrap();
    Secure { server, port, authority, certificate, key }
}

pub(crate) fn options() -> RedisOptions {
    // A TLS handshake in a debug build is slow on a busy machine.
    RedisOptions::new().timeout(Duration::from_secs(10))
}

#[test]
fn only_servers_with_a_trusted_certificate_are_used() {
    watchdog(HANG, || {
        let server = secure("-days 30", "no");
        let url = |host: &str| format!("rediss://{host}:{}/", server.port);
        let known = || options().root_certificates(server.authority.clone());
        let cache = known().connect_eagerly().connect(url("localhost")).unwrap();
        let key = Key::from_text("n", "1");
        cache.set(&key, &1, MINUTE).unwrap();
        assert_eq!(cache.get::<i32>(&key).unwrap(), Some(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(cache.get_async::<i32>(&key)).unwrap(), Some(1));

        options()
            .connect_eagerly()
            .connect(url("localhost"))
            .expect_err("an untrusted certificate");
        known().connect_eagerly().connect(url("127.0.0.1")).expect_err("it has another name");
        let to_plain = format!("rediss://localhost:{}/", shared().port);
        known().connect_eagerly().connect(to_plain).expect_err("it speaks no TLS");
        let from_plain = format!("redis://localhost:{}/", server.port);
        options().connect_eagerly().connect(from_plain).expect_err("it speaks nothing else");
        // Sync and async calls continue in any case.
        let unknown = options().connect(url("localhost")).unwrap();
        assert_eq!(unknown.get_or_insert_with(&key, MINUTE, || 2), 2);
        let compute = unknown.get_or_insert_with_async(&key, MINUTE, async { 3 });
        assert_eq!(runtime.block_on(compute), 3);
        // A URL cannot disable the verification of certificates.
        let insecure = format!("{}#insecure", url("localhost"));
        let opened = options().connect_eagerly().connect(insecure);
        opened.expect_err("certificates are always checked");
    });
}

#[test]
fn expired_certificate_is_rejected() {
    watchdog(HANG, || {
        let server = secure("-days -1", "no");
        let url = format!("rediss://localhost:{}/", server.port);
        let known = options().root_certificates(server.authority.clone());
        known.connect_eagerly().connect(url).expect_err("it has expired");
    });
}

/// A Redis server with TLS requires client certificates by default.
#[test]
fn client_certificate_is_presented() {
    watchdog(HANG, || {
        let server = secure("-days 30", "yes");
        let url = format!("rediss://localhost:{}/", server.port);
        let known = || options().root_certificates(server.authority.clone());
        known().connect_eagerly().connect(&url).expect_err("it requires a certificate");
        let with = known().client_certificate(server.certificate.clone(), server.key.clone());
        let message = format!("{with:?}");
        assert!(!message.contains("PRIVATE") && !message.contains("client"), "{message}");
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str, pem: &[u8]| {
            let path = place.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path.to_str().unwrap().replace(' ', "%20")
        };
        let from_files = format!(
            "{url}?timeout=10s&tls_cert_file={}&tls_key_file={}&tls_ca_cert_file={}",
            file("client%26.crt", &server.certificate).replace("%26", "%2526"),
            file("client.key", &server.key),
            file("ca.crt", &server.authority),
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let key = Key::from_text("n", "1");
        for (n, cache) in [
            with.connect_eagerly().connect(&url).unwrap(),
            RedisOptions::new().connect_eagerly().connect(&from_files).unwrap(),
        ]
        .into_iter()
        .enumerate()
        {
            cache.set(&key, &n, MINUTE).unwrap();
            assert_eq!(cache.get::<usize>(&key).unwrap(), Some(n));
            assert_eq!(runtime.block_on(cache.get_async::<usize>(&key)).unwrap(), Some(n));
        }
    });
}

#[test]
fn invalid_certificates_are_rejected_without_the_key_in_the_error() {
    let url = "rediss://localhost:1/";
    let refused = |options: RedisOptions, url: &str| {
        let error = options.connect(url).expect_err(url);
        assert_eq!(error.kind(), vayu::ErrorKind::Configuration);
        let message = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(!message.contains("secret"), "{message}");
        message
    };
    let begin = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (options, says) in [
        (options().client_certificate("secret", "secret"), "no certificate"),
        (options().client_certificate(begin, "-----BEGIN secret-----"), "private key"),
        (options().root_certificates("secret"), "no certificate"),
    ] {
        let message = refused(options, url);
        assert!(message.contains(says), "{message}");
    }
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("cert.pem");
    std::fs::write(&path, begin).unwrap();
    let half = format!("{url}?tls_cert_file={}", path.display());
    assert!(refused(options(), &half).contains("private key"));
    assert!(refused(options(), &format!("{url}?tls_key_file=/missing")).contains("`tls_key_file`"));
}

/// The cluster client of the `redis` crate does not take certificates from the nodes.
#[test]
fn client_certificate_is_presented_to_a_cluster() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().unwrap();
        certificates(place.path(), "-days 30");
        let file = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
        let port = free_port();
        let server = Server::with(&[
            "--cluster-enabled",
            "yes",
            "--tls-cluster",
            "yes",
            "--cluster-announce-hostname",
            "localhost",
            "--cluster-preferred-endpoint-type",
            "hostname",
            "--cluster-port",
            &free_port().to_string(),
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.crt"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.crt"),
        ]);
        let () = server.ask("CLUSTER ADDSLOTSRANGE 0 16383");
        crate::until("the cluster comes up", || {
            server.ask::<String>("CLUSTER INFO").contains("cluster_state:ok")
        });
        let read = |name: &str| std::fs::read(place.path().join(name)).unwrap();
        let options = options()
            .root_certificates(read("ca.crt"))
            .client_certificate(read("server.crt"), read("server.key"));
        let cache = options.connect_cluster([format!("rediss://localhost:{port}/")]).unwrap();
        let key = Key::from_text("n", "1");
        cache.set(&key, &1, MINUTE).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(cache.get_async::<i32>(&key)).unwrap(), Some(1));
    });
}
