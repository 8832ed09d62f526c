//! Whether a client secret is left anywhere in this process's memory after a token request: the memory itself is searched.
//!
//! Linux only, where a process can read its own memory as a file: a searching allocator would need `unsafe`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "here a panic is the report")]

use std::convert::Infallible;
use std::fs::{File, read_to_string};
use std::os::unix::fs::FileExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower_oauth2_client::{AuthConfig, AuthLayer, ClientAuth, Secret, SecretSource};

/// A long one, so that blocks which were freed and are in part used again still show it. Masked: each byte is one more than
/// it should be, so that it is not in memory because of the search for it.
fn masked(seed: u64) -> Vec<u8> {
    const LETTERS: &[u8] = b"bcdefghijklmnopqrstuvwxyz0123456789+&=%/";
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..400).map(|_| LETTERS[rng.usize(..LETTERS.len())] + 1).collect()
}

const SECRET: u64 = 156;
const CONTROL: u64 = 651;

/// Behaviour 156. The HTTP client drops each request, so that what is found is ours; one answer is an error, so that the
/// search for echoes runs, too.
#[test]
fn no_client_secret_is_left_in_memory_after_a_token_request() {
    // What is not wiped is found, or the rest would prove nothing.
    let masked_control = masked(CONTROL);
    let control: Vec<u8> = masked_control.iter().map(|byte| byte - 1).collect();
    drop(std::hint::black_box(control));
    let found = found_in_memory(&[("control", masked_control)]);
    assert_eq!(found, ["control"], "the search finds what is there");
    // Made before, since making them would use the blocks that are to be searched.
    let spellings = masked_spellings();

    for method in ["basic", "basic_raw", "body", "client_secret_jwt", "provider", "assertion"] {
        for (status, answer) in [
            (200, r#"{"access_token":"T","token_type":"Bearer","expires_in":60}"#),
            (400, r#"{"error":"unknown_thing","error_description":"no such client"}"#),
        ] {
            token_request(method, status, answer);
            let found = found_in_memory(&spellings);
            assert_eq!(found, [] as [&str; 0], "{method} {status}");
        }
    }
}

fn token_request(method: &str, status: u16, answer: &'static str) {
    let secret = || {
        let masked = masked(SECRET);
        let mut text = String::with_capacity(masked.len());
        masked.iter().for_each(|byte| text.push(char::from(byte - 1)));
        Secret::new(text)
    };
    let auth = match method {
        "basic" => ClientAuth::basic("the-id", secret()),
        "basic_raw" => ClientAuth::basic_raw("the-id", secret()),
        "body" => ClientAuth::body("the-id", secret()),
        "assertion" => ClientAuth::assertion(secret()),
        "client_secret_jwt" => ClientAuth::client_secret_jwt("the-id", secret()),
        _ => ClientAuth::body(
            "the-id",
            SecretSource::provider(move || {
                let secret = secret();
                async move { Ok::<_, Infallible>(secret) }
            }),
        ),
    };
    let http_client = tower::service_fn(move |_: Request<Full<Bytes>>| async move {
        let response = Response::builder().status(status).header("content-type", "application/json");
        Ok::<_, Infallible>(response.body(Full::new(Bytes::from_static(answer.as_bytes()))).unwrap())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cfg =
            AuthConfig::client_credentials("https://auth.example.com/token", auth).origin("https://api.example.com");
        let layer = AuthLayer::builder(cfg.build().unwrap()).http_client(http_client).build().unwrap();
        assert_eq!(layer.handle().token().await.is_ok(), status == 200);
    });
}

/// The secret as it is, as a form has it, and in a Basic value of either kind.
fn masked_spellings() -> Vec<(&'static str, Vec<u8>)> {
    let plain = masked(SECRET);
    let mut form = Vec::new();
    for byte in &plain {
        match byte - 1 {
            kept if kept.is_ascii_alphanumeric() => form.push(*byte),
            other => form.extend(format!("%{other:02X}").bytes().map(|byte| byte + 1)),
        }
    }
    let (raw_basic, basic) = (masked_basic(&plain), masked_basic(&form));
    vec![("plain", plain), ("form", form), ("raw Basic", raw_basic), ("Basic", basic)]
}

/// Masked Base64 of the pair, three bytes at a time, so that no more than four characters are ever in one place.
fn masked_basic(masked_secret: &[u8]) -> Vec<u8> {
    let pair: Vec<u8> = b"uif.je;".iter().chain(masked_secret).copied().collect();
    let encode = |three: &[u8]| STANDARD.encode(three.iter().map(|byte| byte - 1).collect::<Vec<u8>>());
    pair.chunks(3).flat_map(|three| encode(three).into_bytes()).map(|byte| byte + 1).collect()
}

/// Which of these, unmasked, have any part of twenty bytes in memory that can be written to.
fn found_in_memory(masked: &[(&'static str, Vec<u8>)]) -> Vec<&'static str> {
    const PIECE: usize = 1 << 20;
    const PART: usize = 20;
    let mut parts: Vec<Vec<(&'static str, &[u8])>> = vec![Vec::new(); 256];
    for (name, masked) in masked {
        for part in masked.chunks_exact(PART) {
            parts[usize::from(part[0] - 1)].push((name, part));
        }
    }
    let is = |bytes: &[u8], part: &[u8]| bytes.iter().zip(part).all(|(byte, masked)| *byte == masked - 1);
    let mut found = Vec::new();
    let mut search = |bytes: &[u8]| {
        for window in bytes.windows(PART) {
            for (name, part) in &parts[usize::from(window[0])] {
                if is(window, part) && !found.contains(name) {
                    found.push(*name);
                }
            }
        }
    };

    let memory = File::open("/proc/self/mem").unwrap();
    let maps = read_to_string("/proc/self/maps").unwrap();
    let mut buffer = vec![0; PIECE];
    let own = buffer.as_ptr() as u64..buffer.as_ptr() as u64 + PIECE as u64;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") || words.nth(3).is_some_and(|name| name.starts_with("[v")) {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let (mut at, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        while at < to {
            if own.contains(&at) {
                // What is searched would be found in the copy of it.
                at = own.end;
                continue;
            }
            let end = if at < own.start { to.min(own.start) } else { to };
            let length = usize::try_from(end - at).unwrap().min(PIECE);
            let Ok(read) = memory.read_at(&mut buffer[..length], at) else { break };
            search(&buffer[..read]);
            buffer[..read].fill(0);
            // A part may lie across two pieces.
            at += if read > PART && at + (read as u64) < end { read - PART } else { read.max(1) } as u64;
        }
    }
    found
}
