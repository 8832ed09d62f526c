//! `SecretSource`: where a secret is read from, each time that it is needed.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{BoxError, ConfigError, Digest, Secret, TokenError, TokenErrorKind};

/// Where a secret comes from: a value, an environment variable, a file that may change, or your own async function.
///
/// A file or a function is read for each exchange with the authorization server, so that a secret can be rotated while
/// the program runs. Nothing is cached here. Where one cannot be read the token request fails with
/// [`CredentialsUnavailable`](crate::TokenErrorKind::CredentialsUnavailable) and follows again after a pause; tokens that
/// are alive stay in use.
///
/// A text is a source too: wherever a `SecretSource` is asked for, a `&str`, a `String` or a [`Secret`] will do.
///
/// ```
/// use tower_oauth2_client::{AuthConfig, ClientAuth, Secret, SecretSource};
///
/// // As Kubernetes and systemd mount them.
/// let from_file = ClientAuth::basic("id", SecretSource::file("/run/secrets/oauth2"));
///
/// /// From a vault, perhaps; any error that is `Into<BoxError>` will do.
/// async fn read() -> Result<Secret, std::io::Error> {
///     Ok(Secret::from("s3cret"))
/// }
/// let from_vault = ClientAuth::basic("id", SecretSource::provider(read));
/// # for auth in [from_file, from_vault] {
/// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", auth)
///     .origin("https://api.example.com")
///     .build()?;
/// # }
/// # Ok::<(), tower_oauth2_client::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct SecretSource(Kind);

#[derive(Clone)]
enum Kind {
    Value(Secret<String>),
    Env(Arc<str>),
    File(Arc<Path>),
    Provider(Arc<Provide>),
}

type Provide = dyn Fn() -> Pin<Box<dyn Future<Output = Result<Secret<String>, BoxError>> + Send>> + Send + Sync;

impl SecretSource {
    /// A key in PEM has some kilobytes, a token tens of them; more is another file.
    const LONGEST_FILE: u64 = 256 * 1024;

    /// The value of an environment variable, as this process has it.
    ///
    /// It is read for each exchange. One that is not set when the configuration is
    /// [built](crate::AuthConfigBuilder::build) is an error that names it.
    ///
    /// ```
    /// use tower_oauth2_client::{AuthConfig, ClientAuth, SecretSource};
    ///
    /// let auth = ClientAuth::basic("id", SecretSource::env("NOT_SET_HERE"));
    /// let cfg = AuthConfig::client_credentials("https://auth.example.com/token", auth).origin("https://api.example.com");
    /// assert!(cfg.build().unwrap_err().to_string().contains("NOT_SET_HERE"));
    /// ```
    pub fn env(name: impl Into<String>) -> Self {
        Self(Kind::Env(name.into().into()))
    }

