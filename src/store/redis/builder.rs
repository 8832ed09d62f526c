//! `RedisStoreBuilder`: what can be said about a Redis store, checked once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::cluster::ClusterClient;
use ::redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::connection::Server;
use super::link::Link;
use super::{Hashes, Kept, RedisStore};
use crate::store::{Encrypted, EncryptionKeys};
use crate::types::{ConfigError, Secret};

/// A Redis store that is being configured.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth2_client::store::{EncryptionKeys, RedisStore};
///
/// # let keys = EncryptionKeys::from_base64("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=")?;
/// let store = RedisStore::builder("redis://127.0.0.1:6379/1")
///     .prefix("billing:")
///     .timeout(Duration::from_millis(300))
///     .build(keys)?;
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[must_use]
pub struct RedisStoreBuilder {
    url: Secret<String>,
    /// Further nodes, if it is a cluster.
    cluster: Option<Vec<Secret<String>>>,
    prefix: String,
    timeout: Duration,
    root_certificates: Option<Vec<u8>>,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            cluster: None,
            prefix: "oauth2-client:".to_owned(),
            timeout: Duration::from_secs(1),
            root_certificates: None,
        }
    }

    /// What the names of keys and channels begin with. Default: `oauth2-client:`, so that somebody who finds a key knows whose
    /// it is and permissions can name it. Stores share tokens where address, prefix and configuration are the same.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The address is that of a node of a cluster; the other nodes are asked for. Further nodes to begin with, in case that
    /// one is down when a process starts, are given here, with the same password.
    ///
    /// ```
    /// use tower_oauth2_client::store::RedisStore;
    ///
    /// let builder = RedisStore::builder("redis://node-1.example.com").cluster(["redis://node-2.example.com"]);
    /// ```
    pub fn cluster<'a>(mut self, further_nodes: impl IntoIterator<Item = &'a str>) -> Self {
        self.cluster = Some(further_nodes.into_iter().map(Secret::from).collect());
        self
    }

    /// How long one operation may take, with connecting if need be. Default: 1 s: Redis answers within a millisecond
    /// or is in trouble, and a request waits for it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Certificates in PEM that are trusted instead of the system's. Only with `rediss://` or `valkeys://`.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// A store whose values are encrypted. Opens no connection.
    ///
    /// # Errors
    /// An address that does not parse, a prefix with braces, certificates that are none or without TLS, a timeout of zero.
    pub fn build(self, keys: EncryptionKeys) -> Result<RedisStore, ConfigError> {
        Ok(RedisStore(Kept::Encrypted(Encrypted::new(self.hashes()?, keys))))
    }

    /// A store whose values are not encrypted: access and refresh tokens can be read by everybody who can read Redis,
    /// its backups or the network on the way there.
    ///
    /// # Errors
    /// As [`build`](RedisStoreBuilder::build).
    pub fn danger_without_encryption(self) -> Result<RedisStore, ConfigError> {
        Ok(RedisStore(Kept::Clear(self.hashes()?)))
    }

    fn hashes(self) -> Result<Hashes, ConfigError> {
        if self.prefix.contains(['{', '}']) {
            return Err(ConfigError::new(
                "the prefix of the Redis keys has braces",
                "leave them out: they decide which node of a cluster has a key",
            ));
        }
        if self.timeout.is_zero() {
            return Err(ConfigError::new("the timeout of the Redis store is zero", "give at least some milliseconds"));
        }
        let server = self.server()?;
        Ok(Hashes {
            link: Arc::new(Link::new(server, self.timeout)),
            prefix: self.prefix.into(),
            heard_over: Arc::default(),
        })
    }

    fn server(&self) -> Result<Server, ConfigError> {
        let first = parse(self.url.expose())?;
        let tls = matches!(first.addr(), ConnectionAddr::TcpTls { .. });
        if tls {
            crypto();
        }
        let not_pem = || ConfigError::new("the root certificates for Redis do not parse", "give them in PEM");
        let certificates = self.root_certificates.clone();
        if certificates.as_ref().is_some_and(|pem| CertificateDer::pem_slice_iter(pem).next().is_none()) {
            // Without any nothing would be trusted, and each connection fail.
            return Err(not_pem());
        }
        let certificates = certificates.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        if certificates.is_some() && !tls {
            return Err(ConfigError::new(
                "root certificates are given for a Redis without TLS",
                "begin its URL with rediss://",
            ));
        }
        let Some(further) = &self.cluster else {
            let client = match certificates {
                Some(certificates) => Client::build_with_tls(first, certificates),
                None => Client::open(first),
            };
            return Ok(Server::Single(Box::new(client.map_err(|_| not_pem())?)));
        };
        let further = further.iter().map(|url| parse(url.expose())).collect::<Result<Vec<_>, _>>()?;
        let unfit = || {
            ConfigError::new(
                "the nodes of the Redis cluster do not fit together, or the root certificates do not parse",
                "give each node the same scheme, user, password and database, and certificates in PEM",
            )
        };
        // The library compares only what the first one has.
        let (user, password) = (first.redis_settings().username(), first.redis_settings().password());
        let fits = |node: &ConnectionInfo| {
            node.redis_settings().username() == user && node.redis_settings().password() == password
        };
        if !further.iter().all(fits) {
            return Err(unfit());
        }
        let mut cluster = ClusterClient::builder(std::iter::once(first).chain(further));
        if let Some(certificates) = certificates {
            cluster = cluster.certs(certificates);
        }
        Ok(Server::Cluster(Box::new(cluster.build().map_err(|_| unfit())?)))
    }
}

