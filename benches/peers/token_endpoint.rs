//! Where the peers get their token from.

use std::io::{Read, Write};
use std::net::TcpListener;

use url::Url;

use crate::support::baselines::access_token;

/// Answers every request with a token, as long as the process runs.
pub(crate) fn start() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            let body =
                format!("{{\"access_token\":\"{}\",\"token_type\":\"Bearer\",\"expires_in\":36000}}", access_token());
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            let _ = write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len());
        }
    });
    format!("http://127.0.0.1:{port}/token").parse().unwrap()
}
