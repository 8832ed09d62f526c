//! An AWS workload: its JWT from `sts:GetWebIdentityToken` (a request signed with Signature Version 4) authenticates the
//! client, through `SecretSource::provider`.

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::service_fn;
use tower_oauth2_client::test_util::{AuthServer, TestClock, serve};
use tower_oauth2_client::{AuthConfig, AuthLayer, BoxError, ClientAuth, Secret, SecretSource};

/// The workload's credentials, as the environment, the container or the instance gives them. In production they come from
/// `aws-config`, which renews them.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
    pub(crate) session_token: Option<Secret>,
}

/// Asks STS for a JWT (<https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html>, read 2026-11-26).
#[derive(Clone)]
pub(crate) struct WebIdentity {
    pub(crate) http: reqwest::Client,
    /// A regional one: the global endpoint does not have this call. `https://sts.eu-west-1.amazonaws.com`, in earnest.
    pub(crate) sts: String,
    pub(crate) region: String,
    pub(crate) audience: String,
    pub(crate) credentials: Credentials,
}

impl WebIdentity {
    /// A JWT of this workload's, good for five minutes: long enough for one exchange.
    pub(crate) async fn jwt(self) -> Result<Secret, BoxError> {
        let body = form(&[
            ("Action", "GetWebIdentityToken"),
            ("Audience.member.1", &self.audience),
            ("DurationSeconds", "300"),
            ("SigningAlgorithm", "ES384"),
            ("Version", "2011-06-15"),
        ]);
        let host = self.sts.split_once("://").map_or(self.sts.as_str(), |(_, host)| host).to_owned();
        let at = Timestamp::of(SystemTime::now())?;
        let mut headers = vec![
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned()),
            ("host", host),
            ("x-amz-date", at.full.clone()),
        ];
        if let Some(token) = &self.credentials.session_token {
            headers.push(("x-amz-security-token", token.expose().clone()));
        }
        let signing = Signing { region: &self.region, service: "sts", credentials: &self.credentials, at: &at };
        let authorization = signing.authorization("POST", "/", "", &headers, body.as_bytes());
        let mut request = self.http.post(format!("{}/", self.sts)).header("authorization", authorization);
        for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value);
        }
        let response = request.body(body).send().await?;
        if !response.status().is_success() {
            return Err(format!("STS answered {}", response.status()).into());
        }
        let answer = response.text().await?;
        let (_, rest) = answer.split_once("<WebIdentityToken>").ok_or("STS gave no token")?;
        let (jwt, _) = rest.split_once("</WebIdentityToken>").ok_or("STS gave no token")?;
        Ok(Secret::from(jwt))
    }
}

/// What a signature depends on besides the request (<https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html>).
pub(crate) struct Signing<'a> {
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) credentials: &'a Credentials,
    pub(crate) at: &'a Timestamp,
}

impl Signing<'_> {
    /// The `Authorization` header. The headers have lower-case names and are sorted; `query` is canonical.
    pub(crate) fn authorization(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> String {
        let signed: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let signed = signed.join(";");
        let canonical: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let request = format!("{method}\n{path}\n{query}\n{canonical}\n{signed}\n{}", sha256(body));
        let scope = format!("{}/{}/{}/aws4_request", self.at.day, self.region, self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.at.full, sha256(request.as_bytes()));
        let secret = format!("AWS4{}", self.credentials.secret_access_key.expose());
        let parts = [self.at.day.as_str(), self.region, self.service, "aws4_request"];
        let key = parts.iter().fold(secret.into_bytes(), |key, part| hmac_sha256(&key, part.as_bytes()));
        let signature = hex(&hmac_sha256(&key, to_sign.as_bytes()));
        let id = &self.credentials.access_key_id;
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}")
    }
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}

fn sha256(data: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, data).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A time as signatures write it.
pub(crate) struct Timestamp {
    pub(crate) full: String,
    pub(crate) day: String,
}

impl Timestamp {
    pub(crate) fn of(time: SystemTime) -> Result<Self, BoxError> {
        let seconds = time.duration_since(UNIX_EPOCH)?.as_secs();
        // Civil from days, by Howard Hinnant.
        let (days, second) = (i64::try_from(seconds / 86_400)? + 719_468, seconds % 86_400);
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let (day, month) =
            (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let day = format!("{year:04}{month:02}{day:02}");
        let full = format!("{day}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60);
        Ok(Self { full, day })
    }
}

fn form(params: &[(&str, &str)]) -> String {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = params.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

/// A workload's token request, with the JWT of a fake STS.
pub(crate) async fn run() -> Result<String, Box<dyn Error>> {
    let sts = serve(service_fn(fake_sts)).await?;
    let web_identity = WebIdentity {
        http: reqwest::Client::builder().no_proxy().build()?,
        sts: sts.origin(),
        region: "eu-west-1".into(),
        audience: "https://auth.example.com".into(),
        credentials: Credentials {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: Secret::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: Some(Secret::from("session")),
        },
    };
    let assertion = SecretSource::provider(move || web_identity.clone().jwt());
    let auth_server = AuthServer::new(TestClock::new());
    let cfg = AuthConfig::client_credentials("https://auth.example.com/token", ClientAuth::assertion(assertion))
        .origin("https://api.example.com")
        .build()?;
    AuthLayer::builder(cfg).http_client(auth_server.clone()).build()?.handle().warm_up().await?;
    let sent = auth_server.requests().remove(0).param("client_assertion").ok_or("no assertion")?;
    Ok(format!("authenticated with {sent}"))
}

/// Answers a signed request as STS does.
pub(crate) async fn fake_sts<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, BoxError>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let signed = request.headers().get("authorization").is_some_and(|value| {
        value.to_str().is_ok_and(|value| {
            value.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
                && value.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=")
        })
    });
    let body = request.into_body().collect().await.map_err(Into::into)?.to_bytes();
    if !signed
        || !body.starts_with(b"Action=GetWebIdentityToken&Audience%2Emember%2E1=https%3A%2F%2Fauth%2Eexample%2Ecom")
    {
        return Ok(Response::builder().status(403).body(Full::default())?);
    }
    let answer = "<GetWebIdentityTokenResponse><GetWebIdentityTokenResult><WebIdentityToken>eyJ.aws.jwt</WebIdentityToken>\
        <Expiration>2026-11-26T00:05:00Z</Expiration></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>";
    Ok(Response::new(Full::new(Bytes::from(answer))))
}
