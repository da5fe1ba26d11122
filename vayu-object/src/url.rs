//! URLs of stores.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use vayu_core::{Result, SingleFlight, byte_size, duration};

use crate::error::misconfigured;
use crate::options::ObjectOptions;

/// The options in a URL, for messages.
const OPTION_NAMES: &str = "`timeout`, `max_entry_bytes`, `single_flight`, `lease_ttl` and `arguments`; of `s3://` \
    also `region` and `endpoint`";

/// Returns the store that a URL describes, with the options in its query.
pub(crate) fn parse(
    url: &str,
    mut options: ObjectOptions,
) -> Result<(Arc<dyn ObjectStore>, ObjectOptions)> {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, path) = place.split_once(':').unwrap_or_default();
    let mut settings = Settings::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = &*decode(value)?;
        match name {
            "region" if scheme == "s3" => settings.region = Some(value.to_owned()),
            "endpoint" if scheme == "s3" => settings.endpoint = Some(value.to_owned()),
            _ => options = set(options, name, value)?,
        }
    }
    settings.timeout = options.remote.timeout;
    match scheme {
        "object+memory" => {
            Ok((Arc::new(InMemory::new()), options.prefix(decode(path.trim_start_matches('/'))?)))
        }
        "object+file" => {
            let path = Some(path).filter(|path| path.starts_with("///"));
            let path = path.and_then(|path| url::Url::parse(&format!("file:{path}")).ok());
            let path = path.and_then(|path| path.to_file_path().ok()).ok_or_else(|| {
                misconfigured("a directory is written as in `object+file:///path`")
            })?;
            let store = LocalFileSystem::new_with_prefix(path).map_err(|error| {
                misconfigured("cannot open the directory of an object cache").with_source(error)
            })?;
            Ok((Arc::new(store), options.prefix("")))
        }
        "s3" | "gs" | "az" => {
            let (bucket, prefix) = path
                .strip_prefix("//")
                .map(|path| path.split_once('/').unwrap_or((path, "")))
                .filter(|(bucket, _)| !bucket.is_empty() && !bucket.contains('@'))
                .ok_or_else(|| misconfigured("expected a URL like `s3://bucket/prefix`"))?;
            let store = bucket_store(scheme, bucket, &settings)?;
            let prefix = prefix.trim_end_matches('/');
            Ok((store, if prefix.is_empty() { options } else { options.prefix(decode(prefix)?) }))
        }
        _ => Err(misconfigured(
            "expected a URL such as `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or \
             `object+file:///path`",
        )),
    }
}

/// What a store is built from, apart from its environment.
#[derive(Debug, Default)]
struct Settings {
    region: Option<String>,
    endpoint: Option<String>,
    timeout: Duration,
}

fn bucket_store(scheme: &str, bucket: &str, settings: &Settings) -> Result<Arc<dyn ObjectStore>> {
    #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
    {
        cloud::store(scheme, bucket, settings)
    }
    #[cfg(not(any(feature = "aws", feature = "azure", feature = "gcp")))]
    {
        let _ = (bucket, settings);
        Err(missing_feature(scheme))
    }
}

fn missing_feature(scheme: &str) -> vayu_core::Error {
    let feature = match scheme {
        "s3" => "aws",
        "gs" => "gcp",
        _ => "azure",
    };
    misconfigured(format!(
        "`{scheme}://` needs the feature `{feature}` of vayu-object (of vayu: `object-{feature}`)"
    ))
}

/// Stores in the cloud.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
mod cloud {
    use std::sync::Arc;

    use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
    use vayu_core::Result;

    use super::{Settings, misconfigured, missing_feature};

    /// How often a request is repeated within the timeout.
    const MAX_RETRIES: usize = 2;

    pub(super) fn store(
        scheme: &str,
        bucket: &str,
        settings: &Settings,
    ) -> Result<Arc<dyn ObjectStore>> {
        let retry = RetryConfig {
            max_retries: MAX_RETRIES,
            retry_timeout: settings.timeout,
            ..RetryConfig::default()
        };
        let store: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
            #[cfg(feature = "aws")]
            "s3" => s3(bucket, settings, retry).build().map(|store| Arc::new(store) as _),
            #[cfg(feature = "gcp")]
            "gs" => object_store::gcp::GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_config(
                    object_store::gcp::GoogleConfigKey::Client(ClientConfigKey::Timeout),
                    request_timeout(settings),
                )
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
            #[cfg(feature = "azure")]
            "az" => object_store::azure::MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_config(
                    object_store::azure::AzureConfigKey::Client(ClientConfigKey::Timeout),
                    request_timeout(settings),
                )
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
            _ => return Err(missing_feature(scheme)),
        };
        store.map_err(|error| {
            misconfigured("the settings of an object store are incomplete or invalid")
                .with_source(error)
        })
    }

    #[cfg(feature = "aws")]
    fn s3(
        bucket: &str,
        settings: &Settings,
        retry: RetryConfig,
    ) -> object_store::aws::AmazonS3Builder {
        use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_config(
                AmazonS3ConfigKey::Client(ClientConfigKey::Timeout),
                request_timeout(settings),
            )
            .with_retry(retry);
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
            if endpoint.starts_with("http://") {
                builder = builder.with_allow_http(true);
            }
        }
        builder
    }

    #[cfg(all(test, feature = "aws"))]
    #[test]
    fn timeout_of_a_request_is_that_of_an_operation() {
        use std::time::Duration;

        let timeout = Duration::from_secs(120);
        let settings = Settings { timeout, ..Settings::default() };
        let builder = s3("bucket", &settings, RetryConfig::default());
        let key = object_store::aws::AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
        assert_eq!(builder.get_config_value(&key).as_deref(), Some("120000ms"));
        builder.with_region("eu-central-1").build().expect("the settings are valid");
    }

    /// Returns the timeout of a request, which without it is 30 s however long that of an operation is, as it is written in the settings of a store.
    fn request_timeout(settings: &Settings) -> String {
        format!("{}ms", settings.timeout.as_millis().max(1))
    }
}