    /// The content of a file, without the line break at its end, if there is one.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into().into()))
    }

    /// What an async function returns. It has the time of one exchange (10 s by default).
    ///
    /// An error that is a [`TokenError`] is passed on as it is, so that a function can say
    /// [`sign_in_again`](TokenError::sign_in_again); any other becomes the cause of one.
    pub fn provider<F, Fut, E>(read: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Secret<String>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Kind::Provider(Arc::new(move || {
            let reading = read();
            Box::pin(async move { reading.await.map_err(Into::into) })
        })))
    }

    /// The value, where it cannot change.
    pub(crate) fn fixed(&self) -> Option<&Secret<String>> {
        match &self.0 {
            Kind::Value(secret) => Some(secret),
            Kind::Env(_) | Kind::File(_) | Kind::Provider(_) => None,
        }
    }

    /// Whether it does not say whose secret it gives: a function, or a variable or a file, whose name is the same for every
    /// workload that a platform sets it for.
    pub(crate) fn is_nameless(&self) -> bool {
        matches!(self.0, Kind::Env(_) | Kind::File(_) | Kind::Provider(_))
    }

    /// What tells it from another source: its value if that is fixed, else its place.
    pub(crate) fn describe(&self, digest: &mut Digest) {
        match &self.0 {
            Kind::Value(secret) => digest.field("value", secret.expose()),
            Kind::Env(name) => digest.field("environment variable", name.as_bytes()),
            Kind::File(path) => digest.field("file", path.as_os_str().as_encoded_bytes()),
            Kind::Provider(_) => digest.field("provider", ""),
        }
    }

    /// Checks what can be checked before the secret is needed.
    ///
    /// # Errors
    /// A value that is no line of text, a variable that is not set. The error does not quote what it holds.
    pub(crate) fn validate(&self, what: &'static str) -> Result<(), ConfigError> {
        if let Kind::Env(name) = &self.0 {
            return check_line(what, read_env(what, name)?.expose());
        }
        self.fixed().map_or(Ok(()), |secret| check_line(what, secret.expose()))
    }

    /// # Errors
    /// An environment variable that is not set.
    #[cfg_attr(not(feature = "jwt"), expect(dead_code, reason = "what has more than one line is a key"))]
    pub(crate) fn check_set(&self, what: &'static str) -> Result<(), ConfigError> {
        match &self.0 {
            Kind::Env(name) => read_env(what, name).map(drop),
            Kind::Value(_) | Kind::File(_) | Kind::Provider(_) => Ok(()),
        }
    }

    /// Reads a secret of any shape, once and now, on this thread.
    ///
    /// # Errors
    /// It is not there, or is a function. The error tells its place, not what it holds.
    #[cfg(feature = "serde")]
    pub(crate) fn read_now(&self, what: &'static str) -> Result<Secret<String>, ConfigError> {
        match &self.0 {
            Kind::Value(secret) => Ok(secret.clone()),
            Kind::Env(name) => read_env(what, name),
            Kind::File(path) => read_file(path).map_err(|error| {
                ConfigError::new(
                    format!("the {what} cannot be read from {}: {error}", path.display()),
                    "check that the file is there and that this process may read it",
                )
            }),
            Kind::Provider(_) => Err(ConfigError::new(
                format!("the {what} is to come from a function, and is needed now"),
                "give it as a value, in a variable or in a file",
            )),
        }
    }

    /// Reads a secret of one line, such as a password or a token.
    pub(crate) async fn read_line(&self, what: &'static str) -> Result<Secret<String>, TokenError> {
        let secret = self.read(what).await?;
        check_line(what, secret.expose()).map_err(|error| unavailable(error.to_string()))?;
        Ok(secret)
    }

    /// Reads a secret of any shape.
    pub(crate) async fn read(&self, what: &'static str) -> Result<Secret<String>, TokenError> {
        match &self.0 {
            Kind::Value(secret) => Ok(secret.clone()),
            Kind::Env(name) => read_env(what, name).map_err(|error| unavailable(error.to_string())),
            Kind::File(path) => {
                let read = {
                    let path = path.clone();
                    tokio::task::spawn_blocking(move || read_file(&path))
                };
                let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
                read.map_err(|error| {
                    unavailable(format!("the {what} cannot be read from {}", path.display())).caused_by(error.into())
                })
            }
            Kind::Provider(read) => read().await.map_err(|error| {
                TokenError::from_box_or(error, || unavailable(format!("the provider of the {what} failed")))
            }),
        }
    }
}

/// # Errors
/// It is not set, or is not UTF-8. Its name is told.
fn read_env(what: &'static str, name: &str) -> Result<Secret<String>, ConfigError> {
    match std::env::var_os(name).map(OsString::into_string) {
        Some(Ok(value)) => Ok(Secret::from(value)),
        Some(Err(value)) => {
            drop(Zeroizing::new(value.into_encoded_bytes()));
            Err(ConfigError::new(
                format!("the {what} is to be in the environment variable {}, which is not UTF-8", name.escape_debug()),
                "set it to the text that the provider gave",
            ))
        }
        None => Err(ConfigError::new(
            format!("the {what} is to be in the environment variable {}, which is not set", name.escape_debug()),
            "set it before the program starts; only an exported variable is seen",
        )),
    }
}

/// Something of ours that a token request needs is not there now.
pub(crate) fn unavailable(detail: impl Into<Box<str>>) -> TokenError {
    TokenError::new(TokenErrorKind::CredentialsUnavailable).with_detail(detail)
}

/// # Errors
/// A text that no provider gave out. The error does not quote it.
pub(crate) fn check_line(what: &'static str, value: &str) -> Result<(), ConfigError> {
    if value.is_empty() {
        return Err(ConfigError::new(
            format!("the {what} is empty"),
            "an environment variable or a file may not have been read",
        ));
    }
    if value.trim() != value {
        return Err(ConfigError::new(
            format!("the {what} begins or ends with white space"),
            "it usually comes from a file's last line: pass `content.trim()`",
        ));
    }
    if value.chars().any(char::is_control) {
        return Err(ConfigError::new(
            format!("the {what} holds a line break or another control character"),
            "pass it exactly as the provider gave it, one line",
        ));
    }
    Ok(())
}