/// The library's own errors may quote parts of the URL.
fn parse(url: &str) -> Result<ConnectionInfo, ConfigError> {
    let malformed = |what: &'static str| {
        ConfigError::new(
            what,
            "write redis://user:password@host:6379/0, rediss:// for TLS; percent-encode what is special in the password",
        )
    };
    let parsed = ::redis::parse_redis_url(url).ok_or_else(|| malformed("the URL of Redis is none"))?;
    if parsed.fragment().is_some() {
        // `#insecure` would not verify certificates; anything else is most likely a password that was not encoded.
        return Err(malformed("the URL of Redis has a fragment"));
    }
    let info = parsed.into_connection_info().map_err(|_| malformed("the URL of Redis has a part that is malformed"))?;
    // Notifications come over the same connection as answers only with this protocol. The name of the library would need
    // a permission of its own.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    Ok(info.set_redis_settings(settings))
}

/// The redis crate makes its TLS configuration of the process' default crypto, and panics if there is none and rustls
/// cannot tell which one to take. Where an application chose one, that stays.
fn crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that somebody else was quicker.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(builder: RedisStoreBuilder) -> Result<RedisStore, ConfigError> {
        let key = Secret::new(std::array::from_fn(|at| at as u8));
        builder.build(EncryptionKeys::new([key])?)
    }

    #[test]
    fn addresses() {
        for url in [
            "redis://localhost",
            "redis://user:p%40ss@redis.example.com:6380/3",
            "rediss://:pass@redis.example.com",
            "valkey://127.0.0.1:1/",
            "valkeys://[::1]:1",
        ] {
            assert!(build(RedisStore::builder(url)).is_ok(), "{url}");
        }
    }

    /// Behaviour 103.
    #[test]
    fn what_is_no_address_is_refused_and_not_quoted() {
        for url in [
            "",
            "canary",
            "http://canary@host",
            "redis://:canary@",
            "redis://:canary#x@host",
            "redis://:canary@host/zero",
            "redis://:canary@host:99999",
            "rediss://:canary@host/#insecure",
            "redis://:canary@0.0.0.0",
        ] {
            let error = build(RedisStore::builder(url)).map(|_| url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let builder = || RedisStore::builder("redis://localhost");
        assert!(build(builder().prefix("a{b}")).is_err());
        assert!(build(builder().timeout(Duration::ZERO)).is_err());
        assert!(build(builder().cluster(["redis://:another@localhost"])).is_err());
        assert!(build(builder().cluster(["redis://localhost:1"])).is_ok());
        assert!(build(builder().root_certificates("x")).is_err());
        assert!(build(RedisStore::builder("rediss://localhost").root_certificates("x")).is_err());
    }

    /// Behaviour 103.
    #[test]
    fn debug_shows_no_password() {
        let builder = || RedisStore::builder("redis://user:canary@localhost");
        let shown = format!("{:?} {:?}", builder(), build(builder()).unwrap());
        assert!(!shown.contains("canary") && !shown.contains("user"), "{shown}");
        assert!(shown.contains("encrypted: true"), "{shown}");
    }
}
