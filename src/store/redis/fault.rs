//! What went wrong with Redis, in words that quote neither its address nor a password nor a value.

use std::error::Error;
use std::io;
use std::sync::Arc;

use ::redis::{ErrorKind, RedisError};

use crate::store::{StoreError, StoreErrorKind};

pub(super) const SILENT: &str = "Redis does not answer in time";

pub(super) fn unavailable(why: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable).caused_by(why)
}

/// The library's errors may quote what Redis said, and Redis what it was sent: only their kind and code go on.
pub(super) fn store_error(error: &RedisError) -> StoreError {
    use StoreErrorKind::{Refused, Unavailable, Unreadable};
    let code = code(error);
    let (kind, why) = match (error.kind(), code) {
        (ErrorKind::AuthenticationFailed, _) | (_, "WRONGPASS" | "NOAUTH") => {
            (Refused, "Redis does not accept the user name and password, or asks for them")
        }
        (_, "NOPERM") => {
            (Refused, "the Redis user lacks a permission: commands, keys and channels are in the documentation")
        }
        (_, "MOVED" | "ASK" | "CROSSSLOT") => {
            (Refused, "this Redis is a node of a cluster: say so when building the store")
        }
        (ErrorKind::RESP3NotSupported, _) | (_, "NOPROTO") => (Refused, "Redis 6 or newer is needed, or Valkey"),
        (_, "WRONGTYPE") => (Unreadable, "the key holds something else"),
        (_, "DAMAGED") => (Unreadable, "the hash in Redis is damaged"),
        (_, "OOM") => (Unavailable, "Redis is out of memory and takes no writes"),
        (_, "READONLY") => (Unavailable, "this Redis is a replica and takes no writes"),
        (_, "LOADING") => (Unavailable, "Redis is starting"),
        (_, "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "MISCONF" | "NOREPLICAS") => {
            (Unavailable, "Redis is not in a state to serve this")
        }
        _ if error.is_timeout() => (Unavailable, SILENT),
        _ if error.is_connection_refusal() => (Unavailable, "nobody listens at the address of Redis"),
        _ if is_tls(error) => (Unavailable, "TLS with Redis fails: it speaks none, or its certificate is not trusted"),
        (ErrorKind::InvalidClientConfig, _) => (Unavailable, "the host name of Redis cannot be resolved"),
        (ErrorKind::ClusterConnectionNotFound, _) => (Unavailable, "no node of the Redis cluster can be reached"),
        (ErrorKind::Io | ErrorKind::Client, _) => (Unavailable, "the connection to Redis failed"),
        (ErrorKind::Parse | ErrorKind::UnexpectedReturnType, _) => (Unavailable, "what answers is not Redis"),
        _ => (Unavailable, "Redis answers with an error"),
    };
    StoreError::new(kind).caused_by(why)
}

/// The code of an error. Redis before 7 answers `ERR` for what goes wrong inside a script and puts the error that it was
/// behind it, as in `ERR Error running script (call to f_…): @user_script:8: -READONLY You can't write against a read
/// only replica.`
pub(super) fn code(error: &RedisError) -> &str {
    const WITHIN: [&str; 9] =
        ["READONLY", "OOM", "LOADING", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "WRONGTYPE", "NOPERM"];
    let code = error.code().unwrap_or_default();
    if code != "ERR" {
        return code;
    }
    let detail = error.detail().unwrap_or_default();
    if !detail.starts_with("Error running script") {
        return code;
    }
    if detail.contains("The user executing the script can't") {
        return "NOPERM";
    }
    let is_it = |code: &&&str| detail.contains(&format!("-{code} ")) || detail.contains(&format!(": {code} "));
    WITHIN.iter().find(is_it).copied().unwrap_or(code)
}

/// The library keeps the cause in an `Arc`, and that is the cause it shows.
fn is_tls(error: &RedisError) -> bool {
    let Some(cause) = error.source().and_then(|cause| cause.downcast_ref::<Arc<dyn Error + Send + Sync>>()) else {
        return false;
    };
    let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    cause.is::<rustls::Error>() || wrapped.is_some_and(|wrapped| wrapped.is::<rustls::Error>())
}