fn read_file(path: &Path) -> io::Result<Secret<String>> {
    let file = File::open(path)?;
    let expected = file.metadata()?.len().min(SecretSource::LONGEST_FILE);
    // Room for all of it, since growing would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(expected).unwrap_or_default() + 1));
    let length = file.take(SecretSource::LONGEST_FILE + 1).read_to_end(&mut bytes)?;
    if u64::try_from(length).is_ok_and(|length| length > SecretSource::LONGEST_FILE) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is longer than 256 KiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))?;
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Secret::from(text))
}

impl From<Secret<String>> for SecretSource {
    fn from(secret: Secret<String>) -> Self {
        Self(Kind::Value(secret))
    }
}

impl From<String> for SecretSource {
    fn from(secret: String) -> Self {
        Secret::from(secret).into()
    }
}

impl From<&str> for SecretSource {
    fn from(secret: &str) -> Self {
        Secret::from(secret).into()
    }
}

/// Tells what kind of source it is, a variable's name and a file's path.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Value(_) => f.write_str("SecretSource(value)"),
            Kind::Env(name) => write!(f, "SecretSource(${name})"),
            Kind::File(path) => write!(f, "SecretSource({})", path.display()),
            Kind::Provider(_) => f.write_str("SecretSource(provider)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of this test alone, gone afterwards.
    struct TestFile(PathBuf);

    impl TestFile {
        fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
            let path = std::env::temp_dir().join(format!("tower-oauth2-client-{}-{name}", std::process::id()));
            std::fs::write(&path, content).unwrap();
            Self(path)
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[tokio::test]
    async fn a_file_is_read_each_time_and_loses_one_line_break() {
        let file = TestFile::new("line", "first\n");
        let source = SecretSource::file(&file.0);
        assert_eq!(source.read_line("secret").await.unwrap().expose(), "first");
        for (content, read) in [("second\r\n", "second"), ("third", "third"), ("a\nb\n", "a\nb"), ("x\n\n", "x\n")] {
            std::fs::write(&file.0, content).unwrap();
            assert_eq!(source.read("secret").await.unwrap().expose(), read);
        }
        assert!(source.read_line("secret").await.is_err(), "a line of text ends with no second line break");
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_by_place_and_without_content() {
        let missing = SecretSource::file("/does/not/exist/secret");
        let empty = TestFile::new("empty", "\n");
        let long = TestFile::new("long", "canary".repeat(100_000));
        let binary = TestFile::new("binary", b"canary\xff");
        let control = TestFile::new("control", "cana\0ry canary");
        let failing = SecretSource::provider(|| async { Err::<Secret<String>, _>("vault sealed") });
        let sources = [&empty, &long, &binary, &control].map(|file| SecretSource::file(&file.0));
        for source in sources.into_iter().chain([missing.clone(), failing]) {
            let error = source.read_line("client secret").await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::CredentialsUnavailable);
            assert!(error.is_transient());
            assert!(error.to_string().contains("client secret"), "{error}");
            assert!(!format!("{error} {error:?} {source:?}").contains("canary"), "{error:?}");
        }
        let error = missing.read_line("client secret").await.unwrap_err();
        assert!(error.to_string().contains("/does/not/exist/secret"), "{error}");
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::NotFound));
    }

    #[tokio::test]
    async fn a_token_error_of_a_provider_is_passed_on() {
        let source = SecretSource::provider(|| async { Err::<Secret<String>, _>(TokenError::sign_in_again()) });
        assert_eq!(source.read_line("subject token").await.unwrap_err().kind(), TokenErrorKind::SignInAgain);
    }

    #[test]
    fn debug_tells_the_kind_and_a_files_path() {
        assert_eq!(format!("{:?}", SecretSource::from("canary")), "SecretSource(value)");
        assert_eq!(format!("{:?}", SecretSource::file("/run/secret")), "SecretSource(/run/secret)");
        assert_eq!(format!("{:?}", SecretSource::env("SECRET")), "SecretSource($SECRET)");
    }

    /// `cargo test` sets the first one.
    #[tokio::test]
    async fn a_variable_is_read_and_one_that_is_not_set_is_named() {
        let source = SecretSource::env("CARGO_PKG_NAME");
        source.validate("secret").unwrap();
        assert_eq!(source.read_line("secret").await.unwrap().expose(), "tower-oauth2-client");
        assert!(source.fixed().is_none() && source.is_nameless());
        for name in ["NO_SUCH_VARIABLE_HERE", "", "A=B", "A\0B"] {
            let source = SecretSource::env(name);
            let error = source.validate("client secret").unwrap_err().to_string();
            assert!(error.contains("client secret") && error.contains("is not set"), "{error}");
            let error = source.read_line("client secret").await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::CredentialsUnavailable);
        }
    }
}