fn set(mut options: ObjectOptions, name: &str, value: &str) -> Result<ObjectOptions> {
    let wrong = |expected: String| {
        misconfigured(format!(
            "invalid value for `{name}` in the URL of an object store: {expected}"
        ))
    };
    let time = || {
        let seconds = value.parse().map(Duration::from_secs).ok();
        seconds.or_else(|| duration::parse(value).ok()).ok_or_else(|| {
            let units = duration::UNIT_NAMES;
            wrong(format!("it must be a time like `500ms` or `20s`; the units are {units}"))
        })
    };
    Ok(match (name, value) {
        ("timeout", _) => options.timeout(time()?),
        ("lease_ttl", _) => options.lease_ttl(time()?),
        ("max_entry_bytes", _) => options.max_entry_bytes(
            byte_size::parse(value)
                .ok_or_else(|| wrong("it must be a number like `1000` or `64MiB`".to_owned()))?,
        ),
        ("single_flight", "everywhere") => options.single_flight(SingleFlight::Everywhere),
        ("single_flight", "process") => options.single_flight(SingleFlight::Process),
        ("single_flight", _) => return Err(wrong("`process` or `everywhere`".to_owned())),
        ("arguments", "hidden") => options.hide_arguments(),
        ("arguments", "stored") => {
            options.remote.hides_arguments = false;
            options
        }
        ("arguments", _) => return Err(wrong("`stored` or `hidden`".to_owned())),
        _ => {
            // It may be a part of a password in a URL of another kind.
            let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let shown = if is_plain { format!(" `{name}`") } else { String::new() };
            return Err(misconfigured(format!(
                "unknown option{shown} in the URL of an object store; the options are {OPTION_NAMES}"
            )));
        }
    })
}

fn decode(text: &str) -> Result<String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| misconfigured("the URL of an object store is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> ObjectOptions {
        parse(url, ObjectOptions::new()).unwrap_or_else(|error| panic!("{url}: {error:?}")).1
    }

    fn error(url: &str) -> String {
        let parsed = parse(url, ObjectOptions::new());
        parsed.err().unwrap_or_else(|| panic!("{url}: it is valid")).to_string()
    }

    #[test]
    fn options_of_a_url_override_those_that_were_set() {
        let options = options(
            "object+memory:/a/b?timeout=2&lease_ttl=5m&max_entry_bytes=1GiB&single_flight=everywhere&arguments=hidden",
        );
        assert_eq!(options.prefix, "a/b");
        assert_eq!(options.remote.timeout, Duration::from_secs(2));
        assert_eq!(options.remote.lease_ttl, Duration::from_secs(300));
        assert_eq!(options.remote.max_entry_bytes, 1 << 30);
        assert_eq!(options.remote.single_flight, SingleFlight::Everywhere);
        assert!(options.remote.hides_arguments);
    }

    #[test]
    fn unknown_options_and_values_are_errors_that_name_them() {
        for (url, expected) in [
            ("object+memory:?timeoutt=2", "unknown option `timeoutt`"),
            ("object+memory:?region=eu", "unknown option `region`"),
            ("object+memory:?timeout=soon", "`timeout`"),
            ("object+memory:?max_entry_bytes=1GB", "`max_entry_bytes`"),
            ("object+memory:?single_flight=no", "`single_flight`"),
            ("object+memory:?arguments=no", "`arguments`"),
            ("object+file:relative/path/../..", "directory"),
            ("object+file://host/path", "directory"),
            ("object+file:///does/not/exist", "directory"),
            ("ftp://host/path", "expected a URL"),
            ("s3:bucket", "expected a URL"),
            ("s3://", "expected a URL"),
            ("s3://user:secret@bucket/prefix", "expected a URL"),
        ] {
            let message = error(url);
            assert!(message.contains(expected), "{url}: {message}");
        }
        let message = error("object+memory:?secret@host=1");
        assert!(!message.contains("secret"), "{message}");
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn missing_feature_is_named() {
        assert!(error("s3://bucket/prefix").contains("`object-aws`"));
    }
}
