//! What hostile peers say, over HTTP/1 and HTTP/2.

use crate::peer::{Step, frame, write};
use crate::support::SECRET;
use crate::{Case, GIGABYTE, case};

/// A whole answer of a token endpoint.
pub(crate) const TOKEN: &str = r#"{"access_token":"planted","token_type":"Bearer","expires_in":3600}"#;

/// An answer over HTTP/1.
pub(crate) fn http1(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// Whatever can be done to a client that has sent its request over HTTP/1, none of it an answer.
pub(crate) fn http1_no_answers() -> Vec<Case> {
    use Step::{Drip, Flood, Hang, Pour, Request, Reset, ShutdownWrite};

    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    vec![
        case("closed at once", []),
        case("reset at once", [Reset]),
        case("hangs, having accepted", [Hang]),
        case("half closed before the request", [ShutdownWrite, Hang]),
        case("hangs after the request", [Request, Hang]),
        case("hangs in the status line", [Request, write("HTTP/1.1 20"), Hang]),
        case("hangs in the headers", [Request, write(head), Hang]),
        case("a byte a second", [Request, Drip(http1("200 OK", "", TOKEN).into_bytes()), Hang]),
        case("half closed after the request", [Request, ShutdownWrite, Hang]),
        case("half closed in the headers", [Request, write(head), ShutdownWrite, Hang]),
        case("closed in the headers", [Request, write(head)]),
        case("reset after the request", [Request, Reset]),
        case("reset in the headers", [Request, write(head), Reset]),
        case("1xx for ever", [Request, Pour(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec())]),
        case("headers for ever", [Request, write(head), Flood(b"x-more: and more\r\n".to_vec(), GIGABYTE)]),
        case("a header for ever", [Request, write(head), write("x-long: "), Flood(vec![b'a'; 4096], GIGABYTE)]),
        case("a status line for ever", [Request, write("HTTP/1.1 200 "), Flood(vec![b'a'; 4096], GIGABYTE)]),
        case("not HTTP", [write(format!("SSH-2.0-OpenSSH_9.9 {SECRET}\r\n")), Hang]),
        case("TLS where none was meant", [Request, write([21, 3, 3, 0, 2, 2, 40]), Hang]),
        case("a length that is none", [Request, write(format!("{head}content-length: {SECRET}\r\n\r\n{TOKEN}"))]),
        case("two lengths", [Request, write(format!("{head}content-length: 5\r\ncontent-length: 66\r\n\r\n{TOKEN}"))]),
    ]
}

/// An answer whose head comes, and whose body is harmful. None can be used as a whole.
pub(crate) fn http1_bodies(status: &str, headers: &str) -> Vec<Case> {
    use Step::{Drip, Flood, Hang, Request, Reset, ShutdownWrite};

    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}");
    let sized = format!("{head}content-length: 66\r\n\r\n{}", &TOKEN[..20]);
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let one_chunk = format!("{chunked}42\r\n{TOKEN}\r\n");
    let rest = b"0123456789abcdef".repeat(256);
    vec![
        case("hangs in the body", [Request, write(&sized), Hang]),
        case("hangs before the last chunk", [Request, write(&one_chunk), Hang]),
        case("a body of a byte a second", [Request, write(&sized), Drip(TOKEN.as_bytes()[20..].to_vec()), Hang]),
        case("closed in the body", [Request, write(&sized)]),
        case("half closed in the body", [Request, write(&sized), ShutdownWrite, Hang]),
        case("reset in the body", [Request, write(&sized), Reset]),
        case(
            "a gigabyte that is announced",
            [Request, write(format!("{head}content-length: {GIGABYTE}\r\n\r\n")), Flood(rest.clone(), GIGABYTE), Hang],
        ),
        case(
            "a gigabyte in chunks",
            [Request, write(&chunked), Flood([b"1000\r\n", &rest[..], b"\r\n"].concat(), GIGABYTE), Hang],
        ),
        case("a gigabyte to the end", [Request, write(format!("{head}\r\n")), Flood(rest.clone(), GIGABYTE)]),
        case("an endless chunk's extension", [Request, write(&chunked), write("1;"), Flood(rest, GIGABYTE)]),
        case(
            "trailers for ever",
            [Request, write(&one_chunk), write("0\r\n"), Flood(b"x-t: t\r\n".to_vec(), GIGABYTE)],
        ),
        case("chunks that are none", [Request, write(&chunked), write(format!("{SECRET}\r\n")), Hang]),
        case("a gzip bomb", {
            let bomb = gzip_bomb();
            let head = format!("{head}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
            [Request, write(head), write(bomb)]
        }),
    ]
}

/// 60 KB that become 9 MB: a zero, and again and again 258 copies of it, in DEFLATE's fixed codes (RFC 1951 §3.2.6).
fn gzip_bomb() -> Vec<u8> {
    let mut bits = vec![1, 1, 0];
    bits.extend([0, 0, 1, 1, 0, 0, 0, 0]);
    for _ in 0..36_000 {
        bits.extend([1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    }
    bits.extend([0; 7]);
    let deflated = bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |all, bit| (all << 1) | bit));
    [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255].into_iter().chain(deflated).collect()
}

pub(crate) mod http2 {
    //! Kinds of frames and what they carry (RFC 9113 §6).

    use super::*;

    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const CONTINUATION: u8 = 9;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;

    /// `:status: 200`, as in HPACK's static table.
    pub(crate) const STATUS_200: [u8; 1] = [0x88];
    /// `:status: 103`: the name from the table, the value as it is.
    const STATUS_103: [u8; 5] = [0x08, 3, b'1', b'0', b'3'];
    /// More than clients have room for (5 MiB). Clients read on for as long as more comes, whatever they wait for.
    pub(crate) const WINDOW: u64 = 6 * 1024 * 1024;
    /// A header that goes into no table: `x: y`.
    const FIELD: [u8; 5] = [0, 1, b'x', 1, b'y'];

    pub(crate) fn settings() -> Vec<u8> {
        frame(SETTINGS, 0, 0, &[])
    }

    pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
        frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
    }

    pub(crate) fn goaway(code: u32, last_stream: u32, debug_data: &str) -> Vec<u8> {
        frame(GOAWAY, 0, 0, &[&last_stream.to_be_bytes()[..], &code.to_be_bytes(), debug_data.as_bytes()].concat())
    }

    /// Whatever can be done to a client that has sent its request over HTTP/2, none of it a whole answer. After each of them
    /// the connection stays, and hangs.
    pub(crate) fn no_answers() -> Vec<Case> {
        use Step::{Flood, Hang, Http2Request, Pour, Reset, ShutdownWrite};

        let ok = frame(HEADERS, END_HEADERS, 1, &STATUS_200);
        let part = frame(DATA, 0, 1, &TOKEN.as_bytes()[..20]);
        let secret = format!("go away, {SECRET}");
        let mut cases = vec![
            case("HTTP/2: hangs, having accepted", [Hang]),
            case("HTTP/2: hangs after the request, without a word", [Http2Request, Hang]),
            case("HTTP/2: hangs after the request", [write(settings()), Http2Request, Hang]),
            case("HTTP/2: hangs after the headers", [write(settings()), Http2Request, write(&ok), Hang]),
            case("HTTP/2: hangs in the body", [write(settings()), Http2Request, write(&ok), write(&part), Hang]),
            case("HTTP/2: no window for the request", [write(setting(4, 0)), Hang]),
            case("HTTP/2: no streams", [write(setting(3, 0)), Hang]),
            case("HTTP/2: frames of no legal size", [write(setting(5, 1)), Hang]),
            case("HTTP/2: reset after the request", [write(settings()), Http2Request, Reset]),
            case("HTTP/2: half closed after the request", [write(settings()), Http2Request, ShutdownWrite, Hang]),
            case("HTTP/2: closed in the body", [write(settings()), Http2Request, write(&ok), write(&part)]),
            case(
                "HTTP/2: 1xx for ever",
                [write(settings()), Http2Request, Pour(frame(HEADERS, END_HEADERS, 1, &STATUS_103))],
            ),
            case(
                "HTTP/2: headers for ever",
                [
                    write(settings()),
                    Http2Request,
                    write(frame(HEADERS, 0, 1, &STATUS_200)),
                    Flood(frame(CONTINUATION, 0, 1, &FIELD.repeat(100)), GIGABYTE),
                ],
            ),
            case(
                "HTTP/2: trailers for ever",
                [
                    write(settings()),
                    Http2Request,
                    write(&ok),
                    write(frame(DATA, 0, 1, TOKEN.as_bytes())),
                    write(frame(HEADERS, END_STREAM, 1, &FIELD)),
                    Flood(frame(CONTINUATION, 0, 1, &FIELD.repeat(100)), GIGABYTE),
                ],
            ),
            case(
                "HTTP/2: empty frames for ever",
                [write(settings()), Http2Request, write(&ok), Flood(frame(DATA, 0, 1, &[]), GIGABYTE), Hang],
            ),
            case(
                "HTTP/2: more than a window",
                [write(settings()), Http2Request, write(&ok), Flood(frame(DATA, 0, 1, &[b' '; 4096]), WINDOW), Hang],
            ),
            case(
                "HTTP/2: pings for ever",
                [write(settings()), Http2Request, Flood(frame(PING, 0, 0, &[7; 8]), GIGABYTE), Hang],
            ),
            case("HTTP/2: settings for ever", [Http2Request, Flood(settings(), GIGABYTE), Hang]),
            case(
                "HTTP/2: an answer on another stream",
                [write(settings()), Http2Request, write(frame(HEADERS, END_HEADERS, 7, &STATUS_200)), Hang],
            ),
            case("HTTP/2: not HTTP/2", [write(http1("200 OK", "", TOKEN)), Hang]),
        ];
        // Each code, those unknown included.
        for code in [0, 1, 2, 5, 7, 8, 11, 13, 4711] {
            let reset = frame(RST_STREAM, 0, 1, &u32::to_be_bytes(code));
            cases.push(case("HTTP/2: stream reset", [write(settings()), Http2Request, write(reset)]));
            let goaway = goaway(code, 0, &secret);
            cases.push(case("HTTP/2: GOAWAY", [write(settings()), write(goaway), Hang]));
        }
        for code in [0, 2, 11] {
            let goaway = goaway(code, 1, &secret);
            cases.push(case(
                "HTTP/2: GOAWAY after the request",
                [write(settings()), Http2Request, write(&goaway), write(&goaway)],
            ));
        }
        cases
    }
}
