//! A server that speaks S3, on the loopback interface: `moto_server`, which `.ci/test` installs. Where it is missing, these
//! tests print that and are skipped.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use vayu::backend::object_store::aws::AmazonS3Builder;
use vayu::backend::{Backend, Lease};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Key, ObjectCache, ObjectOptions, SingleFlight, cached};

use crate::{HANG, open, process};

const HOUR: Duration = Duration::from_secs(3600);

/// A server. It ends with this process.
struct Server {
    port: u16,
    _shell: Child,
}

/// A shell script that ends the server when its input ends: at the latest with this process. The server binds a free port
/// and reports it in its log.
const SCRIPT: &str = r#"
moto_server -H 127.0.0.1 -p 0 >"$1" 2>&1 &
read -r line
kill -9 $! 2>/dev/null
"#;

impl Server {
    /// Starts the server, unless it is not installed.
    fn start() -> Option<Self> {
        let is_installed = Command::new("moto_server").arg("--help").stdout(Stdio::null()).status();
        if !is_installed.is_ok_and(|status| status.success()) {
            println!("skipped: `moto_server` is not installed (pip install 'moto[server]')");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(&log)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let read = || fs::read_to_string(&log).unwrap_or_default();
        let port = (0..600).find_map(|_| {
            thread::sleep(Duration::from_millis(50));
            reported_port(&read())
        });
        let port = port.unwrap_or_else(|| panic!("the server does not start: {}", read()));
        let server = Self { port, _shell: shell };
        server.put_bucket().expect("a bucket");
        Some(server)
    }

    /// Creates the bucket.
    fn put_bucket(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let head = "PUT /bucket HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\
            Authorization: AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request\r\n\
            Connection: close\r\n\r\n";
        stream.write_all(head.as_bytes())?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        Ok(())
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Returns the port in a line of the log.
fn reported_port(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once("Running on http://127.0.0.1:")?;
    let (port, _) = rest.split_once('\n')?;
    port.trim().parse().ok()
}

static SERVER: LazyLock<Option<Server>> = LazyLock::new(Server::start);

fn connect(server: &Server, prefix: &str, clock: ManualClock) -> ObjectCache {
    let store = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_region("us-east-1")
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_access_key_id("id")
        .with_secret_access_key("secret")
        .build()
        .expect("a store");
    ObjectOptions::new()
        .prefix(prefix)
        .timeout(HANG)
        .single_flight(SingleFlight::Everywhere)
        .lease_ttl(HOUR)
        .clock(clock)
        .open(Arc::new(store))
        .expect("a cache")
}

#[cached(cache = cache, ttl = "1h", prefix = "report", skip(cache), tags("report:{n}"))]
fn report(cache: &ObjectCache, n: u8) -> Vec<u8> {
    vec![n; 3_000_000]
}

#[test]
fn entries_leases_and_invalidations_work_on_a_server() {
    watchdog(2 * HANG, || {
        let Some(server) = &*SERVER else { return };
        let clock = ManualClock::new();
        let (one, other) =
            (connect(server, "calls", clock.clone()), connect(server, "calls", clock.clone()));
        assert_eq!(report(&one, 1), vec![1; 3_000_000]);
        assert_eq!(report(&other, 1), vec![1; 3_000_000]);
        assert_eq!((one.stats().misses, other.stats().hits), (1, 1));
        one.invalidate_tag("report:1").unwrap();
        report(&other, 1);
        assert_eq!(other.stats().misses, 1);
        let key = Key::from_text("a", "b");
        let acquire = |cache: &ObjectCache| {
            let leases = cache.backend().capabilities().leases.expect("it has leases");
            leases.try_acquire(&key).expect("the server responds")
        };
        let Lease::Acquired(guard) = acquire(&one) else { panic!("it is free") };
        assert!(matches!(acquire(&other), Lease::Held));
        clock.advance(HOUR);
        let Lease::Acquired(taken) = acquire(&other) else { panic!("it has expired") };
        guard.release().unwrap();
        assert!(matches!(acquire(&one), Lease::Held));
        taken.release().unwrap();
        for n in 0..3 {
            report(&one, n);
        }
        one.clear().unwrap();
        assert_eq!((one.stats().errors, other.stats().errors), (0, 0));
        let misses = one.stats().misses;
        report(&one, 1);
        assert_eq!(one.stats().misses, misses + 1);
    });
}

#[test]
fn url_with_settings_of_the_environment_opens_a_bucket() {
    if let Some(url) = process::role() {
        open::check(&url);
        return;
    }
    watchdog(2 * HANG, || {
        let Some(server) = &*SERVER else { return };
        let test = "s3::url_with_settings_of_the_environment_opens_a_bucket";
        for memory in ["", "memory+"] {
            let url = format!(
                "{memory}s3://bucket/url{memory}?region=us-east-1&endpoint={}&single_flight=everywhere",
                server.endpoint()
            );
            let status = process::command(test, &url)
                .env("AWS_ACCESS_KEY_ID", "id")
                .env("AWS_SECRET_ACCESS_KEY", "secret")
                .status();
            assert!(status.expect("a process").success(), "{url}");
        }
    });
}
